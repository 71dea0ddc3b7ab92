"""`Monitor`: one QEMU over QMP, typed and bounded. Knows commands and events, not what a migration is."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

from qemu.qmp import ExecInterruptedError, ExecuteError, QMPError, StateError
from qemu.qmp.protocol import Runstate
from qemu.qmp.qmp_client import BadReplyError

from livemig.core.errors import CommandError, ConnectError, MonitorTimeout, ReplyError
from livemig.core.observation import Observation
from livemig.core.status import RunState
from livemig.qemu.address import Address
from livemig.qemu.clock import ClockOffset
from livemig.qemu.connection import Connection
from livemig.qemu.dial import Way, dial
from livemig.qemu.event_stream import ConnectionEnd, EndKind, EventStream, MonitorEvent
from livemig.qemu.migration_reply import to_observation

COMMAND_TIMEOUT_S = 5.0
"""Default bound on a command: measured, ordinary ones take under 1 ms and the slowest 0.1 s."""
CLOSE_TIMEOUT_S = 1.0
"""Bound on an orderly close; then the socket is shut."""
IN_BAND_LIMIT = 4
"""Unanswered in-band commands allowed at a time. QEMU stops reading a monitor, out-of-band commands included,
when 8 wait in its queue: polls that time out on a hanging QEMU must not lock the way for ``yank``."""

_LOGGED_WITH_ARGUMENTS = frozenset(
    {
        "calc-dirty-rate",
        "migrate",
        "migrate-incoming",
        "migrate-set-capabilities",
        "migrate-set-parameters",
        "yank",
    }
)
"""Their arguments hold no secret."""

logger = logging.getLogger(__name__)


class Monitor:
    """A connection to one QEMU's QMP monitor; make it with `connect`, end it with `close` or ``async with``.

    Example:
        async with await Monitor.connect("/run/guest.qmp") as monitor:
            with monitor.subscribe("STOP", "RESUME") as events:
                await monitor.execute("stop")
                stopped = await events.wait_for("STOP", timeout_s=1.0)

    No exception of qemu.qmp or of the operating system leaves it: a command that QEMU refuses raises
    `CommandError`, and after `MonitorTimeout` or `MonitorLost` it is unknown whether the command was carried
    out.
    """

    def __init__(self, name: str, address: Address) -> None:
        """For `connect` only."""
        self.name = name
        self.address = address
        self._streams: list[EventStream] = []
        self._answered = asyncio.Event()
        self._close_requested = asyncio.Event()
        self._end: ConnectionEnd | None = None
        self._connection = Connection(name, on_event=self._dispatch, on_answer=self._answered.set)
        self._socket: socket.socket
        self._way: Way | None = None
        self._watcher: asyncio.Task[ConnectionEnd]

    @classmethod
    async def connect(
        cls,
        address: Address | str,
        *,
        name: str = "qemu",
        timeout_s: float = 5.0,
        silence_s: float = 1.0,
        starting: bool = False,
        way: Way | None = None,
    ) -> "Monitor":
        """Connects, with out-of-band commands where that QEMU offers them.

        A refused connection is tried again within the bound, since the socket's file is there before QEMU
        listens. A missing file, denied permission and anything that isn't QMP fail at once. A QEMU that greets and
        does not answer is asked once more by another connection: it drops what a client says while it still closes
        the one before.

        Args:
            address: Where the monitor is.
            name: What logs and errors call it: ``source`` or ``destination``.
            timeout_s: Bound on connecting, in seconds.
            silence_s: How long it may take to greet, in seconds. QEMU serves one client per QMP socket and
                leaves the next one waiting in silence.
            starting: Whether QEMU was only just started: then the socket may not be there yet, and a QEMU
                that still preallocates memory is as silent as a busy one, so both are waited for within
                `timeout_s`.
            way: What opens the connection, where QEMU is on another machine; None where the address says all.

        Raises:
            AddressError: When the address can't be read.
            ConnectError: When it can't be reached, is held by another client, or is no QMP monitor.
        """
        parsed = Address.parse(address) if isinstance(address, str) else address
        deadline_s = time.monotonic() + timeout_s
        silent: ConnectError | None = None
        while True:
            monitor = cls(name, parsed)
            monitor._way = way
            try:
                monitor._socket = await dial(
                    parsed,
                    monitor._connection,
                    timeout_s=deadline_s - time.monotonic(),
                    silence_s=timeout_s if starting else silence_s,
                    answer_s=timeout_s / 2,
                    starting=starting,
                    way=way,
                )
                break
            except ConnectError as error:
                if silent is not None:
                    raise silent from error
                if monitor._connection.greeting is None:
                    raise
                silent = error
        monitor._watcher = asyncio.create_task(monitor._watch(), name=f"QMP monitor {name}")
        logger.debug("%s: connected to %s", name, parsed)
        return monitor

    @classmethod
    def unconnected(cls, address: Address, *, name: str) -> "Monitor":
        """Returns a monitor that is at its end already: its commands raise `MonitorLost`."""
        monitor = cls(name, address)
        monitor._end = ConnectionEnd(kind=EndKind.CLOSED, reason=f"{name}: not connected", time_s=time.monotonic())
        return monitor

    @property
    def open_socket(self) -> socket.socket:
        """The connection's socket, to be looked at only: what process is at its other end."""
        return self._socket

    @property
    def out_of_band(self) -> bool:
        """Whether `execute_out_of_band` works; without it a QEMU that hangs after STOP can't be freed."""
        return self._connection.offers_out_of_band

    @property
    def version(self) -> Mapping[str, object]:
        """QEMU's version as the greeting gives it, for reports only: what QEMU can do is asked for."""
        return self._connection.version

    @property
    def clock(self) -> ClockOffset:
        """What this connection has learned of QEMU's clock."""
        return self._connection.clock

    @property
    def clock_offset_s(self) -> float | None:
        """What to add to an event's `timestamp_s` to get monotonic time; None before the first event."""
        return self._connection.clock.offset_s

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._end is not None

    @property
    def end(self) -> ConnectionEnd | None:
        """How the connection ended, or None while it lives."""
        return self._end

    @property
    def unanswered_count(self) -> int:
        """In-band commands that QEMU has not answered, those that timed out included."""
        return len(self._connection.in_band)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = COMMAND_TIMEOUT_S,
    ) -> Any:
        """Executes a command and returns its value.

        Cancelling it leaves the connection usable and the command's fate unknown.

        Args:
            command: QMP's name of the command.
            arguments: Its arguments, if any.
            timeout_s: The bound in seconds; None only where silence is normal, from STOP until ``completed``.

        Raises:
            CommandError: QEMU refused; nothing was changed. `CommandError.not_found` for an unknown command.
            MonitorTimeout: No answer within the bound. The fate is unknown, and a late answer is discarded.
            MonitorLost: The connection ended first. The fate is unknown.
            ReplyError: The answer is neither a value nor an error.
        """
        return await self._execute(command, arguments, timeout_s, out_of_band=False)

    async def execute_out_of_band(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Any:
        """Executes a command past those that QEMU still works on: ``yank`` and ``migrate-recover``.

        Raises:
            CommandError: QEMU refused, has no such out-of-band command, or did not negotiate out-of-band at
                all.
            MonitorTimeout: As `execute`.
            MonitorLost: As `execute`.
            ReplyError: As `execute`.
        """
        if not self.out_of_band:
            description = "this monitor has no out-of-band commands (QEMU did not offer them)"
            raise self._refused(command, "GenericError", description)
        return await self._execute(command, arguments, timeout_s, out_of_band=True)

    async def query_status(self, *, timeout_s: float | None = COMMAND_TIMEOUT_S) -> RunState:
        """Asks for the run state; `RunState.UNKNOWN` for one that this livemig does not know.

        Raises:
            LivemigError: As `execute`.
        """
        reply = await self.execute("query-status", timeout_s=timeout_s)
        if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
            raise ReplyError("query-status gave no status", command="query-status")
        return RunState(reply["status"])

    async def query_migrate(self, *, timeout_s: float | None = COMMAND_TIMEOUT_S, origin_s: float = 0.0) -> Observation:
        """Asks for the migration's counters.

        Args:
            timeout_s: As `execute`.
            origin_s: Monotonic time that the observation's time counts from, in seconds.

        Raises:
            LivemigError: As `execute`; `ReplyError` when the reply is not what QEMU's schema says.
        """
        reply = await self.execute("query-migrate", timeout_s=timeout_s)
        return to_observation(reply, time.monotonic() - origin_s)

    def subscribe(self, *names: str) -> EventStream:
        """Subscribes to the events of these names, or to all; before the command whose events are wanted.

        On a connection that has ended it gives a stream that is at its end.
        """
        stream = EventStream(names, self._unsubscribe)
        if self._end is not None:
            stream.finish(self._end)
        else:
            self._streams.append(stream)
        return stream

    async def wait_closed(self) -> ConnectionEnd:
        """Waits until the connection has ended, by whomever, and says how. Ends nothing itself."""
        if self._end is not None:
            return self._end
        return await asyncio.shield(self._watcher)

    async def close(self) -> None:
        """Ends the connection and its tasks, soon after `CLOSE_TIMEOUT_S` even if QEMU hangs. Repeatable."""
        self._close_requested.set()
        await self.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None,
        timeout_s: float | None,
        *,
        out_of_band: bool,
    ) -> Any:
        started_s = time.monotonic()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(timeout_s):
                if not out_of_band:
                    await self._wait_for_slot()
                value = await self._connection.execute(command, arguments, oob=out_of_band)
                outcome = "done"
                return value
        except TimeoutError:
            outcome = "no answer"
            raise self._timeout(command, timeout_s or 0.0) from None
        except ExecuteError as error:
            outcome = error.error_class
            raise self._refused(command, error.error_class, str(error)) from error
        except BadReplyError as error:
            outcome = "bad reply"
            raise ReplyError(f"the reply to {command} makes no sense", command=command) from error
        except (ExecInterruptedError, StateError) as error:
            outcome = "connection lost"
            raise (await self.wait_closed()).as_error(command) from error
        finally:
            self._log(command, arguments, outcome, time.monotonic() - started_s)

    async def _wait_for_slot(self) -> None:
        while len(self._connection.in_band) >= IN_BAND_LIMIT and self._end is None:
            self._answered.clear()
            await self._answered.wait()

    def _refused(self, command: str, error_class: str, description: str) -> CommandError:
        side = self.name if self.name in ("source", "destination") else ""
        return CommandError(command=command, error_class=error_class, description=description, side=side)

    def _timeout(self, command: str, timeout_s: float) -> MonitorTimeout:
        message = f"{self.name}: no answer to {command} within {timeout_s:g} s"
        return MonitorTimeout(message, command=command, timeout_s=timeout_s)

    def _log(self, command: str, arguments: Mapping[str, Any] | None, outcome: str, duration_s: float) -> None:
        shown = dict(arguments or {}) if command in _LOGGED_WITH_ARGUMENTS else sorted(arguments or ())
        logger.debug("%s: %s %s: %s after %.2f ms", self.name, command, shown, outcome, duration_s * 1e3)

    def _dispatch(self, event: MonitorEvent) -> None:
        logger.debug("%s: event %s", self.name, event.name)
        for stream in tuple(self._streams):
            stream.put(event)

    def _unsubscribe(self, stream: EventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    async def _watch(self) -> ConnectionEnd:
        """Follows the connection to its end; the only place that disconnects and gets its exceptions."""
        await self._ended_or_close_requested()
        ours = self._connection.runstate is Runstate.RUNNING
        watchdog = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._shut_socket)
        try:
            await self._connection.disconnect()
            kind, reason = EndKind.CLOSED, "livemig closed the connection"
        except EOFError:
            kind, reason = EndKind.END_OF_FILE, "QEMU closed the connection"
            if self._way is not None and self._way.is_broken:
                kind, reason = EndKind.BROKEN, "the way to its host broke"
        except OSError as error:
            kind, reason = EndKind.BROKEN, f"the connection broke: {error.strerror or error}"
            broken = self._way is not None and self._way.is_broken
            if self._connection.read_rest(self._socket) and not broken:
                kind, reason = EndKind.END_OF_FILE, "QEMU closed the connection"
        except QMPError as error:
            kind, reason = EndKind.BROKEN, f"what came is not QMP: {str(error).splitlines()[0]}"
        except Exception as error:  # noqa: BLE001  # whatever a garbled stream makes json or asyncio raise
            kind, reason = EndKind.BROKEN, f"what came is not QMP: {type(error).__name__}"
        finally:
            watchdog.cancel()
        if ours:
            kind, reason = EndKind.CLOSED, "livemig closed the connection"
        return self._finish(ConnectionEnd(kind=kind, reason=f"{self.name}: {reason}", time_s=time.monotonic()))

    async def _ended_or_close_requested(self) -> None:
        ended = asyncio.create_task(self._connection_ended())
        closing = asyncio.create_task(self._close_requested.wait())
        try:
            await asyncio.wait({ended, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            closing.cancel()
            await asyncio.gather(ended, closing, return_exceptions=True)

    async def _connection_ended(self) -> None:
        while self._connection.runstate is Runstate.RUNNING:
            await self._connection.runstate_changed()

    def _shut_socket(self) -> None:
        # A QEMU that hangs reads nothing, and qemu.qmp would wait for what is still to be written.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _finish(self, end: ConnectionEnd) -> ConnectionEnd:
        logger.debug("%s", end.reason)
        self._end = end
        for stream in tuple(self._streams):
            stream.finish(end)
        self._streams.clear()
        self._socket.close()
        self._answered.set()
        return end
