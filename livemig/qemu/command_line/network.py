"""Network back ends: ``-netdev``, ``-nic``, ``-net``. Pure.

A tap that was passed by descriptor is opened again by its name; on one host it needs another name, since the source
holds it.
"""

from __future__ import annotations

import re

from livemig.qemu.command_line.properties import KeyValues, Properties, is_on
from livemig.qemu.command_line.rewriting import Entry, Rewriting

_FORWARD = re.compile(r"((?:tcp|udp)?:[^:]*:)(\d+)(-.*)", re.DOTALL)
_HOST_PORT = re.compile(r"(.*:)(\d+)", re.DOTALL)
_FD_KEYS = ("fd", "fds", "vhostfd", "vhostfds")


def rewrite_network(rewriting: Rewriting, entry: Entry) -> None:
    """Changes a back end."""
    what = f"-{entry.name} {entry.get('type')},id={entry.get('id')}" if entry.get("id") else entry.option.text
    match entry.get("type"):
        case "tap":
            _rewrite_tap(rewriting, entry, what)
        case "bridge":
            _map_name(rewriting, entry, "br", what)
        case "user":
            _rewrite_forwards(rewriting, entry, what)
        case "socket":
            _rewrite_listen(rewriting, entry, what)
        case "stream" | "dgram":
            _rewrite_stream(rewriting, entry, what)
        case "vhost-vdpa":
            _refuse_held(rewriting, entry, "vhostdev", what)
        case "af-xdp" | "netmap":
            _refuse_held(rewriting, entry, "ifname", what)
        case _:
            pass


def _rewrite_tap(rewriting: Rewriting, entry: Entry, what: str) -> None:
    properties = entry.properties
    if "ifname" in entry.settled:
        for key in _FD_KEYS:
            properties.remove(key)
        return
    _map_name(rewriting, entry, "br", what)
    fds = entry.get("fd") or entry.get("fds")
    if fds is not None:
        names = {rewriting.request.tap_names.get(int(fd)) for fd in fds.split(":") if fd.isdigit()}
        name = names.pop() if len(names) == 1 else None
        if name is None:
            rewriting.refuse(what, f"no tap can be seen behind its descriptor {fds}: use --dst-command")
            return
        _reopen(properties, name, queue_count=fds.count(":") + 1)
        rewriting.changed(what, f"descriptor {fds}", f"ifname={name}")
    name = properties.get("ifname")
    if name is None:
        return
    new = rewriting.mapped_name(name)
    if rewriting.request.same_host and new == name:
        rewriting.refuse(what, f"the source holds {name}: make another tap beside it and give --map {name}=NEW")
    entry.decide("ifname", new)
    rewriting.changed(what, name, new)


def _reopen(properties: Properties, name: str, *, queue_count: int) -> None:
    vhost = properties.get("vhostfd") is not None or properties.get("vhostfds") is not None
    for key in _FD_KEYS:
        properties.remove(key)
    properties.set("ifname", name)
    properties.set("script", "no")
    properties.set("downscript", "no")
    if vhost:
        properties.set("vhost", "on")
    if queue_count > 1:
        properties.set("queues", str(queue_count))


def _map_name(rewriting: Rewriting, entry: Entry, key: str, what: str) -> None:
    name = entry.get(key)
    if name is not None and entry.is_open(key):
        new = rewriting.mapped_name(name)
        entry.decide(key, new)
        rewriting.changed(what, name, new)


def _refuse_held(rewriting: Rewriting, entry: Entry, key: str, what: str) -> None:
    """What only one process can hold: it needs another on one host."""
    held = entry.get(key)
    if held is None or key in entry.settled:
        return
    new = rewriting.mapped(held) if held.startswith("/") else rewriting.mapped_name(held)
    if rewriting.request.same_host and new == held:
        rewriting.refuse(what, f"the source holds {held}: give another one with --map {held}=NEW")
    entry.decide(key, new)


def _rewrite_forwards(rewriting: Rewriting, entry: Entry, what: str) -> None:

    def change(key: str, value: str) -> str:
        found = _FORWARD.fullmatch(value) if key.startswith("hostfwd") and key not in entry.settled else None
        if found is None:
            return value
        return f"{found[1]}{rewriting.own_port(int(found[2]), f'{what} hostfwd')}{found[3]}"

    entry.properties.rewrite(change)


def _rewrite_listen(rewriting: Rewriting, entry: Entry, what: str) -> None:
    for key in ("listen", "localaddr"):
        found = _HOST_PORT.fullmatch(entry.get(key) or "")
        multicast = key == "localaddr" and entry.get("mcast") is not None
        if found and key not in entry.settled and not multicast:
            entry.decide(key, f"{found[1]}{rewriting.own_port(int(found[2]), what)}")


def _rewrite_stream(rewriting: Rewriting, entry: Entry, what: str) -> None:
    """``dgram`` has its own address at ``local``, ``stream`` listens at ``addr`` when it is the server."""
    prefix = "local" if entry.get("type") == "dgram" else "addr"
    if prefix == "addr" and not is_on(entry.get("server")):
        return
    path, port = entry.get(f"{prefix}.path"), entry.get(f"{prefix}.port")
    if path is not None and f"{prefix}.path" not in entry.settled:
        entry.decide(f"{prefix}.path", rewriting.own_socket(path, f"{entry.get('id')}.sock", what))
    if port is not None and port.isdigit() and f"{prefix}.port" not in entry.settled:
        entry.decide(f"{prefix}.port", str(rewriting.own_port(int(port), what)))


def rewrite_vnc(rewriting: Rewriting, text: str, what: str) -> str:
    """Returns the value of ``-vnc``, or of ``-display vnc=``, as the destination has it."""
    values = KeyValues(text, "vnc")
    display = values.get("vnc") or ""
    if display == "none" or is_on(values.get("reverse")):
        return text
    if display.startswith("unix:"):
        values.set("vnc", f"unix:{rewriting.own_socket(display[5:], 'vnc.sock', what)}")
    elif (found := _HOST_PORT.fullmatch(display)) and values.get("to") is None:
        values.set("vnc", f"{found[1]}{rewriting.own_port(5900 + int(found[2]), f'{what} (its port)') - 5900}")
    websocket = values.get("websocket")
    if websocket is not None and websocket.isdigit():
        values.set("websocket", str(rewriting.own_port(int(websocket), f"{what} websocket")))
    return str(values)


def rewrite_spice(rewriting: Rewriting, entry: Entry) -> None:
    """Changes ``-spice``: its ports, or its socket."""
    for key in ("port", "tls-port"):
        port = entry.get(key)
        if port is not None and port.isdigit() and port != "0":
            entry.decide(key, str(rewriting.own_port(int(port), f"-spice {key}")))
    address = entry.get("addr")
    if address is not None and is_on(entry.get("unix")):
        entry.decide("addr", rewriting.own_socket(address, "spice.sock", "-spice"))
