"""Plans the destination's launch: the source's command line and surroundings, changed as little as can be.

Reads and checks, and touches nothing; `livemig.engine.launch` starts what was found.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from livemig.core.errors import PlanError, RefusedError
from livemig.engine.hotplug import Hotplug, hotplug_since_start
from livemig.engine.shared_folder import may_be_elsewheres
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.hosts.places import STDERR_NAME
from livemig.hosts.process import ProcessFacts, Surroundings
from livemig.hosts.start import Program
from livemig.qemu.address import Address
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
        host: Where it is to run.
        source_host: Where its source runs.
        program: What is to be started; its command line may hold secrets.
        redacted_argv: The command line without secrets, for screen, journal, trace and report.
        secrets: The secrets, to be taken out of what QEMU writes.
        folder: The new process's own folder.
        address: Where its monitor will answer.
        spare_path: Where its second one will, for recovery.
        owner: User and group that the folder is for.
        changes: What differs from the source's command line, one line each.
        warnings: What may not be as the user thinks.
        source_pid: The source's process, None when it can't be seen.
        source_folder: The folder of a source that livemig launched itself, to be removed once that has ended.
    """

    host: Host
    source_host: Host
    program: Program
    redacted_argv: tuple[str, ...]
    secrets: tuple[str, ...]
    folder: Path
    address: Address
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
    def qmp_path(self) -> Path:
        """The socket of its monitor."""
        return Path(self.address.path or "")

    @property
    def stderr_path(self) -> Path:
        """Where what it writes is kept."""
        return self.folder / STDERR_NAME


async def plan_launch(source: Side, host: Host, destination: Address, options: LaunchOptions) -> LaunchPlan:
    """Reads the source and makes the destination's command line; changes nothing.

    Args:
        source: The source, connected.
        host: Where the destination is to run.
        destination: Where its monitor is to answer, a UNIX socket on that host.
        options: What the user says.

    Raises:
        CommandLineError: When the command line can't be read.
        PlanError: When an option makes no sense with it.
        RefusedError: When it can't be launched; all reasons together.
        LivemigError: When the source does not answer.
    """
    if host.is_local:  # a link is the user's own choice: not followed
        path = os.path.abspath(destination.path or "")  # noqa: PTH100, ASYNC240
        destination = msgspec.structs.replace(destination, path=path)
    launching = _Launching(source, host, destination, options)
    facts = await _read_source(source, needed_at=destination if options.command is None else None)
    if options.command is not None:
        return await launching.as_given(facts, options.command)
    assert facts is not None  # noqa: S101  # or it was refused
    machine_type = str(await source.monitor.execute("qom-get", {"path": "/machine", "property": "type"}))
    config_files = await launching.config_files(facts)
    hotplug = await hotplug_since_start(source.monitor, facts.argv[1:], config_files)
    return await launching.derived(facts, machine_type.removesuffix("-machine"), hotplug, config_files)


async def supervisor_of(side: Side) -> str | None:
    """Returns who would start this QEMU again after its end, with the remedy; None when nobody is seen who would."""
    facts = await _read_source(side)
    return None if facts is None else await side.host.supervisor(facts)


async def folder_of(side: Side) -> Path | None:
    """The folder of a QEMU that livemig launched, to be removed once that has ended; None for any other."""
    facts = await _read_source(side)
    return None if facts is None else _own_folder(facts)


