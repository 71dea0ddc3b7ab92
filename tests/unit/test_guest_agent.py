"""What answers as the guest's agent is the guest's own word: whatever it says, it is told, never raised as a fault."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from livemig.engine.guest_agent import AgentError, set_guest_time


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff[]\n",
        b"\xff5\n",
        b"\xffno JSON\n",
        b"\xff" + b"[" * 100_000 + b"\n",
        b"x" * (3 << 20),
        b"\xff" + b"x" * (3 << 20),
        b"",
    ],
    ids=["list", "number", "text", "deep", "long before", "long after", "end"],
)
async def test_an_answer_that_makes_no_sense_is_told(answer: bytes) -> None:
    """One error with words, whatever came."""
    ours, guests = socket.socketpair()
    for each in (ours, guests):
        each.settimeout(0)

    async def connect() -> socket.socket:
        return ours

    async def speak() -> None:
        with contextlib.suppress(OSError):  # nobody listens to the end
            await asyncio.get_running_loop().sock_sendall(guests, answer)
            guests.shutdown(socket.SHUT_WR)

    speaking = asyncio.create_task(speak())
    try:
        with pytest.raises(AgentError, match="guest agent"):
            await set_guest_time(connect)
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        guests.close()
