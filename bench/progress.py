"""Says on stderr how far a benchmark is. Written between measurements only, never during one."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

_STEPS_SHOWN = 10
"""How many lines a whole benchmark brings forth where stderr is no terminal."""


class Progress:
    """A count out of a total; use it as a context manager.

    Attributes:
        count: Steps done.
    """

    def __init__(self, label: str, total_count: int) -> None:
        self.count = 0
        self._label, self._total_count = label, total_count
        self._terminal = sys.stderr.isatty()
        self._told_count: int | None = None

    def step(self, count: int = 1) -> None:
        """Counts one, or so many."""
        self.count += count
        self._show()

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._terminal:
            print(file=sys.stderr)

    def _show(self) -> None:
        text = f"{self._label}: {self.count}/{self._total_count}"
        if self._terminal:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif self._is_worth_a_line():
            self._told_count = self.count
            print(text, file=sys.stderr, flush=True)

    def _is_worth_a_line(self) -> bool:
        """Whether a tenth more is done than the last line said, or all; steps may be of any size."""
        if self._told_count is None:
            return True
        more_count = self.count - self._told_count
        return more_count >= max(1, self._total_count // _STEPS_SHOWN) or (
            more_count > 0 and self.count >= self._total_count
        )
