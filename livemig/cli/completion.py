"""``livemig completion``: what completes livemig's verbs, options and sockets in a shell."""

from __future__ import annotations

import click

from livemig.cli.help import Verb
from livemig.cli.help_texts import COMPLETION_EPILOG


@click.command(cls=Verb, epilog=COMPLETION_EPILOG, short_help="Print what completes livemig's options in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that completes livemig's verbs, options and sockets in a SHELL."""
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    root = click.get_current_context().find_root().command
    assert completer is not None  # noqa: S101  # the choice allows only those that click knows
    print(completer(root, {}, "livemig", "_LIVEMIG_COMPLETE").source())
    return 0
