"""Runs a migration's engine as a child process, so that somebody is there to recover at once if it is killed.

Forks before anything heavy is imported. The child goes on as if nothing had been; the parent passes signals on, waits,
and hands its exit code on. A child that had a fault in the midst of a run says so by its exit code, and is made up for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

FAULT = 70
"""The child's exit code when a fault of livemig's own left a run in its midst (``EX_SOFTWARE``); never the parent's."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervised(work: Callable[[int], int], recover: Callable[[int], int]) -> int:
    """Runs `work` in a child process and returns its exit code; `recover`, told the signal, when it was killed.

    After a fault in the child `recover` is told 0.

    In the child this returns, too, with what `work` returned or raised.

    Args:
        work: Told its end of a pipe that ends when the command line that started it does.
        recover: Called in the parent.
    """
    ours, theirs = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        os.close(theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return work(ours)
    os.close(ours)

    is_reaped = False

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if is_reaped:  # its number may be another process's by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    _, status = os.waitpid(child, 0)
    is_reaped = True  # a recovery, which may take its time, is not interrupted: it is bounded
    os.close(theirs)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != FAULT:
        return os.waitstatus_to_exitcode(status)
    _leave_terminal_whole()
    return recover(os.WTERMSIG(status))  # 0 when it was not killed


def new_id() -> str:
    """Returns an id for a run: short enough to type, random enough to be one's own."""
    return os.urandom(4).hex()


def _leave_terminal_whole() -> None:
    """Shows the cursor that a live view may have hidden when it was killed."""
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h\n")
        sys.stdout.flush()
