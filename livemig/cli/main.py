"""The command line's entry: errors to one clear line and the right exit code. Imports nothing heavy by itself."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from livemig.cli.commands import cli

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the contract's code."""
    _open_missing_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = cli.main(args=given, prog_name="livemig", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = REFUSED
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = _end(given, INTERRUPTED, "interrupted before anything began", outcome="cancelled")
    except click.ClickException as error:
        code = _end(given, REFUSED, *_described(error))
    except BrokenPipeError:
        code = FAILED
    except OSError as error:
        code = _end(given, FAILED, f"stdout can't be written: {error.strerror or error}")
    sys.exit(_flushed(code))


def _described(error: click.ClickException) -> tuple[str, str]:
    """What is wrong, in one line, and where to read more."""
    message = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return message, f" (see {context.command_path} --help)" if context is not None else ""


def _end(given: Sequence[str], code: int, message: str, hint: str = "", *, outcome: str = "refused") -> int:
    """Says why there was no run; with ``--json`` in the closing object too, as for every other end."""
    print(f"livemig: {message}{hint}", file=sys.stderr)
    if "--json" in given:
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
