"""Watches the Linux guest from the lab's client: runs `livemig.lab.linux.traffic` there and reads what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from types import TracebackType
from typing import Self

import msgspec

from livemig.core.errors import LabError
from livemig.lab.two_hosts.host import Namespace
from livemig.lab.two_hosts.layout import GUEST_ADDRESS

_READY_BOUND_S = 60.0
_END_BOUND_S = 30.0
_POLL_S = 0.02


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a flow heard nothing of the guest.

    Attributes:
        flow: Which, such as ``echo1``.
        from_s: When it was last heard, monotonic.
        to_s: When it was heard again.
    """

    flow: str
    from_s: float
    to_s: float

    @property
    def duration_s(self) -> float:
        """How long."""
        return self.to_s - self.from_s


class FlowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a flow did in all.

    Attributes:
        flow: Which.
        sent: Records sent.
        received: Records received; of the journal, the last block's number.
        problems: What was lost, repeated or cut off.
    """

    flow: str
    sent: int
    received: int
    problems: tuple[str, ...]


class Watching:
    """A client that talks to the guest for as long as the block is entered.

    Attributes:
        silences: Every silence of 10 ms and more so far.
        summaries: How each flow did, after `end`.
        acknowledged: The last block that the guest said is on its disk.
    """

    def __init__(
        self,
        client: Namespace,
        *,
        echo: int = 0,
        stream: int = 0,
        udp: int = 0,
        journal: bool = False,
        address: str = GUEST_ADDRESS,
    ) -> None:
        self.silences: list[Silence] = []
        self.summaries: dict[str, FlowSummary] = {}
        self.acknowledged = 0
        self._heard_s: dict[str, float] = {}
        self._flows = [f"echo{number}" for number in range(1, echo + 1)]
        self._flows += [f"stream{number}" for number in range(1, stream + 1)]
        self._flows += [f"udp{number}" for number in range(1, udp + 1)]
        counts = [f"--echo={echo}", f"--stream={stream}", f"--udp={udp}", *(["--journal"] if journal else [])]
        self._argv = client.argv(sys.executable, "-m", "livemig.lab.linux.traffic", address, *counts)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    def longest_s(self, flow: str, from_s: float, to_s: float) -> float:
        """The longest silence of a flow that touches a time; 0 when none was 10 ms or longer."""
        found = [
            one.duration_s for one in self.silences if one.flow == flow and one.to_s > from_s and one.from_s < to_s
        ]
        return max(found, default=0.0)

    async def wait_heard(self, since_s: float, timeout_s: float) -> float:
        """Waits until every flow has been heard since a time; returns when the last of them first was, within 50 ms.

        Raises:
            LabError: When one is not within the bound.
        """
        end_s = time.monotonic() + timeout_s
        while any(self._heard_s.get(flow, 0.0) <= since_s for flow in self._flows):
            if time.monotonic() > end_s:
                raise LabError(f"the lab's client hears nothing of the guest for {timeout_s:.0f} s")
            await asyncio.sleep(_POLL_S)
        return max(self._heard_s[flow] for flow in self._flows)

    async def end(self) -> dict[str, FlowSummary]:
        """Lets the client finish its sessions, and returns how each flow did.

        Raises:
            LabError: When it does not say.
        """
        process, reading = self._process, self._reading
        if process is None or reading is None or process.stdin is None:
            raise LabError("the client was not started")
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_BOUND_S):
                await reading
                await process.wait()
        except TimeoutError as error:
            raise LabError("the lab's client does not end") from error
        if process.returncode != 0:
            raise LabError(f"the lab's client failed with exit code {process.returncode}")
        return self.summaries

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._argv, stdin=pipe, stdout=pipe)
        self._reading = asyncio.create_task(self._read())
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait((self._reading, waiting), timeout=_READY_BOUND_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self._ready.is_set():
            await self._kill()
            raise LabError("the lab's client does not reach the guest")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self._kill())

    async def _kill(self) -> None:
        process, reading = self._process, self._reading
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        async for line in process.stdout:
            found = msgspec.json.decode(line)
            if "ready_s" in found:
                self._ready.set()
            elif "heard_s" in found:
                self._heard_s[found["flow"]] = found["heard_s"]
            elif "acknowledged" in found:
                self.acknowledged = found["acknowledged"]
            elif "from_s" in found:
                self.silences.append(msgspec.convert(found, Silence))
            else:
                self.summaries[found["flow"]] = msgspec.convert(found, FlowSummary)
