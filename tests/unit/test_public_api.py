"""What `import livemig` promises: the names, their types, and that it costs next to nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module, resources
from types import ModuleType

import pytest

import livemig
from livemig.core.errors import LivemigError

HEAVY = {"numpy", "rich", "asyncssh", "qemu", "asyncio", "msgspec", "click", "ssl", "plotly", "prometheus_client"}
"""Packages that importing livemig must not load: `import livemig` is for reading a name or two."""


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after this."""
    shown = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    process = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(process.stderr.split())


def test_importing_livemig_loads_nothing_heavy():
    """Names are loaded when they are first used."""
    assert loaded_by("import livemig") & HEAVY == set()


def test_a_plan_needs_no_event_loop_and_no_qemu():
    """Who only makes a plan, or catches an error, loads no engine."""
    loaded = loaded_by("import livemig; livemig.Plan(); livemig.LivemigError; livemig.RefusedError")
    assert loaded & (HEAVY - {"msgspec"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plan", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    """Who asks how to use it does not wait for what it would use."""
    code = f"""
from livemig.__main__ import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0, end.code
"""
    assert loaded_by(code) & {"numpy", "rich", "asyncssh", "qemu", "asyncio", "plotly"} == set()


@pytest.mark.parametrize("name", livemig.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    """Each resolves, where it says it lives, and has a docstring."""
    found = getattr(livemig, name)
    assert inspect.getdoc(found) or name == "Event"
    home = import_module(livemig._HOMES[name])
    assert isinstance(home, ModuleType)
    assert found is getattr(home, name)


def test_the_names_are_listed_once_and_alike():
    """What is exported, what is loaded and what type checkers see are the same names."""
    assert len(set(livemig.__all__)) == len(livemig.__all__)
    assert set(livemig._HOMES) == set(livemig.__all__)
    checked = inspect.getsource(livemig).split("if TYPE_CHECKING:\n", 1)[1].split("\n_HOMES", 1)[0]
    for name in livemig.__all__:
        assert name in checked.replace(",", " ").split(), f"{name} is hidden from type checkers"


def test_the_most_important_name_is_first():
    """A list of names is read from the top."""
    assert livemig.__all__[0] == "migrate"


def test_every_public_error_has_the_one_root():
    """One `except` catches all that livemig raises."""
    for name in livemig.__all__:
        found = getattr(livemig, name)
        if inspect.isclass(found) and issubclass(found, BaseException):
            assert issubclass(found, LivemigError), name


def test_a_name_that_is_not_there_is_said_as_usual():
    """As any module would."""
    with pytest.raises(AttributeError, match="module 'livemig' has no attribute 'migrait'"):
        _ = livemig.migrait


def test_its_types_are_shipped():
    """Without `py.typed` in the package a user's type checker reads none of them."""
    assert resources.files("livemig").joinpath("py.typed").is_file()
