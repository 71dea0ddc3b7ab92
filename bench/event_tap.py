"""A second monitor connection that is read only when all is over, so that listening costs the measured process nothing.

QEMU's own timestamps of its events are finer (microseconds) than the figures it reports (milliseconds).
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from livemig.core.errors import GuestError

_ANSWER_BOUND_S = 5.0
_RETRY_S = 0.002
_READ_BYTES = 2**16


class _Timestamp(msgspec.Struct, frozen=True):
    seconds: int
    microseconds: int


class TappedEvent(msgspec.Struct, frozen=True):
    """An event as QEMU sent it.

    Attributes:
        event: Its name; empty for a line that is no event.
        timestamp: When it happened by QEMU's wall clock.
        data: What it carries.
    """

    event: str = ""
    timestamp: _Timestamp = _Timestamp(0, 0)
    data: dict[str, Any] = {}

    @property
    def time_s(self) -> float:
        """When it happened, in seconds of the wall clock."""
        return self.timestamp.seconds + self.timestamp.microseconds * 1e-6


class EventTap:
    """Collects one QEMU's events from the moment it is made; use it as a context manager.

    Events wait in the socket until they are asked for: a migration's worth of them fits.
    """

    def __init__(self, path: Path) -> None:
        """Connects to a QMP socket that nobody else uses.

        Raises:
            GuestError: When no monitor answers there.
        """
        self._unread = b""
        self._events: list[TappedEvent] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_BOUND_S)
        try:
            self._connect(path)
            self._skip_line()
            self._socket.sendall(b'{"execute":"qmp_capabilities"}\n')
            self._skip_line()
        except OSError as error:
            self._socket.close()
            raise GuestError(f"no monitor at {path}: {error}") from error
        self._socket.settimeout(0)  # from now on a read takes what is there

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def time_s(self, name: str, status: str | None = None) -> float:
        """Returns when the last event of a name (and migration status) happened, by the wall clock.

        Raises:
            GuestError: When none came.
        """
        self._read()
        times_s = [
            event.time_s
            for event in self._events
            if event.event == name and (status is None or event.data.get("status") == status)
        ]
        if not times_s:
            raise GuestError(f"QEMU sent no event {name} {status or ''}".rstrip())
        return times_s[-1]

    def _connect(self, path: Path) -> None:
        """Connects, again while refused: QEMU makes the socket's file before it listens."""
        end_s = time.monotonic() + _ANSWER_BOUND_S
        while True:
            try:
                return self._socket.connect(str(path))
            except ConnectionRefusedError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(_RETRY_S)

    def _skip_line(self) -> None:
        while b"\n" not in self._unread:
            chunk = self._socket.recv(_READ_BYTES)
            if not chunk:
                raise ConnectionResetError("the connection ended")
            self._unread += chunk
        self._unread = self._unread.partition(b"\n")[2]

    def _read(self) -> None:
        """Takes what has come so far."""
        try:
            while chunk := self._socket.recv(_READ_BYTES):
                self._unread += chunk
        except (BlockingIOError, ConnectionResetError):
            pass  # nothing more for now, or for ever
        *lines, self._unread = self._unread.split(b"\n")
        self._events += [msgspec.json.decode(line, type=TappedEvent) for line in lines]