def _split(text: str, option: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise PlanError(f"{option} can't be split into arguments: {error}") from error


async def _read_source(source: Side, *, needed_at: Address | None = None) -> ProcessFacts | None:
    """Reads the source's process; None when that can't be, unless a destination is to be launched from it."""
    if source.address.path is None or source.process is None:
        if needed_at is None:
            return None
        raise _unreadable(source, needed_at, _why_unseen(source), _COMMAND_REMEDY)
    try:
        return await source.host.read_process(source.process.pid)
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


def _unreadable(source: Side, needed_at: Address, reason: str, remedy: str) -> RefusedError:
    return RefusedError(
        (
            (
                f"nobody listens at the destination {needed_at}, and none can be launched there, for the command line "
                f"of the source {source.address} can't be read ({reason}): {remedy}"
            ),
        )
    )


class _Launching:
    """One launch being planned: what is read at the source's host and looked at on the destination's."""

    def __init__(self, source: Side, host: Host, destination: Address, options: LaunchOptions) -> None:
        self._source, self._host, self._options = source, host, options
        self._destination = destination
        self._path = destination.path or ""
        here, there = source.host.identity, host.identity
        self._same_host, self._beside = here.shares_files(there), here.is_same_host(there)

    async def as_given(self, facts: ProcessFacts | None, command: tuple[str, ...]) -> LaunchPlan:
        """The launch of a command line that the user gave."""
        own = facts is None or not self._same_host
        surroundings = await self._host.own_surroundings() if own or facts is None else facts.surroundings
        executable = await self._host.program_file(command[0], surroundings.environment.get("PATH"))
        if executable is None:
            raise RefusedError((f"--dst-command: there is no program {command[0]}",))
        request = Request(
            qmp_path=self._path,
            folder=folder_beside(self._path),
            same_host=self._same_host,
            extra=self._options.arguments,
            busy_ports=await self._busy_ports(facts),
            cwd=surroundings.cwd,
        )
        line = given_line(command[1:], request)
        return await self._checked(request, line, executable, surroundings, facts)

    async def derived(
        self, facts: ProcessFacts, machine_type: str, hotplug: Hotplug, config_files: Mapping[str, str]
    ) -> LaunchPlan:
        """The launch of the source's own command line."""
        executable = await self._executable(facts)
        if facts.other_root:
            reason = "it sees another file system than livemig (a container, a chroot, a private /tmp)"
            raise RefusedError((f"the source's paths mean nothing here, since {reason}: {_COMMAND_REMEDY}",))
        arguments = facts.argv[1:]
        surroundings = msgspec.structs.replace(facts.surroundings, cwd=await self._start_folder(facts))
        keep_user = drops_privileges(arguments) and self._host.user_id == 0
        if keep_user:
            own = await self._host.own_surroundings()
            surroundings = msgspec.structs.replace(surroundings, user=own.user, group=own.group, groups=own.groups)
        request = Request(
            qmp_path=self._path,
            folder=folder_beside(self._path),
            same_host=self._same_host,
            machine_type=machine_type,
            keep_user=keep_user,
            maps=self._options.maps,
            settings=self._options.settings,
            extra=self._options.arguments,
            cwd=surroundings.cwd,
            busy_ports=await self._busy_ports(facts),
            tap_names=await self._source.host.tap_names(facts.pid, tap_descriptors(arguments)),
            config_files=config_files,
            folders=await self._folders(arguments, surroundings.cwd),
            plugged=hotplug.plugged,
            unplugged=hotplug.unplugged,
            addresses=hotplug.addresses,
            generation_id=hotplug.generation_id,
            images=hotplug.images,
        )
        line = destination_line(arguments, request)
        return await self._checked(request, line, executable, surroundings, facts)

    async def config_files(self, facts: ProcessFacts) -> dict[str, str]:
        """The texts of the files that the source's command line names with ``-readconfig``."""
        cwd = await self._start_folder(facts)
        named = {str(Path(cwd, path)): path for path in config_paths(facts.argv[1:])}
        texts = await self._source.host.texts_of(named)
        return {named[path]: text for path, text in texts.items()}

    async def _why_not_ours(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns which sockets may be the source's: QEMU would take their paths from whoever listens there."""
        suspects = [
            path
            for path in sorted(await self._host.existing_among(paths))
            if await may_be_elsewheres(path, self._host, self._source.host)
        ]
        return tuple(
            f"{path} is a socket there already, and somebody at the source's host may listen at it, for both hosts may "
            "share its folder: choose another path (--dst-qmp, --map), or remove it there"
            for path in suspects
        )

    async def _checked(
        self,
        request: Request,
        line: DestinationLine,
        executable: str,
        surroundings: Surroundings,
        facts: ProcessFacts | None,
    ) -> LaunchPlan:
        """Refuses what is known to fail, all of it together."""
        owner = surroundings if facts is None else facts.surroundings
        argv = (executable, *line.arguments)
        program = Program(executable=executable, argv=argv, surroundings=surroundings)
        secrets = secrets_in(argv)
        missing = await self._host.missing_among(line.inputs)
        reasons = [f"{each} is not there: give its place with --map" for each in missing]
        reasons += await self._host.why_no_sockets(line.sockets) or await self._why_not_ours(line.sockets)
        reasons += await self._host.why_no_folder(Path(request.folder), owner)
        reasons += await self._host.why_no_start(program)
        if facts is not None and facts.surroundings.network_namespace is not None and not self._beside:
            reasons.append(
                "the source runs in a network namespace of its own, of which the other host knows nothing: start the "
                "destination there yourself"
            )
        if secrets and not self._host.is_local:
            reasons.append("its command line holds a secret, which would cross hosts: use -object secret,file=")
        if reasons:
            raise RefusedError(tuple(f"the destination can't be launched: {reason}" for reason in reasons))
        return LaunchPlan(
            host=self._host,
            source_host=self._source.host,
            program=program,
            redacted_argv=tuple(redacted(argv)),
            secrets=secrets,
            folder=Path(request.folder),
            address=self._destination,
            spare_path=Path(request.spare_path),
            owner=(owner.user, owner.group),
            changes=tuple(redacted_text(change, secrets) for change in line.changes),
            warnings=(*line.warnings, *_program_warnings(facts)),
            source_pid=None if facts is None else facts.pid,
            source_folder=None if facts is None else _own_folder(facts),
        )

    async def _executable(self, facts: ProcessFacts) -> str:
        if facts.executable is None:
            reason = f"its program {facts.argv[0]} was deleted and none took its place"
            raise RefusedError((f"the source can't be launched a second time: {reason}; {_COMMAND_REMEDY}",))
        if self._same_host:
            return facts.executable
        found = await self._host.program_file(facts.executable, None)
        if found is None:
            name = Path(facts.executable).name
            found = await self._host.program_file(name, None)
        if found is None:
            raise RefusedError(
                (f"{self._host.name} has no {facts.executable}: install that QEMU there, or --dst-command",)
            )
        return found

    async def _busy_ports(self, facts: ProcessFacts | None) -> frozenset[int]:
        return await self._host.busy_ports(facts.pid if facts is not None and self._beside else None)

    async def _start_folder(self, facts: ProcessFacts) -> str:
        """Where relative paths were meant from: a daemonized QEMU has left that folder for the root."""
        cwd = facts.surroundings.cwd
        shell_folder = facts.surroundings.environment.get("PWD", "")
        daemonized = "-daemonize" in facts.argv or "--daemonize" in facts.argv
        if not (daemonized and cwd == "/" and shell_folder):
            return cwd
        return shell_folder if await self._source.host.folders_among([shell_folder]) else cwd

    async def _folders(self, arguments: tuple[str, ...], cwd: str) -> frozenset[str]:
        return await self._host.folders_among(posixpath.normpath(Path(cwd, path)) for path in memory_paths(arguments))


def _program_warnings(facts: ProcessFacts | None) -> tuple[str, ...]:
    if facts is None or not facts.executable_replaced:
        return ()
    return (f"the source's program was replaced since it started: the destination runs the new {facts.executable}",)


def _own_folder(facts: ProcessFacts) -> Path | None:
    folder = launch_folder(facts.argv)
    return None if folder is None else Path(folder)


def folder_beside(qmp_path: str) -> str:
    """Returns the own folder of a QEMU whose monitor livemig puts at this path."""
    return f"{qmp_path}.livemig"
