"""Completion as a real bash does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import livemig

LIVEMIG = Path(sys.executable).with_name("livemig")


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    assert shutil.which("bash"), "this test needs bash"
    line = " ".join(f"'{word}'" for word in ("livemig", *words))
    script = (
        f"source <({LIVEMIG} completion bash) && COMP_WORDS=({line}) COMP_CWORD={len(words)} && "
        f"PATH={LIVEMIG.parent}:$PATH && compopt() {{ :; }} && _livemig_completion livemig; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    found = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return found.stdout.split()


def test_verbs_and_options_and_choices(tmp_path: Path) -> None:
    """What can come next, by what was typed so far."""
    assert {"run", "plan", "demo"} <= set(completed(tmp_path, ""))
    assert "--downtime-limit" in completed(tmp_path, "run", "--down")
    assert set(completed(tmp_path, "run", "--at-deadline", "")) == {"cancel", "pause"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_each_shell_gets_a_script(shell: str) -> None:
    """It names the variable by which livemig is asked."""
    ran = await livemig("completion", shell)
    assert ran.code == 0
    assert "_LIVEMIG_COMPLETE" in ran.stdout


async def test_an_unknown_shell_is_refused() -> None:
    """And those that are known are named."""
    ran = await livemig("completion", "tcsh")
    assert ran.code == 2
    assert "bash" in ran.stderr
