"""Character devices: what ``-serial``, ``-qmp``, ``-gdb`` and the like take, and ``-chardev``. Pure.

A server's socket or port is moved to one of its own and never waits for a client; a terminal becomes null, since
nobody sits at the destination's; a client stays as it is.
"""

from __future__ import annotations

import re

from livemig.qemu.command_line.properties import KeyValues, is_on
from livemig.qemu.command_line.rewriting import Entry, Rewriting

SPEC_OPTIONS = frozenset({"serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb", "qtest"})
"""Options whose value is a character device in short form."""

_TCP = re.compile(r"(tcp|telnet|tn3270|websocket):(\[[^\]]*\]|[^:,]*):(\d+)((?:,.*)?)", re.DOTALL)
_UDP = re.compile(r"udp:([^@]*)@(\[[^\]]*\]|[^:]*):(\d+)(.*)", re.DOTALL)


def rewrite_spec(rewriting: Rewriting, entry: Entry, count: int) -> None:
    """Changes an option with a device in short form.

    Args:
        rewriting: Where changes and refusals go.
        entry: The option.
        count: How many of that name came before it.
    """
    entry.replace(rewritten_spec(rewriting, entry.value or "", f"{entry.name}-{count}", entry.option.text))


def rewritten_spec(rewriting: Rewriting, spec: str, name: str, what: str) -> str:
    """Returns a device in short form as the destination has it."""
    if spec.startswith("mon:"):
        return f"mon:{rewritten_spec(rewriting, spec[4:], name, what)}"
    if spec == "stdio":
        rewriting.changed(what, "stdio", "null")
        return "null"
    if spec.startswith("file:"):
        return f"file:{rewriting.own_path(spec[5:], f'{name}.log', what)}"
    if spec.startswith("pipe:"):
        return f"pipe:{_pipe(rewriting, spec[5:], what)}"
    if spec.startswith("unix:"):
        return f"unix:{_unix_spec(rewriting, spec[5:], name, what)}"
    if spec.startswith("/dev/fdset"):
        rewriting.refuse(what, "its descriptor was passed by whoever started the source: use --dst-command")
        return spec
    if spec.startswith("/dev/"):
        return rewriting.mapped(spec)
    if found := _TCP.fullmatch(spec):
        return _tcp_spec(rewriting, found, what)
    if found := _UDP.fullmatch(spec):
        port = rewriting.own_port(int(found[3]), what)
        return f"udp:{found[1]}@{found[2]}:{port}{found[4]}"
    return spec


def rewrite_chardev(rewriting: Rewriting, entry: Entry) -> None:
    """Changes a ``-chardev``."""
    properties = entry.properties
    what, name = f"-chardev {entry.get('id')}", entry.get("id") or "chardev"
    backend = entry.get("backend")
    if backend == "stdio":
        entry.decide("backend", "null")
        properties.remove("signal")
        rewriting.changed(what, "stdio", "null")
    elif backend == "socket":
        _socket(rewriting, entry, name, what)
    elif backend == "udp" and (port := entry.get("localport")) and port.isdigit() and "localport" not in entry.settled:
        entry.decide("localport", str(rewriting.own_port(int(port), what)))
    elif path := entry.get("path"):
        _path(rewriting, entry, path, name, what)
    if (path := entry.get("logfile")) and "logfile" not in entry.settled:
        entry.decide("logfile", rewriting.own_path(path, f"{name}.log", what))


def _path(rewriting: Rewriting, entry: Entry, path: str, name: str, what: str) -> None:
    if "path" in entry.settled:
        return
    match entry.get("backend"):
        case "file":
            entry.decide("path", rewriting.own_path(path, f"{name}.out", what))
            if source := entry.get("input-path"):
                entry.decide("input-path", rewriting.mapped(source))
        case "pty":
            entry.decide("path", rewriting.own_path(path, f"{name}.pty", what))
        case "pipe":
            entry.decide("path", _pipe(rewriting, path, what))
        case _:
            entry.decide("path", rewriting.mapped(path))


def _socket(rewriting: Rewriting, entry: Entry, name: str, what: str) -> None:
    properties = entry.properties
    server, path, backend = is_on(entry.get("server")), entry.get("path"), rewriting.backends.get(name)
    if entry.get("fd") is not None and "fd" not in entry.settled:
        if not server or backend:
            reason = "its descriptor was passed by whoever started the source: use --dst-command"
            rewriting.refuse(f"{what} (fd={entry.get('fd')})", reason)
            return
        properties.remove("fd")
        path = rewriting.fresh_socket(f"{name}.sock", what)
        entry.decide("path", path)
        rewriting.changed(what, "a passed descriptor", path)
    elif backend and path and not entry.settled & {"path"}:
        _backend_socket(rewriting, entry, path, backend, what)
    elif path is not None:
        if "path" in entry.settled:
            if server:
                rewriting.makes_socket(path, what)
        elif server:
            make = rewriting.own_path if is_on(entry.get("abstract")) else rewriting.own_socket
            entry.decide("path", make(path, f"{name}.sock", what))
        else:
            entry.decide("path", rewriting.mapped(path))
    elif server and (port := entry.get("port")) and port.isdigit() and "port" not in entry.settled:
        entry.decide("port", str(rewriting.own_port(int(port), what)))
    if server:
        entry.decide("wait", "off")


def _backend_socket(rewriting: Rewriting, entry: Entry, path: str, backend: str, what: str) -> None:
    if rewriting.request.same_host and not rewriting.is_mapped(path):
        reason = (
            f"{backend} keeps a part of the machine in a process beside QEMU: start a second one for the destination"
        )
        rewriting.refuse(what, f"{reason} and give its socket with --map {path}=NEW")
        return
    new = rewriting.mapped(path)
    entry.decide("path", new)
    if is_on(entry.get("server")):
        rewriting.makes_socket(new, what)
    rewriting.changed(what, path, new)


def _unix_spec(rewriting: Rewriting, text: str, name: str, what: str) -> str:
    values = KeyValues(text, "path")
    path = values.get("path") or ""
    if not is_on(values.get("server")):
        values.set("path", rewriting.mapped(path))
        return str(values)
    make = rewriting.own_path if is_on(values.get("abstract")) else rewriting.own_socket
    values.set("path", make(path, f"{name}.sock", what))
    values.set("wait", "off")
    return str(values)


def _tcp_spec(rewriting: Rewriting, found: re.Match[str], what: str) -> str:
    kind, host, port, rest = found[1], found[2], int(found[3]), found[4]
    values = KeyValues(rest.removeprefix(","))
    if what.lstrip("-").startswith("gdb"):
        return f"{kind}:{host}:{rewriting.own_port(port, what)}{rest}"
    if is_on(values.get("server")):
        port = rewriting.own_port(port, what)
        values.set("wait", "off")
        rest = f",{values}"
    return f"{kind}:{host}:{port}{rest}"


def _pipe(rewriting: Rewriting, path: str, what: str) -> str:
    if rewriting.request.same_host and not rewriting.is_mapped(path):
        rewriting.refuse(what, f"the source holds the pipe {path}: make another and give it with --map {path}=NEW")
        return path
    return rewriting.mapped(path)
