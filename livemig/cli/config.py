"""Options from a TOML file: what ``--config`` names. A key is an option's long name; argv and LIVEMIG_* go before it.

Times, sizes and rates are texts with their units (``downtime-limit = "100ms"``), lists are lists of texts, switches
are true or false.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import click

_UNITS = {"TIME": "ms", "SIZE": "MiB", "RATE": "MiB/s"}
"""What a bare number is likely to mean."""


def config_option(command: Any) -> Any:
    """Gives a command the option ``--config``, which fills in the options that nobody gave otherwise."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="LIVEMIG_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_apply,
        help="Take options from a TOML file; its keys are the options' names.",
    )(command)


def _apply(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    found = _read(path)
    options = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        for option in parameter.opts
        if option.startswith("--") and parameter.name != "config"
    }
    defaults = dict(context.default_map or {})
    for key, value in found.items():
        parameter = options.get(key)
        if parameter is None or parameter.name is None:
            raise click.UsageError(f"{path}: unknown key {key!r}{_nearest(key, options)}", context)
        defaults[parameter.name] = _value(path, key, value, parameter, context)
    context.default_map = defaults


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise click.UsageError(f"the config {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the config {path} is no TOML: {error}") from error


def _nearest(key: str, options: dict[str, click.Parameter]) -> str:
    near = difflib.get_close_matches(key, options, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(options))}"


def _value(path: Path, key: str, value: Any, parameter: click.Parameter, context: click.Context) -> Any:
    """Values are written as on the command line: text, but for switches and lists of text."""
    is_switch = isinstance(parameter, click.Option) and parameter.is_flag
    if is_switch:
        if isinstance(value, bool):
            return value
        raise click.UsageError(f"{path}: {key} is a switch: write true or false", context)
    if parameter.multiple if isinstance(parameter, click.Option) else False:
        values = value if isinstance(value, list) else [value]
        if all(isinstance(one, str) and "\0" not in one for one in values):
            return values
        raise click.UsageError(f"{path}: {key} is a list of texts in quotes", context)
    if isinstance(value, str):
        if "\0" in value:
            raise click.UsageError(f"{path}: {key} holds a NUL character, which no option can", context)
        return value
    unit = _UNITS.get(parameter.type.name)
    if unit is not None and isinstance(value, int | float) and not isinstance(value, bool):
        raise click.UsageError(
            f'{path}: {key} = {value} has no unit: write it in quotes, like "{value}{unit}"', context
        )
    raise click.UsageError(f"{path}: {key} is written in quotes, as on the command line", context)
