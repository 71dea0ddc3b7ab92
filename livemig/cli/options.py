"""The command line's value types: times, sizes and rates with their units. Parses, decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from livemig.core.errors import PlanError
from livemig.core.units import parse_duration_s, parse_rate_bytes_s, parse_size_bytes


class Quantity(click.ParamType[float]):
    """A number with its unit; a bare number is refused with a hint."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the value in SI base units."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return self._parse(value)
        except PlanError as error:
            self.fail(str(error), param, ctx)


class AddressText(click.ParamType[str]):
    """Where a monitor is; read by the engine, and completed here as the path that it usually is."""

    name = "ADDR"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Lets the shell complete a path."""
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class PolicyName(click.ParamType[str]):
    """The name of a rule for the switchover; the names are imported when one is given."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses a name that is none, with the nearest that is."""
        from livemig.simulation.otherwise import POLICIES

        if value not in POLICIES:
            near = get_close_matches(value, POLICIES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(POLICIES)}"
            self.fail(f"there is no policy {value!r}; {hint}", param, ctx)
        return str(value)


ADDRESS = AddressText()
DURATION = Quantity("TIME", parse_duration_s)
SIZE = Quantity("SIZE", parse_size_bytes)
RATE = Quantity("RATE", parse_rate_bytes_s)
