"""Events wait in the socket until they are asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.event_tap import EventTap
from livemig.core.errors import GuestError


class Peer:
    """The other end of one monitor connection."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._greet, daemon=True)
        self._thread.start()
        self.connection: socket.socket | None = None

    def send(self, text: str) -> None:
        """Sends bytes once the greeting is over."""
        self._thread.join(5)
        assert self.connection is not None
        self.connection.sendall(text.encode())

    def close(self) -> None:
        """Hangs up."""
        self._thread.join(5)
        if self.connection is not None:
            self.connection.close()
        self._listener.close()

    def _greet(self) -> None:
        self.connection, _ = self._listener.accept()
        self.connection.sendall(b'{"QMP": {}}\n')
        self.connection.recv(1000)
        self.connection.sendall(b'{"return": {}}\n')


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """A monitor at ``tmp_path / "qmp"``."""
    peer = Peer(tmp_path / "qmp")
    yield peer
    peer.close()


def test_last_event_of_a_name_and_status_counts(peer: Peer, tmp_path: Path) -> None:
    """Also when lines come in pieces, and when the peer has hung up since."""
    with EventTap(tmp_path / "qmp") as tap:
        peer.send('{"event":"STOP","timestamp":{"seconds":5,"microseconds":250000}}\n{"event":"MIGRATION","data":')
        assert tap.time_s("STOP") == 5.25
        peer.send('{"status":"setup"},"timestamp":{"seconds":6,"microseconds":0}}\n')
        peer.send('{"event":"STOP","timestamp":{"seconds":7,"microseconds":0}}\n')
        peer.close()
        assert tap.time_s("STOP") == 7.0
        assert tap.time_s("MIGRATION", "setup") == 6.0
        with pytest.raises(GuestError, match="no event MIGRATION completed"):
            tap.time_s("MIGRATION", "completed")


def test_nobody_there(tmp_path: Path) -> None:
    """A missing socket is named."""
    with pytest.raises(GuestError, match=r"no monitor at .*/qmp"):
        EventTap(tmp_path / "qmp")
