"""Sets the guest's clock through its agent (qemu-guest-agent), where it has one. Asks it nothing else.

The agent's protocol: docs/interop/qemu-ga.rst and qga/qapi-schema.json of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from livemig.qemu.inventory import Inventory
from livemig.qemu.monitor import Monitor

AGENT_PORT = "org.qemu.guest_agent.0"
ANSWER_BOUND_S = 10.0
_DELIMITER = b"\xff"
_REPLY_BYTES_MOST = 1 << 20


class AgentError(Exception):
    """The agent can't be reached, or refused; the message says which."""


def agent_chardev(inventory: Inventory) -> str | None:
    """Returns the id of the character device that leads to the guest's agent, or None when it has none."""
    for device in inventory.devices or ():
        if device.type == "virtserialport" and device.properties.get("name", "").strip('"') == AGENT_PORT:
            return device.properties.get("chardev", "").strip('"') or None
    return None


async def socket_path(monitor: Monitor, chardev: str) -> str | None:
    """Returns where the agent's socket is, or None when it is no UNIX socket that QEMU listens at.

    Raises:
        LivemigError: When QEMU does not say.
    """
    for found in await monitor.execute("query-chardev"):
        shown = str(found.get("filename", "")).removeprefix("disconnected:")  # nobody talks to the agent just now
        name, _, options = shown.removeprefix("unix:").partition(",")
        if found.get("label") == chardev and shown.startswith("unix:") and "server" in options:
            return name
    return None


async def set_guest_time(connect: Callable[[], Awaitable[socket.socket]]) -> None:
    """Sets the guest's clock to this machine's, within a bound.

    Args:
        connect: Opens a connection to the agent's socket.

    Raises:
        AgentError: When that can't be done.
    """
    try:
        async with asyncio.timeout(ANSWER_BOUND_S):
            reader, writer = await asyncio.open_unix_connection(sock=await connect(), limit=_REPLY_BYTES_MOST)
            try:
                await _synchronise(reader, writer)
                await _execute(reader, writer, "guest-set-time", {"time": time.time_ns()})
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise AgentError(f"the guest agent does not answer within {ANSWER_BOUND_S:.0f} s") from error
    except (OSError, EOFError, ValueError) as error:
        raise AgentError(f"the guest agent can't be talked to: {error}") from error
    except (LookupError, TypeError, AttributeError, RecursionError, asyncio.LimitOverrunError) as error:
        raise AgentError("the guest agent's answer makes no sense") from error  # the guest says what it likes


async def _synchronise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Leaves behind what an earlier client did not read, here and in the agent's own parser."""
    number = secrets.randbelow(2**31)
    _send(writer, "guest-sync-delimited", {"id": number}, before=_DELIMITER)
    while True:
        await reader.readuntil(_DELIMITER)
        reply = json.loads(await reader.readline())
        if reply.get("return") == number:
            return


async def _execute(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str, arguments: dict[str, Any]
) -> None:
    _send(writer, command, arguments)
    reply = json.loads(await reader.readline())
    if "error" in reply:
        raise AgentError(f"the guest agent refused {command}: {reply['error'].get('desc', reply['error'])}")


def _send(writer: asyncio.StreamWriter, command: str, arguments: dict[str, Any], before: bytes = b"") -> None:
    writer.write(before + json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
