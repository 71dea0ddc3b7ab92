"""Plans the destination's launch: the source's command line and surroundings, changed as little as can be.

Reads and checks, and touches nothing; `livemig.engine.launch` starts what was found.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from livemig.core.errors import PlanError, RefusedError
from livemig.engine.hotplug import Hotplug, hotplug_since_start
from livemig.engine.launch_places import MARKER, is_missing, listened_at, remove_folder, why_no_folder, why_no_socket
from livemig.engine.side import Side
from livemig.hosts.process import (
    ProcessFacts,
    Surroundings,
    busy_ports,
    own_surroundings,
    read_process,
    supervisor,
    tap_name,
)
from livemig.hosts.start import Program
from livemig.qemu.command_line import (
    DestinationLine,
    PathMap,
    Request,
    Setting,
    config_paths,
    destination_line,
    drops_privileges,
    given_line,
    launch_folder,
    memory_paths,
    parse_maps,
    redacted,
    redacted_text,
    secrets_in,
    tap_descriptors,
)

__all__ = [
    "MARKER",
    "LaunchOptions",
    "LaunchPlan",
    "folder_of",
    "listened_at",
    "plan_launch",
    "remove_folder",
    "supervisor_of",
]

_COMMAND_REMEDY = "give the destination's command line with --dst-command"


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says of the destination's command line.

    Attributes:
        maps: ``--map``.
        settings: ``--dst-set``.
        arguments: ``--dst-args``, split.
        command: ``--dst-command``, split; None derives it from the source.
    """

    maps: tuple[PathMap, ...] = ()
    settings: tuple[Setting, ...] = ()
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None

    @classmethod
    def parse(
        cls,
        *,
        maps: Iterable[str] = (),
        settings: Iterable[str] = (),
        arguments: str = "",
        command: str | None = None,
    ) -> LaunchOptions:
        """Reads the options as they are typed.

        Raises:
            PlanError: When one can't be read, or contradicts another.
        """
        found = cls(
            maps=parse_maps(maps),
            settings=tuple(Setting.parse(text) for text in settings),
            arguments=_split(arguments, "--dst-args"),
            command=None if command is None else _split(command, "--dst-command"),
        )
        if found.command == ():
            raise PlanError("--dst-command is empty: give the whole command line, QEMU first")
        if found.command is not None and (found.maps or found.settings):
            raise PlanError("--dst-command is taken as it stands: leave out --map and --dst-set, or --dst-command")
        return found


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A launch that nothing is known to forbid.

    Attributes:
        program: What is to be started; its command line may hold secrets.
        redacted_argv: The command line without secrets, for screen, journal, trace and report.
        secrets: The secrets, to be taken out of what QEMU writes.
        folder: The new process's own folder.
        qmp_path: Where its monitor will answer.
        spare_path: Where its second one will, for recovery.
        owner: User and group that the folder is for.
        changes: What differs from the source's command line, one line each.
        warnings: What may not be as the user thinks.
        source_pid: The source's process, None when it can't be seen.
        source_folder: The folder of a source that livemig launched itself, to be removed once that has ended.
    """

    program: Program
    redacted_argv: tuple[str, ...]
    secrets: tuple[str, ...]
    folder: Path
    qmp_path: Path
    spare_path: Path
    owner: tuple[int, int]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    source_pid: int | None
    source_folder: Path | None

    @property
    def command(self) -> str:
        """The command line as a shell takes it, secrets taken out: for ``--print-destination-command``."""
        return shlex.join(self.redacted_argv)

    @property
    def stderr_path(self) -> Path:
        """Where what it writes is kept."""
        return self.folder / "stderr"


async def plan_launch(source: Side, qmp_path: str, options: LaunchOptions) -> LaunchPlan:
    """Reads the source and makes the destination's command line; changes nothing.

    Args:
        source: The source, connected.
        qmp_path: Where the destination's monitor is to answer, on this host.
        options: What the user says.

    Raises:
        CommandLineError: When the command line can't be read.
        PlanError: When an option makes no sense with it.
        RefusedError: When it can't be launched; all reasons together.
        LivemigError: When the source does not answer.
    """
    path = os.path.abspath(qmp_path)  # noqa: PTH100, ASYNC240 - a link is the user's own choice: not followed
    facts = _read_source(source, needed_at=path if options.command is None else None)
    if options.command is not None:
        return _planned_as_given(facts, options.command, path, options)
    assert facts is not None  # noqa: S101  # or it was refused
    machine_type = str(await source.monitor.execute("qom-get", {"path": "/machine", "property": "type"}))
    arguments = facts.argv[1:]
    hotplug = await hotplug_since_start(source.monitor, arguments, _config_files(arguments, _start_folder(facts)))
    return _planned(facts, path, options, machine_type.removesuffix("-machine"), hotplug)


def supervisor_of(side: Side) -> str | None:
    """Returns who would start this QEMU again after its end, with the remedy; None when nobody is seen who would."""
    facts = _read_source(side)
    return None if facts is None else supervisor(facts)


def folder_of(side: Side) -> Path | None:
    """The folder of a QEMU that livemig launched, to be removed once that has ended; None for any other."""
    facts = _read_source(side)
    return None if facts is None else _own_folder(facts)


def _split(text: str, option: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise PlanError(f"{option} can't be split into arguments: {error}") from error


def _read_source(source: Side, *, needed_at: str | None = None) -> ProcessFacts | None:
    """Reads the source's process; None when that can't be, unless a destination is to be launched from it."""
    if source.address.path is None or source.process is None:
        if needed_at is None:
            return None
        raise _unreadable(source, needed_at, _why_unseen(source), _COMMAND_REMEDY)
    try:
        return read_process(source.process.pid)
    except OSError as error:
        if needed_at is None:
            return None
        if isinstance(error, PermissionError):
            user = source.process.owner[0]
            reason = f"process {source.process.pid} is user {user}'s"
            raise _unreadable(source, needed_at, reason, "run livemig as that user or as root") from error
        raise _unreadable(source, needed_at, error.strerror or str(error), _COMMAND_REMEDY) from error


def _why_unseen(source: Side) -> str:
    if source.address.path is None:
        return "its address is no socket of this host"
    return "no process of it can be seen from here: it runs in a container, or livemig may not look at it"


def _unreadable(source: Side, needed_at: str, reason: str, remedy: str) -> RefusedError:
    return RefusedError(
        (
            (
                f"nobody listens at the destination {needed_at}, and none can be launched there, for the command line "
                f"of the source {source.address} can't be read ({reason}): {remedy}"
            ),
        )
    )


def _planned_as_given(
    facts: ProcessFacts | None, command: tuple[str, ...], path: str, options: LaunchOptions
) -> LaunchPlan:
    surroundings = own_surroundings() if facts is None else facts.surroundings
    search = surroundings.environment.get("PATH")
    executable = shutil.which(command[0], path=search) or shutil.which(command[0])
    if executable is None:
        raise RefusedError((f"--dst-command: there is no program {command[0]}",))
    request = Request(
        qmp_path=path,
        folder=_folder_beside(path),
        extra=options.arguments,
        busy_ports=busy_ports(None if facts is None else facts.pid),
        cwd=surroundings.cwd,
    )
    line = given_line(command[1:], request)
    return _checked(request, line, executable, surroundings, facts)


def _planned(facts: ProcessFacts, path: str, options: LaunchOptions, machine_type: str, hotplug: Hotplug) -> LaunchPlan:
    if facts.executable is None:
        reason = f"its program {facts.argv[0]} was deleted and none took its place"
        raise RefusedError((f"the source can't be launched a second time: {reason}; {_COMMAND_REMEDY}",))
    if facts.other_root:
        reason = "it sees another file system than livemig (a container, a chroot, a private /tmp)"
        raise RefusedError((f"the source's paths mean nothing here, since {reason}: {_COMMAND_REMEDY}",))
    arguments = facts.argv[1:]
    surroundings = facts.surroundings
    keep_user = drops_privileges(arguments) and os.geteuid() == 0
    if keep_user:
        own = own_surroundings()
        surroundings = msgspec.structs.replace(surroundings, user=own.user, group=own.group, groups=own.groups)
    surroundings = msgspec.structs.replace(surroundings, cwd=_start_folder(facts))
    request = Request(
        qmp_path=path,
        folder=_folder_beside(path),
        machine_type=machine_type,
        keep_user=keep_user,
        maps=options.maps,
        settings=options.settings,
        extra=options.arguments,
        cwd=surroundings.cwd,
        busy_ports=busy_ports(facts.pid),
        tap_names=_tap_names(facts),
        config_files=_config_files(arguments, surroundings.cwd),
        folders=_folders(arguments, surroundings.cwd),
        plugged=hotplug.plugged,
        unplugged=hotplug.unplugged,
        addresses=hotplug.addresses,
        generation_id=hotplug.generation_id,
        images=hotplug.images,
    )
    line = destination_line(arguments, request)
    return _checked(request, line, facts.executable, surroundings, facts)


def _checked(
    request: Request,
    line: DestinationLine,
    executable: str,
    surroundings: Surroundings,
    facts: ProcessFacts | None,
) -> LaunchPlan:
    """Refuses what is known to fail, all of it together."""
    owner = surroundings if facts is None else facts.surroundings
    reasons = [f"{each} is not there: give its place with --map" for each in line.inputs if is_missing(each)]
    reasons += [reason for each in line.sockets if (reason := why_no_socket(Path(each)))]
    reasons += why_no_folder(Path(request.folder), owner)
    if reasons:
        raise RefusedError(tuple(f"the destination can't be launched: {reason}" for reason in reasons))
    argv = (executable, *line.arguments)
    secrets = secrets_in(argv)
    return LaunchPlan(
        program=Program(executable=executable, argv=argv, surroundings=surroundings),
        redacted_argv=tuple(redacted(argv)),
        secrets=secrets,
        folder=Path(request.folder),
        qmp_path=Path(request.qmp_path),
        spare_path=Path(request.spare_path),
        owner=(owner.user, owner.group),
        changes=tuple(redacted_text(change, secrets) for change in line.changes),
        warnings=(*line.warnings, *_program_warnings(facts)),
        source_pid=None if facts is None else facts.pid,
        source_folder=None if facts is None else _own_folder(facts),
    )


def _program_warnings(facts: ProcessFacts | None) -> tuple[str, ...]:
    if facts is None or not facts.executable_replaced:
        return ()
    return (f"the source's program was replaced since it started: the destination runs the new {facts.executable}",)


def _own_folder(facts: ProcessFacts) -> Path | None:
    folder = launch_folder(facts.argv)
    return None if folder is None else Path(folder)


def _folder_beside(qmp_path: str) -> str:
    return f"{qmp_path}.livemig"


def _start_folder(facts: ProcessFacts) -> str:
    """Where relative paths were meant from: a daemonized QEMU has left that folder for the root."""
    cwd = facts.surroundings.cwd
    shell_folder = facts.surroundings.environment.get("PWD", "")
    daemonized = "-daemonize" in facts.argv or "--daemonize" in facts.argv
    return shell_folder if daemonized and cwd == "/" and Path(shell_folder).is_dir() and shell_folder else cwd


def _tap_names(facts: ProcessFacts) -> dict[int, str]:
    names = {descriptor: tap_name(facts.pid, descriptor) for descriptor in tap_descriptors(facts.argv[1:])}
    return {descriptor: name for descriptor, name in names.items() if name is not None}


def _config_files(arguments: tuple[str, ...], cwd: str) -> dict[str, str]:
    found = {}
    for path in config_paths(arguments):
        with contextlib.suppress(OSError):
            found[path] = Path(cwd, path).read_text(encoding="utf-8", errors="surrogateescape")
    return found


def _folders(arguments: tuple[str, ...], cwd: str) -> frozenset[str]:
    paths = (Path(cwd, path) for path in memory_paths(arguments))
    return frozenset(os.path.normpath(path) for path in paths if path.is_dir())
