"""qemu.qmp's client with what livemig needs at the wire: arrival times, events, unanswered commands.

Overrides only the hooks that qemu.qmp documents for it, and these of its habits:

- it formats each message for its log, wanted or not: 50 ms for a schema, and secrets in the log;
- its own listener keeps each event for ever;
- when writing fails, what asyncio has read and not yet handed out is lost, and with it the last events;
- it takes an event that comes while capabilities are negotiated for a refusal (seen while a guest was moving);
- it says "Unknown ID" at WARNING for a reply that comes after the caller gave up.
"""

import logging
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from qemu.qmp import QMPClient
from qemu.qmp.error import ProtocolError
from qemu.qmp.message import Message
from qemu.qmp.protocol import Runstate

from livemig.qemu.clock import ClockOffset
from livemig.qemu.event_stream import MonitorEvent

_silent = logging.getLogger("livemig.qemu.protocol")
_silent.disabled = True
"""qemu.qmp logs an ERROR for each failed connection attempt; livemig reports those itself."""

_READ_BYTES = 1 << 26
"""More than asyncio ever holds back, so that a read takes all that has come."""
_DRAIN_READS = 100


class _Timestamp(msgspec.Struct, frozen=True):
    seconds: int
    microseconds: int


class _EventMessage(msgspec.Struct, frozen=True):
    event: Annotated[str, msgspec.Meta(min_length=1)]
    timestamp: _Timestamp | None = None
    data: dict[str, Any] = {}


class Connection(QMPClient):
    """One connection to a QMP monitor.

    Attributes:
        clock: What is known of QEMU's clock.
        in_band: IDs of the in-band commands that QEMU has not answered, also of those nobody waits for any
            more.
    """

    def __init__(self, name: str, *, on_event: Callable[[MonitorEvent], None], on_answer: Callable[[], None]) -> None:
        super().__init__(name)
        self.logger = _silent
        self.clock = ClockOffset()
        self.in_band: set[str] = set()
        self._on_event = on_event
        self._on_answer = on_answer
        self._sent_s: dict[str, float] = {}
        self._arrival_s = 0.0
        self._unread = bytearray()

    @property
    def offers_out_of_band(self) -> bool:
        """Whether the greeting offered out-of-band commands, which are then always negotiated."""
        return self.greeting is not None and "oob" in self.greeting.QMP.capabilities

    @property
    def version(self) -> Mapping[str, object]:
        """The greeting's version, for reports only: what QEMU can do is asked for."""
        return {} if self.greeting is None else self.greeting.QMP.version

    @property
    def unread(self) -> bytes:
        """What came and is no whole line."""
        return bytes(self._unread)

    def read_rest(self, rest: socket.socket) -> bool:
        """After a failure of the stream: gives the events that were still on their way.

        Args:
            rest: A duplicate of the connection's socket.

        Returns:
            Whether that was everything up to QEMU's end of the connection.
        """
        complete = self._drain(rest)
        *lines, remainder = bytes(self._unread).split(b"\n")
        try:
            for message in [Message(line) for line in lines]:
                self._cb_inbound(message)
                if "event" in message:
                    self._on_event(self._event(message))
        except (ProtocolError, ValueError, RecursionError):
            return False
        return complete and not remainder

    def _drain(self, rest: socket.socket) -> bool:
        for _ in range(_DRAIN_READS):
            try:
                chunk = rest.recv(_READ_BYTES)
            except ConnectionResetError:
                # A UNIX socket says so once, after its last byte, when QEMU ended with a command of ours unread.
                # TCP may have thrown away what was on its way.
                if rest.family != socket.AF_UNIX:
                    return False
                continue
            except OSError:
                return False
            if not chunk:
                return rest.family == socket.AF_UNIX
            self._unread += chunk
        return False

    async def _readline(self) -> bytes:
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > self.readbuflen:
                raise ProtocolError("a message has no end")
            assert self._reader is not None  # noqa: S101  # set as long as qemu.qmp reads
            chunk = await self._reader.read(_READ_BYTES)
            if not chunk and not self._unread:
                raise EOFError
            if not chunk:
                end = searched
                break
            self._unread += chunk
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    async def _recv(self) -> Message:
        """Returns the next message; an event that overtakes the answer to the negotiation is handed on by itself."""
        message = await super()._recv()
        while self.runstate is not Runstate.RUNNING and "event" in message:
            self._on_event(self._event(message))
            message = await super()._recv()
        return message

    def _cb_outbound(self, msg: Message) -> Message:
        identity = msg.get("id")
        if isinstance(identity, str):
            self._sent_s[identity] = time.monotonic()
        return msg

    async def _issue(self, msg: Message) -> str | None:
        identity = await super()._issue(msg)
        if identity is not None and "execute" in msg:
            self.in_band.add(identity)
        return identity

    def _cb_inbound(self, msg: Message) -> Message:
        self._arrival_s = time.monotonic()
        return msg

    async def _on_message(self, msg: Message) -> None:
        """Routes a message in one step, so that nothing read is ever left behind.

        Raises:
            ProtocolError: When an event is not what QMP says; the connection then ends as broken.
        """
        if "event" in msg:
            self._on_event(self._event(msg))
            return
        identity = msg.get("id")
        if isinstance(identity, str):
            sent_s = self._sent_s.pop(identity, None)
            if sent_s is None:
                return  # a second reply, or one to nothing that was asked
            self.clock.add_round_trip(self._arrival_s - sent_s)
            self.in_band.discard(identity)
            self._on_answer()
            if identity not in self._pending:
                return  # its caller gave up
        await super()._on_message(msg)

    def _event(self, msg: Message) -> MonitorEvent:
        try:
            event = msgspec.convert(dict(msg), _EventMessage)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"an event makes no sense: {error}") from error
        timestamp_s = math.nan
        if event.timestamp is not None and event.timestamp.seconds >= 0:
            timestamp_s = event.timestamp.seconds + event.timestamp.microseconds * 1e-6
            self.clock.add_event(arrival_s=self._arrival_s, timestamp_s=timestamp_s)
        return MonitorEvent(name=event.event, data=event.data, timestamp_s=timestamp_s, arrival_s=self._arrival_s)
