"""From a running source's command line to its destination's. Pure: all that is known of the host is in the request.

The order of the options stays, since QEMU assigns PCI addresses and the like by it. What only one process can hold is
changed, what can't be taken over is refused, all refusals together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import structs

from livemig.core.errors import CommandLineError, PlanError, RefusedError
from livemig.qemu.command_line.characters import SPEC_OPTIONS, rewrite_chardev, rewrite_spec
from livemig.qemu.command_line.config_file import options_of
from livemig.qemu.command_line.images import with_images
from livemig.qemu.command_line.machine_parts import (
    backend_chardevs,
    check_device,
    check_drive,
    check_memory_file,
    refuse_descriptors,
    refuse_option,
)
from livemig.qemu.command_line.network import rewrite_network, rewrite_spice, rewrite_vnc
from livemig.qemu.command_line.options import IMAGE, Option, option, parse, render
from livemig.qemu.command_line.properties import KeyValues, escaped
from livemig.qemu.command_line.reading import MAIN_ID, NETWORK_OPTIONS, SPARE_ID
from livemig.qemu.command_line.request import DestinationLine, Request
from livemig.qemu.command_line.rewriting import Entry, Rewriting, is_node_name, is_path_key
from livemig.qemu.command_line.secrets import redacted_text, secrets_in, secrets_in_config
from livemig.qemu.command_line.settings import apply_settings
from livemig.qemu.command_line.since_start import map_override, with_hotplug, with_set_options

_DROPPED = frozenset({"daemonize", "incoming", "loadvm", "S"})
_NOT_EXTRA = _DROPPED | {"preconfig", "chroot", "snapshot"}
_IMAGE_OPTIONS = frozenset({IMAGE, "hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "mtdblock", "sd", "pflash"})
_FILE_OPTIONS = frozenset({"kernel", "shim", "initrd", "dtb", "mem-path"})
_SEARCHED_OPTIONS = frozenset({"bios", "L"})
"""Their files are also looked for in QEMU's own folders."""
_BLOCK_OPTIONS = frozenset({"drive", "blockdev"})
_MACHINE_OPTIONS = frozenset({"machine", "M"})
_GUEST_KEYS = {
    "device": frozenset({"serial", "mount_tag", "tag", "model", "product", "name", "loadparm"}),
    "fw_cfg": frozenset({"name", "string"}),
    "object": frozenset({"data", "identity"}),
    "smbios": frozenset({"value", "serial", "version", "asset", "product", "manufacturer", "sku", "family"}),
    "virtfs": frozenset({"mount_tag"}),
}
"""Texts for the guest, which may look like a path of the host."""


def destination_line(arguments: Sequence[str], request: Request) -> DestinationLine:
    """Returns the command line that makes the same machine, waiting for the guest of a running one.

    Args:
        arguments: The source's command line, without the program.
        request: What is wanted, and what is known of the host.

    Raises:
        CommandLineError: When the command line can't be read; it names the argument.
        PlanError: When `--map`, `--dst-set` or `--dst-args` makes no sense with it.
        RefusedError: When something in it can't be taken over; all such things together, each with the remedy.
    """
    with _without_secrets((*arguments, *request.extra)):
        return _Destination(request).line(arguments)


def given_line(arguments: Sequence[str], request: Request) -> DestinationLine:
    """Returns a command line that the user gave (``--dst-command``), with livemig's monitors, waiting for the guest.

    Raises:
        CommandLineError: When it can't be read.
        RefusedError: When one of its ports is taken or a path is too long.
    """
    with _without_secrets((*arguments, *request.extra)):
        return _Destination(request).given(arguments)


@contextmanager
def _without_secrets(arguments: Sequence[str]) -> Iterator[None]:
    """Takes the secrets of a command line out of what is said about it."""
    secrets = secrets_in(["qemu", *arguments])
    try:
        yield
    except CommandLineError as error:
        argument = redacted_text(error.argument, secrets)
        raise CommandLineError(redacted_text(str(error), secrets), argument=argument) from None
    except RefusedError as error:
        raise RefusedError(tuple(redacted_text(reason, secrets) for reason in error.reasons)) from None


