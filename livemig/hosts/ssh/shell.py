"""One POSIX shell on a host, kept open: a command in it takes a round trip, a new one some 140 ms.

The user's login shell may be of any kind and say what it likes at its start: a POSIX shell is asked for in its stead,
and each answer stands between marks that nobody else can know.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping

import asyncssh
import msgspec

from livemig.core.errors import HostError

START_BOUND_S = 15.0
COMMAND_BOUND_S = 10.0
_READ_BYTES = 1 << 18


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a script.

    Attributes:
        status: Its exit status.
        output: What it wrote, standard error included.
    """

    status: int
    output: bytes

    @property
    def text(self) -> str:
        """What it wrote, as text without blanks around it."""
        return self.output.decode("utf-8", "surrogateescape").strip()


class Shell:
    """A shell that carries out one script at a time. Scripts stand in no process list, nor in a file."""

    def __init__(self, host: str, process: asyncssh.SSHClientProcess[bytes]) -> None:
        """For `open` only."""
        self._host = host
        self._process = process
        self._buffer = bytearray()
        self._lock = asyncio.Lock()
        self._broken = False

    @classmethod
    async def open(cls, host: str, connection: asyncssh.SSHClientConnection) -> Shell:
        """Starts a shell.

        Raises:
            HostError: When none answers.
        """
        try:
            async with asyncio.timeout(START_BOUND_S):
                process = await connection.create_process(
                    "exec sh", encoding=None, stderr=asyncssh.DEVNULL, request_pty=False, env={}, send_env=()
                )
        except TimeoutError:
            raise HostError(f"{host}: no shell within {START_BOUND_S:g} s", host=host) from None
        except (OSError, asyncssh.Error) as error:
            raise HostError(f"{host}: no shell: {error}", host=host) from error
        shell = cls(host, process)
        try:
            answer = await shell.run("echo up", bound_s=START_BOUND_S)
            if answer.text.split()[-1:] != ["up"]:  # what the login shell has to say comes before it
                raise HostError(f"{host}: what answers there is no POSIX shell", host=host)
        except BaseException:
            shell.close()
            raise
        return shell

    @property
    def usable(self) -> bool:
        """Whether it can take a script."""
        return not self._broken and not self._process.channel.is_closing()

    async def run(self, script: str, *, bound_s: float = COMMAND_BOUND_S) -> Answer:
        """Runs a script in a subshell of its own, its standard input empty.

        Raises:
            HostError: When no answer came within the bound: whether it was carried out is unknown, and this shell is
                of no use any more.
        """
        exchange = asyncio.ensure_future(self._exchange(script))
        exchange.add_done_callback(_seen)
        try:
            async with asyncio.timeout(bound_s):
                return await asyncio.shield(exchange)  # whoever gives up waiting must not garble the next answer
        except TimeoutError:
            self._broken = True
            exchange.cancel()
            raise HostError(f"{self._host}: no answer within {bound_s:g} s", host=self._host) from None
        except (OSError, asyncssh.Error) as error:
            raise HostError(f"{self._host}: the connection to it is lost ({error})", host=self._host) from error

    async def _exchange(self, script: str) -> Answer:
        mark = secrets.token_hex(12)
        text = f"(\n{script}\n) </dev/null 2>&1; s=$?; echo; echo {mark} $s\n"
        async with self._lock:
            if not self.usable:
                raise HostError(f"{self._host}: the connection to it is lost", host=self._host)
            self._process.stdin.write(text.encode("utf-8", "surrogateescape"))
            return await self._answer(re.compile(rb"\n" + mark.encode() + rb" (\d+)\n"))

    async def _answer(self, end: re.Pattern[bytes]) -> Answer:
        while True:
            found = end.search(self._buffer)
            if found is not None:
                answer = Answer(status=int(found[1]), output=bytes(self._buffer[: found.start()]))
                self._buffer = self._buffer[found.end() :]
                return answer
            chunk = await self._process.stdout.read(_READ_BYTES)
            if not chunk:
                raise HostError(f"{self._host}: the connection to it is lost", host=self._host)
            self._buffer += chunk

    def close(self) -> None:
        """Ends it."""
        self._broken = True
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.close()


def _seen(exchange: asyncio.Future[Answer]) -> None:
    """Takes note of how an exchange ended that nobody waits for any more."""
    if not exchange.cancelled():
        exchange.exception()


def parts_script(commands: Mapping[str, str]) -> tuple[str, str]:
    """Returns a script of many commands and the mark by which `parts_of` takes their outputs apart."""
    mark = secrets.token_hex(12)
    lines = [f"({command}) 2>/dev/null; s=$?; echo; echo {mark} $s" for command in commands.values()]
    return "\n".join(lines), mark


def parts_of(commands: Mapping[str, str], mark: str, output: bytes) -> dict[str, Answer]:
    """Takes apart what a script of `parts_script` wrote; a command that is missing there has failed."""
    found: dict[str, Answer] = {}
    pieces = re.split(rb"\n" + mark.encode() + rb" (\d+)(?:\n|$)", output)
    for name, text, status in zip(commands, pieces[::2], pieces[1::2], strict=False):
        found[name] = Answer(status=int(status), output=text)
    return {name: found.get(name, Answer(status=1, output=b"")) for name in commands}
