"""The command line's entry: errors to one clear line and the right exit code. Imports nothing heavy by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from livemig.cli.commands import cli

REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the contract's code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = cli.main(args=given, prog_name="livemig", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        code = _refuse(error, given)
    except BrokenPipeError:
        code = 1
    sys.exit(_flushed(code))


def _refuse(error: click.ClickException, given: Sequence[str]) -> int:
    """Says what is wrong in one line; with ``--json`` the closing object too, as for every other end."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    print(f"livemig: {message}{hint}", file=sys.stderr)
    if "--json" in given:
        from livemig.cli.json_lines import refused_line

        print(refused_line(message), flush=True)
    return REFUSED


def _flushed(code: int) -> int:
    """Flushes stdout here, where a reader that has gone is no reason for a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
