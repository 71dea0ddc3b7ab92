"""The shipped image is what its sources make."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from livemig.lab.guest import image_path
from livemig.lab.workload import Workload

from .conftest import MIB, StartMachine

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The image as this machine's compiler makes it, and what the build printed."""
    folder = tmp_path_factory.mktemp("image")
    done = subprocess.run(
        [ROOT / "scripts/build-guest", folder], check=True, timeout=60, capture_output=True, text=True
    )
    return folder / "livemig-guest.bin", done.stdout + done.stderr


def _note(image: Path) -> dict[str, object]:
    note: dict[str, object] = json.loads(image.with_suffix(".json").read_text())
    return note


def test_the_image_is_whole() -> None:
    """It is the one that its note describes."""
    assert image_path().stat().st_size == 65536
    assert hashlib.sha256(image_path().read_bytes()).hexdigest() == _note(image_path())["image_sha256"]


def test_the_image_is_of_these_sources(rebuilt: tuple[Path, str]) -> None:
    """Nobody changed a source and forgot to build."""
    assert _note(rebuilt[0])["sources_sha256"] == _note(image_path())["sources_sha256"]


def test_the_same_tools_make_the_same_bytes(rebuilt: tuple[Path, str]) -> None:
    """With the recorded compiler and linker byte for byte; others make another image of the same sources."""
    shipped, ours = _note(image_path()), _note(rebuilt[0])
    tools = ("compiler_major", "linker")

    if [shipped[tool] for tool in tools] == [ours[tool] for tool in tools]:
        assert rebuilt[0].read_bytes() == image_path().read_bytes()
        assert rebuilt[1] == "", "the build prints warnings"
    else:
        assert len(rebuilt[0].read_bytes()) == 65536


def test_building_twice_makes_the_same_bytes(rebuilt: tuple[Path, str], tmp_path: Path) -> None:
    """Nothing of time, place or chance gets in."""
    subprocess.run([ROOT / "scripts/build-guest", tmp_path], check=True, timeout=60, capture_output=True)

    assert (tmp_path / "livemig-guest.bin").read_bytes() == rebuilt[0].read_bytes()


@pytest.mark.qemu
async def test_the_rebuilt_image_runs(rebuilt: tuple[Path, str], start_machine: StartMachine) -> None:
    """Whatever compiler made it, it boots, works and finds its memory right."""
    machine = await start_machine(
        Workload(working_set_bytes=4 * MIB), memory_bytes=32 * MIB, extra_arguments=("-bios", str(rebuilt[0]))
    )

    assert (await machine.serial.ask_verdict()).good
    assert machine.serial.unreadable_count == 0


def test_nothing_of_the_image_needs_initialised_data() -> None:
    """The linker script's own assertions are there: the program runs from ROM."""
    script = (ROOT / "livemig/lab/guest/guest.ld").read_text()

    assert len(re.findall(r"ASSERT\(", script)) == 3
    assert shutil.which("ld") is not None
