"""Each benchmark on real QEMU, as small as it gets: it measures, and leaves nothing behind. No time is asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.pair import mind_signals

ROOT = Path(__file__).resolve().parents[2]
KVM = pytest.param("kvm", marks=pytest.mark.kvm)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the benchmark's files go; its path is in the command line of each of its QEMUs."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as path:
        yield Path(path)
        assert left_behind(Path(path)) == []


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts ``python -m bench --json``."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=mind_signals,  # noqa: PLW1509  # no other thread of the tests holds a lock then
    )


def run(folder: Path, *arguments: str, timeout_s: float = 110) -> tuple[int, dict[str, Any]]:
    """Runs a benchmark to its end: exit code and result."""
    process = start(folder, *arguments, "--json")
    output, errors = process.communicate(timeout=timeout_s)
    assert output, errors
    return process.returncode, json.loads(output)


def figures(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its figures by name."""
    return {figure["name"]: figure["summary"] for figure in result["conclusion"]["figures"]}


def totals(result: dict[str, Any]) -> dict[str, float]:
    """Its totals by name."""
    return {total["name"]: total["value"] for total in result["conclusion"]["totals"]}


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.qemu
@pytest.mark.parametrize("accelerator", ["tcg", KVM])
@pytest.mark.parametrize("workload", ["idle", "loaded"])
def test_switchover(folder: Path, accelerator: str, workload: str) -> None:
    """Each switchover has all its figures, and they fit together."""
    code, result = run(folder, "switchover", "--count", "3", "--accelerator", accelerator, "--workload", workload)

    assert code in (0, 1)
    assert result["environment"]["qemu_version"].startswith("QEMU emulator")
    assert totals(result)["unreported_downtime_count"] == 0
    assert ("prior_s" in totals(result)) == (workload == "idle")
    assert len(result["conclusion"]["samples"]) == 3
    for sample in result["conclusion"]["samples"]:
        assert sample["downtime_s"] == pytest.approx(sum(sample[f"{part}_s"] for part in PARTS), abs=1e-4)
        assert 0 < sample["handover_s"] < sample["downtime_s"]
        assert sample["controller_share_s"] == pytest.approx(sample["downtime_s"] - sample["qemu_downtime_s"])
        assert sample["blackout_s"] > 0


PARTS = ("transfer", "controller", "resume")


@pytest.mark.qemu
def test_journal(folder: Path) -> None:
    """Moves have their journal's cost; each kill a guest that stood still and went on, and each recovery its time."""
    code, result = run(folder, "journal", "--count", "2", "--kills", "1")

    assert code in (0, 1)
    assert totals(result)["kill_count"] == 2
    seen = figures(result)
    assert seen["journal_s"]["median"] > 0
    assert seen["frozen_s"]["median"] > 0
    assert seen["recover_s"]["median"] > 0
    assert len(result["conclusion"]["samples"]) == 4


@pytest.mark.qemu
def test_startup(folder: Path) -> None:
    """Whole commands are timed; `--imports` names where the time goes."""
    code, result = run(folder, "startup", "--count", "2", "--imports")

    assert code in (0, 1)
    seen = figures(result)
    assert seen["interpreter_s"]["median"] < seen["help_s"]["median"]
    for sample in result["conclusion"]["samples"]:
        parts_s = sample["before_migrate_s"] + sample["after_completed_s"]
        assert sample["beyond_qemu_s"] == pytest.approx(parts_s, abs=0.01)
    assert any("import " in note for note in result["conclusion"]["notes"])


@pytest.mark.qemu
@pytest.mark.timeout(300)
def test_handover(folder: Path) -> None:
    """Each kind of move has its figure. Needs root."""
    code, result = run(folder, "handover", "--count", "1", timeout_s=280)

    assert code in (0, 1)
    seen = figures(result)
    assert totals(result)["move_count"] == 6
    assert {name for name in seen if name.endswith("_beyond_s")} == {
        *("announced_stream_beyond_s", "announced_udp_beyond_s", "announced_echo_beyond_s"),
        *("steered_udp_beyond_s", "steered_echo_beyond_s", "silent_udp_beyond_s", "silent_echo_beyond_s"),
        *("silent_unheard_beyond_s", "bare_stream_beyond_s", "stopped_stream_beyond_s"),
    }
    assert 0 < seen["lab_up_s"]["median"] < 60


@pytest.mark.qemu
def test_footprint(folder: Path) -> None:
    """CPU and memory of a migration that goes on until its deadline."""
    code, result = run(folder, "footprint", "--duration", "3s")

    assert code in (0, 1)
    seen = figures(result)
    assert 3 < seen["duration_s"]["median"] < 30
    assert 0 < seen["cpu_percent"]["median"] < 100
    assert 10 * 2**20 < seen["peak_memory_bytes"]["median"] < 200 * 2**20


@pytest.mark.qemu
@pytest.mark.parametrize("accelerator", ["tcg", KVM])
def test_pingpong(folder: Path, accelerator: str) -> None:
    """The guest moves, checks itself, and nothing is lost."""
    size = ("--memory", "64MiB", "--fill", "32MiB", "--working-set", "8MiB", "--dirty-rate", "20MiB/s")
    code, result = run(folder, "pingpong", "--count", "2", "--accelerator", accelerator, *size)

    assert code == 0
    assert totals(result)["move_count"] == 2
    assert totals(result)["checked_page_count"] == 2 * 32 * 256
    assert totals(result)["lost_page_count"] == totals(result)["reset_count"] == totals(result)["problem_count"] == 0


@pytest.mark.qemu
@pytest.mark.kvm
def test_dirtyring(folder: Path) -> None:
    """Both ways are tried; whether the ring loses pages is for the reader to see, and no failure."""
    code, result = run(folder, "dirtyring", "--count", "1", "--ring-size", "4096")

    assert code == 0
    assert set(figures(result)) == {"kvm_bad_page_count", "kvm_dirty_ring_4096_bad_page_count"}
    assert totals(result)["kvm_guest_with_bad_pages_count"] == 0


@pytest.mark.qemu
def test_ctrl_c_shows_what_there_is_and_ends_every_qemu(folder: Path) -> None:
    """A benchmark of minutes may be ended at any time."""
    process = start(folder, "switchover", "--count", "20", "--json")
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert next(lines) == "switchovers: 0/20\n"
    assert next(lines) == "switchovers: 2/20\n"
    assert left_behind(folder) != []  # so that finding none afterwards says something
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    result = json.loads(output)
    assert result["ended_early"] == "interrupted"
    assert 2 <= figures(result)["downtime_s"]["count"] < 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("switchover", "--count", "0"), "0 is not in the range"),
        (("footprint", "--duration", "30"), "'30' has no unit"),
        (("switchover", "--qemu", "no-such-qemu"), "no-such-qemu is not installed"),
        (("pingpong", "--fill", "512MiB"), "can't hold"),
        (("pingpong", "--downtime-limit", "0s"), "downtime limit"),
        (("nothing",), "No such command"),
    ],
)
def test_bad_input_is_one_clear_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 2, the thing named, no traceback."""
    process = start(folder, *arguments)
    output, errors = process.communicate(timeout=60)

    assert (process.returncode, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
