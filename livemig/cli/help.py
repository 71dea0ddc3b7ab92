"""How help is laid out: options under headings, in columns that line up. Knows no verb."""

from __future__ import annotations

from typing import Any

import click

_NAMES_WIDTH_MOST = 30
_OTHER = "Other options"


class Option(click.Option):
    """An option that stands under a heading, and can be given as a LIVEMIG_* variable too.

    Attributes:
        heading: The heading.
    """

    def __init__(self, *declarations: Any, heading: str = _OTHER, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.envvar = f"LIVEMIG_{self.opts[0].removeprefix('--').upper().replace('-', '_')}"
        self.heading = heading


class Verb(click.Command):
    """A verb whose help shows its options by heading, in the order in which the headings first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(getattr(parameter, "heading", _OTHER), []).append(record)
        names = [name for records in sections.values() for name, _ in records]
        width = min(_NAMES_WIDTH_MOST, max(len(name) for name in names))
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in records])
