"""The README's example runs as it stands, on real QEMU."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.pair import Pair

ROOT = Path(__file__).parents[2]


@pytest.mark.qemu
async def test_library_example_runs(pair: Pair) -> None:
    """Only the addresses are put in; it moves a guest and prints how it ended."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    await pair.start()
    code = example[1].replace("a.qmp", str(pair.source.qmp_path)).replace("b.qmp", str(pair.destination.qmp_path))

    import asyncio

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    output, _ = await process.communicate()

    assert process.returncode == 0
    assert "completed" in output.decode().splitlines()[-1]
    await pair.assert_runs_only("destination")


def test_readme_names_the_two_commands_and_only_files_that_exist() -> None:
    """Links of README and docs lead somewhere."""
    readme = (ROOT / "README.md").read_text()
    assert "scripts/demo" in readme
    assert "scripts/test" in readme
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