class _Destination:
    """One command line being changed; each option has at most one method that knows it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._rewriting = Rewriting(request)
        self._counts: Counter[str] = Counter()
        self._rewriters: dict[str, Callable[[Entry], None]] = {
            "chardev": lambda entry: rewrite_chardev(self._rewriting, entry),
            "device": self._device,
            "display": self._display,
            "object": self._object,
            "pidfile": lambda entry: self._own_file(entry, "pid"),
            "D": lambda entry: self._own_file(entry, "log"),
            "qtest-log": lambda entry: self._own_file(entry, "qtest.log"),
            "s": self._gdb,
            "spice": lambda entry: rewrite_spice(self._rewriting, entry),
            "trace": self._trace,
            "audiodev": self._audio,
            "vnc": self._vnc,
        }
        for name in ("global", "set"):
            self._rewriters[name] = lambda entry: map_override(entry, self._rewriting)
        for name in SPEC_OPTIONS:
            self._rewriters[name] = self._spec
        for name in NETWORK_OPTIONS:
            self._rewriters[name] = lambda entry: rewrite_network(self._rewriting, entry)
        for name in _BLOCK_OPTIONS:
            self._rewriters[name] = self._block
        for name in _IMAGE_OPTIONS | _FILE_OPTIONS | _SEARCHED_OPTIONS:
            self._rewriters[name] = self._file

    @property
    def moved_ports(self) -> list[tuple[str, int]]:
        """Ports that were taken, and by which option they were wanted."""
        return self._rewriting.moved_ports

    @property
    def sockets(self) -> list[str]:
        """Where sockets will be made."""
        return self._rewriting.sockets

    def line(self, arguments: Sequence[str]) -> DestinationLine:
        """Returns the line derived from a source's."""
        entries = [Entry(each) for each in self._taken_over(parse(arguments))]
        entries = with_images(with_set_options(entries), self._rewriting)
        entries = with_hotplug(entries, self._rewriting)
        self._name_machine(entries)
        changes = apply_settings(self._request.settings, entries)
        self._rewriting.backends.update(backend_chardevs(entries))
        self._rewriting.makes_socket(self._request.qmp_path, "--dst-qmp")
        self._rewriting.makes_socket(self._request.spare_path, "the monitor for recovery")
        self._rewriting.changes[:0] = changes
        for entry in entries:
            self.rewrite(entry)
        for old in self._rewriting.unused_maps():
            self._rewriting.warnings.append(f"--map {old}: nothing in the source's command line is there")
        return self._finished([entry.result for entry in entries])

    def given(self, arguments: Sequence[str]) -> DestinationLine:
        """Returns the line that the user gave."""
        options = [each for each in parse(arguments) if each.name not in _DROPPED and not _is_ours(Entry(each))]
        options = [each for each in options if not self._is_monitor_asked_for(each)]
        self._rewriting.makes_socket(self._request.qmp_path, "--dst-qmp")
        self._rewriting.makes_socket(self._request.spare_path, "the monitor for recovery")
        self._check_places(options)
        return self._finished(options)

    def _finished(self, options: list[Option]) -> DestinationLine:
        extra = self._extra()
        if self._rewriting.refusals:
            raise RefusedError(tuple(dict.fromkeys(self._rewriting.refusals)))
        return DestinationLine(
            arguments=tuple(render([*options, *_waiting(self._request), *extra])),
            changes=tuple(self._rewriting.changes),
            warnings=tuple(self._rewriting.warnings),
            sockets=tuple(self._rewriting.sockets),
            inputs=tuple(dict.fromkeys(self._rewriting.inputs)),
        )

    def _extra(self) -> tuple[Option, ...]:
        try:
            extra = parse(self._request.extra)
        except CommandLineError as error:
            raise CommandLineError(f"--dst-args: {error}", argument=error.argument) from error
        for each in extra:
            if each.name in _NOT_EXTRA:
                raise PlanError(f"--dst-args: {each.text} can't be given, since the destination waits as livemig says")
        self._check_places(extra)
        return extra

    def _taken_over(self, options: Iterable[Option]) -> list[Option]:
        """Leaves out what was for the start alone, and puts a config file's options at its place."""
        found: list[Option] = []
        for each in options:
            if each.name == "readconfig":
                found += self._config(each.value or "")
            elif (not self._request.same_host and self._is_monitor_asked_for(each)) or _is_ours(Entry(each)):
                continue
            elif each.name in _DROPPED or (each.name == "runas" and not self._request.keep_user):
                self._rewriting.changes.append(f"{each.text}: dropped")
            else:
                found.append(each)
        return found

    def _is_monitor_asked_for(self, each: Option) -> bool:
        """Whether it is a monitor at the very path where livemig makes one: on another host the source's own path."""
        if each.name not in ("qmp", "qmp-pretty") or not (each.value or "").startswith("unix:"):
            return False
        path = KeyValues((each.value or "")[5:], "path").get("path") or ""
        return self._request.absolute(path) == self._request.absolute(self._request.qmp_path)

    def _config(self, path: str) -> list[Option]:
        text = self._request.config_files.get(path)
        if text is None:
            raise CommandLineError(f"-readconfig {path}: the file can't be read any more", argument=path)
        if secrets_in_config(text, path):
            self._rewriting.refuse(
                f"-readconfig {path}", "it holds a password, which would show in the process list: use -object secret"
            )
        self._rewriting.changes.append(f"-readconfig {path}: its options stand in the command line")
        return [each for each in options_of(text, path) if not _is_ours(Entry(each))]

    def _name_machine(self, entries: list[Entry]) -> None:
        """Makes an alias such as ``pc`` concrete: it means another machine in another version of QEMU."""
        wanted = self._request.machine_type
        if wanted is None:
            return
        named = [entry for entry in entries if entry.name in _MACHINE_OPTIONS and entry.get("type") is not None]
        for entry in named:
            self._rewriting.changed("-machine", entry.get("type") or "", wanted)
            entry.properties.set("type", wanted)
        if not named:
            self._rewriting.changed("-machine", "QEMU's default", wanted)
            entries.insert(0, Entry(option("machine", f"type={wanted}")))

    def rewrite(self, entry: Entry) -> None:
        """Changes one option, and notes what refuses it."""
        if refuse_option(self._rewriting, entry):
            return
        if entry.name == "run-with":
            self._run_with(entry)
        rewriter = self._rewriters.get(entry.name)
        if rewriter is not None:
            rewriter(entry)
        self._map_properties(entry)
        refuse_descriptors(self._rewriting, entry)

    def _map_properties(self, entry: Entry) -> None:
        guest_keys = _GUEST_KEYS.get(entry.name, frozenset())

        def change(key: str, value: str) -> str:
            if key in entry.settled or key.rpartition(".")[2] in guest_keys or is_node_name(entry.name, key):
                return value
            new = self._rewriting.mapped_text(value, relative=is_path_key(key))
            self._rewriting.changed(f"-{entry.name} {key}", value, new)
            return new

        entry.properties.rewrite(change)

    def _spec(self, entry: Entry) -> None:
        rewrite_spec(self._rewriting, entry, self._counts[entry.name])
        self._counts[entry.name] += 1

    def _gdb(self, entry: Entry) -> None:
        port = self._rewriting.own_port(1234, "-s")
        if port != 1234:
            entry.replace(f"tcp::{port}", "gdb")

    def _own_file(self, entry: Entry, name: str) -> None:
        path = entry.value or ""
        entry.replace(self._rewriting.own_path(path, f"qemu.{name}", f"-{entry.name}"))

    def _file(self, entry: Entry) -> None:
        path = entry.value or ""
        searched = entry.name in _SEARCHED_OPTIONS and "/" not in path
        new = path if searched else self._rewriting.mapped_text(path, relative=True)
        entry.replace(new)
        self._rewriting.changed(f"-{entry.name}" if entry.option.flag else "disk image", path, new)
        if not searched and entry.name not in ("mem-path", "initrd"):
            self._needs_image(new)

    def _block(self, entry: Entry) -> None:
        check_drive(self._rewriting, entry)
        self._map_properties(entry)
        for key, value in list(entry.properties.items()):
            entry.settled.add(key)
            if key.rpartition(".")[2] in ("file", "filename") and not is_node_name(entry.name, key):
                self._needs_image(value)

    def _needs_image(self, path: str) -> None:
        """A plain path is looked for before the launch; a protocol's is QEMU's to judge."""
        if path and ":" not in path.partition("/")[0] and not path.startswith("/dev/fdset"):
            self._rewriting.needs(path)
        elif path.startswith("file:/"):
            self._rewriting.needs(path.removeprefix("file:").replace("//", "/"))

    def _device(self, entry: Entry) -> None:
        check_device(self._rewriting, entry)
        identity = self._request.generation_id
        if entry.get("driver") == "vmgenid" and identity and "guid" not in entry.settled:
            self._rewriting.changed("-device vmgenid guid", entry.get("guid") or "none", identity)
            entry.properties.set("guid", identity)

    def _object(self, entry: Entry) -> None:
        check_memory_file(self._rewriting, entry)
        if entry.get("qom-type") == "filter-dump":
            self._own_property(entry, "file", f"{entry.get('id')}.dump")

    def _audio(self, entry: Entry) -> None:
        if entry.get("driver") == "wav":
            self._own_property(entry, "path", f"{entry.get('id')}.wav")

    def _trace(self, entry: Entry) -> None:
        self._own_property(entry, "file", "qemu.trace")

    def _own_property(self, entry: Entry, key: str, name: str) -> None:
        path = entry.get(key)
        if path is not None and entry.is_open(key):
            entry.decide(key, self._rewriting.own_path(path, name, f"-{entry.name} {key}"))

    def _vnc(self, entry: Entry) -> None:
        entry.replace(rewrite_vnc(self._rewriting, entry.value or "", "-vnc"))

    def _display(self, entry: Entry) -> None:
        value = entry.value or ""
        if value.startswith("vnc="):
            entry.replace(f"vnc={rewrite_vnc(self._rewriting, value[4:], '-display vnc')}")
        elif entry.get("type") == "curses":
            entry.replace("none")
            self._rewriting.changed("-display", "curses", "none")

    def _run_with(self, entry: Entry) -> None:
        if entry.get("chroot") is not None:
            self._rewriting.refuse(
                entry.option.text, "its paths are inside another root: give the whole line with --dst-command"
            )
        if not self._request.keep_user:
            entry.properties.remove("user")

    def _check_places(self, options: Iterable[Option]) -> None:
        """What the user wrote is not changed, but a port or a socket that is taken is found before the launch."""
        probe = _Destination(structs.replace(self._request, busy_ports=self._rewriting.taken_ports, same_host=False))
        for each in options:
            probe.rewrite(Entry(each))
        for what, port in probe.moved_ports:
            self._rewriting.refuse(what, f"port {port} is taken: choose another")
        for path in probe.sockets:
            if path in self._rewriting.sockets:
                self._rewriting.refuse(path, "another socket is made there, as livemig's own or of the same line")
            self._rewriting.sockets.append(path)


def _is_ours(entry: Entry) -> bool:
    if entry.name == "chardev":
        return entry.get("id") in (MAIN_ID, SPARE_ID)
    return entry.name == "mon" and entry.get("chardev") in (MAIN_ID, SPARE_ID)


def _waiting(request: Request) -> list[Option]:
    options = []
    for identity, path in ((MAIN_ID, request.qmp_path), (SPARE_ID, request.spare_path)):
        options.append(option("chardev", f"socket,id={identity},path={escaped(path)},server=on,wait=off"))
        options.append(option("mon", f"chardev={identity},mode=control"))
    return [*options, option("S"), option("incoming", "defer")]
