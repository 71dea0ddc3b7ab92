"""What the shell is told: one code for each outcome, as the command line's contract has it."""

from __future__ import annotations

from livemig.core.outcome import Outcome

INTERRUPTED = 130

_CODES = {
    Outcome.COMPLETED: 0,
    Outcome.FAILED: 1,
    Outcome.REFUSED: 2,
    Outcome.CANCELLED: 3,
    Outcome.UNKNOWN: 4,
    Outcome.GUEST_SHUT_DOWN: 5,
}


def exit_code(outcome: Outcome, *, interrupted: bool) -> int:
    """Returns the exit code; a cancel by Ctrl-C or SIGTERM has its own."""
    if outcome is Outcome.CANCELLED and interrupted:
        return INTERRUPTED
    return _CODES[outcome]
