"""Runs the user's own command at the switchover: bounded, its output kept off ours, its failure told, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping

HOOK_BOUND_S = 10.0
"""After that it is ended, with all it started."""
_QUOTED_BYTES = 200
_OUTPUT_BYTES_MOST = 64 * 1024


async def run_hook(command: tuple[str, ...], facts: Mapping[str, str]) -> str | None:
    """Runs a command to its end with the facts in its environment; returns what went wrong with it, or None."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **facts},
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]} can't be started: {error.strerror or error}"
    words = bytearray()
    try:
        async with asyncio.timeout(HOOK_BOUND_S):
            await _read(process, words)
            await process.wait()
    except TimeoutError:
        return f"{command[0]} did not end within {HOOK_BOUND_S:.0f} s, and was ended{_quoted(words)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it left running, too
        await process.wait()
    if process.returncode == 0:
        return None
    return f"{command[0]} ended with {_ending(process.returncode or 0)}{_quoted(words)}"


async def _read(process: asyncio.subprocess.Process, words: bytearray) -> None:
    """Reads what it writes, to the end: a full pipe would stop it."""
    if process.stdout is None:
        return
    while chunk := await process.stdout.read(4096):
        words += chunk
        del words[:-_OUTPUT_BYTES_MOST]


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _quoted(words: bytearray) -> str:
    lines = words.decode(errors="replace").strip().splitlines()
    return f": {lines[-1][-_QUOTED_BYTES:]}" if lines else ""
