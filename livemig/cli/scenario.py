"""A scenario file for ``livemig simulate --scenario``: guest, link and QEMUs in TOML, more than options can say.

Its keys are the fields of `livemig.simulation.setting.Setting` without their units, which stand in the values as on the
command line: ``memory = "4GiB"``, ``rate = "500MiB/s"``, ``burst-period = "2s"``.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Callable
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from livemig.core.errors import PlanError
from livemig.core.units import parse_duration_s, parse_rate_bytes_s, parse_size_bytes
from livemig.simulation.setting import Setting

_UNITS: tuple[tuple[str, Callable[[str], float]], ...] = (
    ("_bytes_s", parse_rate_bytes_s),
    ("_bytes", parse_size_bytes),
    ("_s", parse_duration_s),
)


def read_scenario(path: Path) -> Setting:
    """Reads a scenario.

    Raises:
        PlanError: When it can't be read, has a key that is none, or a value that makes no sense; in one line.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise PlanError(f"the scenario {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"the scenario {path} is no TOML: {error}") from error
    try:
        setting: Setting = _struct(Setting, found, "")
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    return setting


def _struct(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise PlanError(f"{where.rstrip('.')} is a table")
    fields = {_key(field.name): field for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        field = fields.get(key)
        if field is None:
            raise PlanError(f"unknown key {where + key!r}{_nearest(key, list(fields))}")
        values[field.name] = _value(hints[field.name], field.name, value, where + key)
    missing = [key for key, field in fields.items() if field.required and field.name not in values]
    if missing:
        raise PlanError(f"{where + missing[0]!r} is missing")
    return kind(**values)


def _value(kind: Any, name: str, value: Any, where: str) -> Any:
    arguments = get_args(kind)
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(one for one in arguments if one is not type(None))
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise PlanError(f"{where} is a list of tables: write [[{where}]]")
        return tuple(_struct(arguments[0], one, f"{where}.") for one in value)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind, value, f"{where}.")
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [str(one.value) for one in kind]
        if value not in names:
            raise PlanError(f"{where} = {value!r} is none of {', '.join(names)}")
        return kind(value)
    return _plain(kind, name, value, where)


def _plain(kind: Any, name: str, value: Any, where: str) -> Any:
    """A number with its unit, where the field has one; else a number or text as it stands."""
    parse = next((parse for unit, parse in _UNITS if name.endswith(unit)), None)
    if parse is not None:
        if not isinstance(value, str):
            raise PlanError(f'{where} = {value} has no unit: write it in quotes, like "2s", "4GiB" or "100MiB/s"')
        try:
            return kind(parse(value))
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from error
    wanted = str if kind is str else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise PlanError(f"{where} = {value!r} should be {'text in quotes' if kind is str else 'a number'}")
    return value


def _key(name: str) -> str:
    for unit, _ in _UNITS:
        if name.endswith(unit):
            return name.removesuffix(unit).replace("_", "-")
    return name.replace("_", "-")


def _nearest(key: str, keys: list[str]) -> str:
    near = get_close_matches(key, keys, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(keys))}"
