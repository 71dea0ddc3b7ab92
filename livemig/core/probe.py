"""What to ask the guest for, to see from outside when it does not answer; and the longest such time. Pure."""

from __future__ import annotations

import re

import msgspec

from livemig.core.errors import PlanError

_TARGET = re.compile(r"tcp:(?P<host>\[[^\]]+\]|[^:\[\]\s]+):(?P<port>\d+)|ping:(?P<pinged>\[[^\]]+\]|[^\[\]\s]+)")
_INTERVALS_S = {"tcp": 0.02, "ping": 0.01}


class ProbeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask and how.

    Attributes:
        kind: ``tcp``: whether a port takes connections; ``ping``: whether the host answers an echo request.
        host: A name or an address.
        port: The port; 0 for ``ping``.
    """

    kind: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> ProbeTarget:
        """Reads ``tcp:HOST:PORT`` or ``ping:HOST``; an IPv6 address stands in brackets.

        Raises:
            PlanError: When it is neither.
        """
        found = _TARGET.fullmatch(text)
        if found is None:
            raise PlanError(f"{text!r} is no probe: write tcp:HOST:PORT or ping:HOST, an IPv6 address in brackets")
        if found["pinged"] is not None:
            return cls(kind="ping", host=found["pinged"].strip("[]"))
        port = int(found["port"])
        if not 0 < port < 2**16:
            raise PlanError(f"port {port} in {text!r} is out of range: 1 to 65535")
        return cls(kind="tcp", host=found["host"].strip("[]"), port=port)

    @property
    def interval_s(self) -> float:
        """How often it is asked, and so by how much a blackout may be seen too long."""
        return _INTERVALS_S[self.kind]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ping:{host}" if self.kind == "ping" else f"tcp:{host}:{self.port}"


class Blackout(msgspec.Struct, frozen=True, kw_only=True):
    """The longest time in which the guest did not answer from the controller, as its clients would have seen it.

    Attributes:
        target: Who was asked.
        longest_s: From one answer to the next.
        known_to_s: By how much that may be too long: the time between two questions.
        answers_afterwards: Whether it answered after the move.
    """

    target: str
    longest_s: float
    known_to_s: float
    answers_afterwards: bool


class Answers:
    """The answers to a probe, as they come.

    Attributes:
        last_s: When the latest came, monotonic; None before the first.
    """

    def __init__(self) -> None:
        self.last_s: float | None = None
        self._longest_s = 0.0

    def note(self, time_s: float) -> None:
        """Notes an answer."""
        if self.last_s is not None:
            self._longest_s = max(self._longest_s, time_s - self.last_s)
        self.last_s = time_s

    def restart(self) -> None:
        """Forgets what silence there was so far: it was before the migration."""
        self._longest_s = 0.0

    def longest_s(self, now_s: float) -> float:
        """The longest silence, the present one included."""
        return self._longest_s if self.last_s is None else max(self._longest_s, now_s - self.last_s)
