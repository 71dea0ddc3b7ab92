"""The lab's client by itself, against a peer that stands still as a guest does in its switchover."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from livemig.lab.linux import traffic

STANDS_STILL_S = 0.5


@contextmanager
def stands_still_then_echoes(peer: socket.socket) -> Iterator[None]:
    """Reads nothing at first; from then on gives back all that comes."""

    def echo() -> None:
        threading.Event().wait(STANDS_STILL_S)
        while data := peer.recv(1 << 16):
            peer.sendall(data)

    echoing = threading.Thread(target=echo)
    echoing.start()
    try:
        yield
    finally:
        echoing.join(10)


def test_what_the_socket_did_not_take_is_sent_at_the_end_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its standard input ends while the guest stands still and the socket is full: no echo is owed for ever."""
    client, peer = socket.socketpair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2304)
    client.settimeout(0)
    ended, ending = os.pipe()
    with os.fdopen(ended) as stdin, client:
        monkeypatch.setattr(traffic, "_connected", lambda *_: client)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "argv", ["traffic", "guest", "--echo=1"])
        threading.Timer(STANDS_STILL_S / 2, os.close, (ending,)).start()
        with peer, stands_still_then_echoes(peer):
            traffic.main()
            client.shutdown(socket.SHUT_RDWR)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["problems"] == []
    assert summary["sent"] == summary["received"] > 50
