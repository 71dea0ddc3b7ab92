"""Runs ``python -m livemig`` as a user does, and reads what it says."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.engine.pair import Pair, mind_signals

REPOSITORY = Path(__file__).resolve().parents[2]
ENDED_FIELDS = {
    "event": str,
    "id": str,
    "outcome": str,
    "running_on": str,
    "guest_state": str,
    "total_s": float | None,
    "downtime_s": float | None,
    "qemu_downtime_s": float | None,
    "sent_bytes": int,
    "round_count": int,
    "blackout_s": float | None,
    "forecasts": list,
    "warnings": list,
    "reason": str,
}
"""The contract's closing object."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A command that has ended.

    Attributes:
        code: Its exit code; negative for a signal.
        stdout: What it printed.
        stderr: What it complained of.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Every line of stdout, which must be JSON objects and nothing else."""
        objects = [json.loads(line) for line in self.stdout.splitlines()]
        assert all(isinstance(one, dict) and isinstance(one.get("event"), str) for one in objects)
        return objects

    @property
    def ended(self) -> dict[str, Any]:
        """The closing object, checked against the contract."""
        ended = self.objects[-1]
        assert ended["event"] == "ended"
        for name, kind in ENDED_FIELDS.items():
            assert isinstance(ended[name], kind), (name, ended)
        assert set(ended) - set(ENDED_FIELDS) <= {"time_s"}
        return ended

    @property
    def complaint(self) -> str:
        """What stands on stderr: exactly one line, livemig's own."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("livemig: "), self.stderr
        return lines[0].removeprefix("livemig: ")


async def start(*arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> asyncio.subprocess.Process:
    """Starts ``python -m livemig``, its output piped unless `options` say otherwise."""
    pipe = asyncio.subprocess.PIPE
    settings = {"stdin": asyncio.subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "cwd": REPOSITORY, **options}
    settings.setdefault("preexec_fn", mind_signals)
    return await asyncio.create_subprocess_exec(*prefix, sys.executable, "-m", "livemig", *arguments, **settings)


async def finish(process: asyncio.subprocess.Process, timeout_s: float = 60) -> Ran:
    """Waits for its end, and kills it when that does not come."""
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(code=process.returncode, stdout=(stdout or b"").decode(), stderr=(stderr or b"").decode())


async def livemig(*arguments: str, prefix: tuple[str, ...] = (), timeout_s: float = 60, **options: Any) -> Ran:
    """Runs it to its end."""
    return await finish(await start(*arguments, prefix=prefix, **options), timeout_s)


def run_arguments(pair: Pair, *options: str) -> tuple[str, ...]:
    """``run`` from the pair's source to its destination."""
    addresses = ("--src-qmp", pair.source_address, "--dst-qmp", pair.destination_address)
    return ("run", *addresses, "--probation", "100ms", *options)


async def read_until(process: asyncio.subprocess.Process, event: str) -> list[dict[str, Any]]:
    """Reads JSON lines up to the first of an event."""
    assert process.stdout is not None
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["event"] != event:
        line = await process.stdout.readline()
        assert line, f"ended without {event}: {seen}"
        seen.append(json.loads(line))
    return seen


class Screen:
    """A terminal of a given size: runs a command on it and keeps each picture that it shows.

    Understands what rich writes: text, CR, LF, colours, cursor up, erase line, hide and show cursor. Anything else
    fails the test, so that nothing is misread.

    Attributes:
        pictures: Each picture after a burst of output.
        cursor_shown: Whether the cursor is visible.
    """

    _SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")

    def __init__(self, columns: int, rows: int = 50) -> None:
        self.columns, self.rows = columns, rows
        self.pictures: list[str] = []
        self.cursor_shown = True
        self.raw = ""
        self._lines = [""]
        self._row = self._column = 0

    @property
    def picture(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._lines)

    async def run(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        on_start: Callable[[int], Awaitable[None]] | None = None,
    ) -> int:
        """Runs livemig on it; returns the exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        environment |= {"TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})}
        process = await start(
            *arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        reading = asyncio.create_task(asyncio.to_thread(self._read, ours))
        try:
            if on_start is not None:
                await on_start(process.pid)
            async with asyncio.timeout(60):
                code = await process.wait()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        finally:
            await reading
            os.close(ours)
        return code

    def _read(self, descriptor: int) -> None:
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # EIO: the other end was closed by its last holder
                return
            if not data:
                return
            self.raw += data.decode()
            self._show(data.decode())
            self.pictures.append(self.picture)

    def _show(self, text: str) -> None:
        position = 0
        while position < len(text):
            sequence = self._SEQUENCE.match(text, position)
            if sequence is not None:
                self._control(sequence[1], sequence[2])
                position = sequence.end()
                continue
            character = text[position]
            position += 1
            if character == "\r":
                self._column = 0
            elif character == "\n":
                self._row += 1
                while len(self._lines) <= self._row:
                    self._lines.append("")
            else:
                assert character.isprintable(), repr(character)
                self._put(character)

    def _put(self, character: str) -> None:
        if self._column == self.columns:  # a line too long wraps
            self._row, self._column = self._row + 1, 0
            while len(self._lines) <= self._row:
                self._lines.append("")
        line = self._lines[self._row].ljust(self._column)
        self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1

    def _control(self, parameters: str, final: str) -> None:
        match final:
            case "m":
                pass
            case "A":
                self._row -= int(parameters or 1)
                assert self._row >= 0, "the view moved above what it drew"
            case "K" if parameters == "2":
                self._lines[self._row] = ""
            case "l" | "h" if parameters == "?25":
                self.cursor_shown = final == "h"
            case _:
                raise AssertionError(f"an escape sequence that nothing here knows: {parameters}{final}")
