"""Everything livemig raises, with one root; nothing of a dependency leaks out.

    LivemigError
    ├── PlanError (ValueError)   a request that makes no sense; nothing was touched
    │   ├── AddressError         an address that can't be read
    │   └── CommandLineError     a QEMU command line that can't be read
    ├── ConnectError             a monitor that can't be reached, or isn't one
    ├── HostError                a host that is out of reach, or did not answer
    ├── CommandError             QEMU refused a command
    ├── MonitorTimeout           no answer within the bound: the command's fate is unknown
    ├── MonitorLost              the monitor's connection ended: the command's fate is unknown
    ├── ReplyError               QEMU answered something that makes no sense
    ├── PolicyError              a status that can't follow in this phase: a bug, or a newer QEMU
    ├── RefusedError             preflight says no; the source was not touched and runs on
    ├── JournalError             the journal can't be read or written, or knows no such run
    ├── ControlError             the engine of a run can't be asked, or refuses
    ├── LaunchError              a QEMU that could not be started, or ended at once
    ├── TraceError               a trace that can't be read
    ├── GuestError               the built-in guest can't be started or does not answer
    └── LabError                 the lab of two hosts can't be made, found or removed

A migration that fails, is cancelled or does not converge raises nothing: its `Report` says so.
"""

from __future__ import annotations


class LivemigError(Exception):
    """Root of all errors; `running_on` says which side has the guest afterwards, where that is known."""

    running_on: str = "source"


class PlanError(LivemigError, ValueError):
    """A request that makes no sense: a limit of 0, a bare number, options that contradict. Nothing was touched."""


class AddressError(PlanError):
    """An address that can't be read.

    Attributes:
        address: The text as it was given.
    """

    def __init__(self, message: str, *, address: str) -> None:
        super().__init__(message)
        self.address = address


class CommandLineError(PlanError):
    """A QEMU command line that can't be read, with the argument at fault. Nothing was touched.

    Attributes:
        argument: The argument as it stands in the command line.
    """

    def __init__(self, message: str, *, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class ConnectError(LivemigError):
    """A monitor that can't be reached, is held by another client, or is no QMP monitor. Nothing was touched.

    Attributes:
        address: The monitor's address.
        nobody_listens: Whether there is no QEMU at all at that address.
    """

    def __init__(self, message: str, *, address: str, nobody_listens: bool = False) -> None:
        super().__init__(message)
        self.address = address
        self.nobody_listens = nobody_listens


class HostError(LivemigError):
    """A host that is out of reach, or did not do what was asked within its bound. Whether it was done is unknown.

    Attributes:
        host: Its name.
    """

    def __init__(self, message: str, *, host: str) -> None:
        super().__init__(message)
        self.host = host


class CommandError(LivemigError):
    """QEMU refused a command and changed nothing.

    Attributes:
        command: The QMP command.
        error_class: QEMU's error class, such as ``GenericError`` or ``CommandNotFound``.
        description: QEMU's own words.
    """

    def __init__(self, *, command: str, error_class: str, description: str, side: str = "") -> None:
        whose = f"the {side}'s QEMU" if side else "QEMU"
        super().__init__(f"{whose} refused {command}: {description}")
        self.command = command
        self.error_class = error_class
        self.description = description

    @property
    def not_found(self) -> bool:
        """Whether this QEMU has no such command."""
        return self.error_class == "CommandNotFound"


class MonitorTimeout(LivemigError):
    """No answer within the bound. Whether QEMU carried the command out is unknown.

    Attributes:
        command: The QMP command.
        timeout_s: The bound in seconds.
    """

    def __init__(self, message: str, *, command: str, timeout_s: float) -> None:
        super().__init__(message)
        self.command = command
        self.timeout_s = timeout_s


class MonitorLost(LivemigError):
    """The monitor's connection ended. Whether QEMU carried the last command out is unknown.

    Attributes:
        command: The QMP command under way, or None.
        orderly: Whether QEMU closed the connection at a message's end (it quit), not within one.
    """

    def __init__(self, message: str, *, command: str | None = None, orderly: bool = True) -> None:
        super().__init__(message)
        self.command = command
        self.orderly = orderly


class ReplyError(LivemigError):
    """QEMU answered something that makes no sense.

    Attributes:
        command: The QMP command.
    """

    def __init__(self, message: str, *, command: str) -> None:
        super().__init__(message)
        self.command = command


class PolicyError(LivemigError):
    """A migration status that can't follow in this phase: a bug of ours, or a newer QEMU.

    Attributes:
        phase: The phase the migration was in.
        status: QEMU's status.
    """

    def __init__(self, message: str, *, phase: str, status: str) -> None:
        super().__init__(message)
        self.phase = phase
        self.status = status


class RefusedError(LivemigError):
    """Preflight says no. The source was not touched and runs on as before.

    Attributes:
        reasons: One line for each reason, each naming the thing and the remedy.
    """

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class JournalError(LivemigError):
    """The journal can't be read or written, or knows no such run. Nothing was touched.

    Attributes:
        path: The journal's file.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class ControlError(LivemigError):
    """The engine of a run can't be asked, or refuses. Nothing was changed.

    Attributes:
        run_id: The run's id.
        gone: Whether no engine drives that run any more.
    """

    def __init__(self, message: str, *, run_id: str, gone: bool = False) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.gone = gone


class LaunchError(LivemigError):
    """A QEMU that could not be started, or ended at once. Nothing of it is left; the source runs on, untouched.

    Attributes:
        command: Its command line, secrets taken out.
        exit_code: What it ended with, negative for a signal; None when it did not run or had to be killed.
        stderr: What it wrote, secrets taken out.
    """

    def __init__(self, message: str, *, command: str, exit_code: int | None, stderr: str) -> None:
        super().__init__(message)
        self.command = command
        self.exit_code = exit_code
        self.stderr = stderr


class TraceError(LivemigError):
    """A trace that can't be read: another version, cut short, or no trace at all.

    Attributes:
        line_number: The line at fault, counted from 1.
    """

    def __init__(self, message: str, *, line_number: int) -> None:
        super().__init__(message)
        self.line_number = line_number


class GuestError(LivemigError):
    """The built-in guest, or the QEMU that runs it, can't be started or does not answer."""

    running_on = "none"


class LabError(LivemigError):
    """The lab of two hosts can't be made, found or removed. Of one that could not be made nothing is left."""

    running_on = "none"
