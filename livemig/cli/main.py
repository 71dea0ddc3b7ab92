"""The command line's entry: errors to one clear line and the right exit code. Imports nothing heavy by itself."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

import click

from livemig.cli.commands import cli

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the contract's code."""
    _open_missing_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
    except KeyboardInterrupt:  # another Ctrl-C, while the first one was taken: the terminal's and our parent's
        code = _interrupted(given)
    _ignore_interrupts()  # the code stands: no late Ctrl-C may turn it into a traceback
    sys.exit(_flushed(code))


def _run(given: list[str]) -> int:
    try:
        result = cli.main(args=given, prog_name="livemig", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = REFUSED
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = _interrupted(given)
    except click.ClickException as error:
        code = _end(given, REFUSED, *_described(error), as_json=_asks_for_json(error))
    except BrokenPipeError:
        code = FAILED
    except OSError as error:
        what = "stdout can't be written" if error.errno in _OF_WRITING else "this system refuses what livemig needs"
        code = _end(given, FAILED, f"{what}: {error.strerror or error}")
    return code


def _interrupted(given: Sequence[str]) -> int:
    _ignore_interrupts()
    return _end(given, INTERRUPTED, "interrupted before anything began", outcome="cancelled")


def _ignore_interrupts() -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, where none arrives
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _described(error: click.ClickException) -> tuple[str, str]:
    """What is wrong, in one line, and where to read more."""
    message = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return message, f" (see {context.command_path} --help)" if context is not None else ""


def _asks_for_json(error: click.ClickException) -> bool:
    """Whether a variable or a config file asks for JSON, which the command line need not say then."""
    context: click.Context | None = getattr(error, "ctx", None)
    for parameter in () if context is None else context.command.params:
        if context is not None and parameter.name == "as_json":
            with contextlib.suppress(click.ClickException):
                value, _ = parameter.consume_value(context, {})
                return bool(parameter.type_cast_value(context, value))
    return False


def _end(
    given: Sequence[str], code: int, message: str, hint: str = "", *, outcome: str = "refused", as_json: bool = False
) -> int:
    """Says why there was no run; with ``--json`` in the closing object too, as for every other end."""
    with contextlib.suppress(OSError):  # a full disk under stderr changes no code
        print(f"livemig: {message}{hint}", file=sys.stderr)
    if as_json or "--json" in given:
        from livemig.cli.json_lines import refused_line
        from livemig.core.outcome import Outcome

        print(refused_line(message, outcome=Outcome(outcome)))
    return code


def _open_missing_streams() -> None:
    """Gives closed streams a place to go, and makes sure that no text can't be printed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, so that no socket gets it
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Flushes stdout here, where a reader that has gone, or a full disk, is no reason for a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
