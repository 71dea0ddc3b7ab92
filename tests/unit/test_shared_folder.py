"""A socket that looks dead is a host's own only where its folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from livemig.engine.shared_folder import may_be_elsewheres
from tests.unit.test_images import Elsewhere

LISTENING = "0000: 00000002 00000000 00010000 0001 01 4711"


class Mounted(Elsewhere):
    """Another host that has a folder of this one at another place, and where somebody listens at sockets."""

    def __init__(self, boot_id: str, here: Path, there: str, *listening: str) -> None:
        super().__init__(boot_id)
        self._here, self._there, self._listening = here, there, listening

    async def existing_among(self, paths: Any) -> frozenset[str]:
        return frozenset(
            path
            for path in paths
            if path.startswith(self._there) and Path(path.replace(self._there, str(self._here))).exists()
        )

    async def texts_of(self, paths: Any) -> dict[str, str]:
        return {path: "".join(f"{LISTENING} {each}\n" for each in self._listening) for path in paths}


class ReadOnly(Elsewhere):
    """A host where nothing can be made."""

    async def write_secret(self, path: str, text: str, owner: tuple[int, int] | None) -> None:
        raise PermissionError(path)


async def test_on_one_kernel_connecting_tells(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qmp")
    assert not await may_be_elsewheres(path, Elsewhere("1"), Elsewhere("1"))


async def test_in_a_folder_of_both_it_may_be_the_others(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qmp")
    assert await may_be_elsewheres(path, Elsewhere("1"), Elsewhere("2"))
    assert list(tmp_path.iterdir()) == []


async def test_in_a_folder_of_its_own_it_is_not(tmp_path: Path) -> None:
    """Somebody may well listen at the same path of the other host's own."""
    path = str(tmp_path / "a.qmp")
    assert not await may_be_elsewheres(path, Elsewhere("1"), Mounted("2", tmp_path, "/nowhere", path))


async def test_a_folder_that_is_mounted_at_another_place_is_found_by_who_listens_there(tmp_path: Path) -> None:
    path = str(tmp_path / "a.qmp")
    there = Mounted("2", tmp_path, "/mnt/guests", "/run/b.qmp", "/mnt/guests/a.qmp", "@abstract")
    assert await may_be_elsewheres(path, Elsewhere("1"), there)
    assert not await may_be_elsewheres(path, Elsewhere("1"), Mounted("2", tmp_path, "/mnt/guests", "/run/a.qmp"))


async def test_where_it_can_not_be_told_it_may_be(tmp_path: Path) -> None:
    assert await may_be_elsewheres(str(tmp_path / "a.qmp"), ReadOnly("1"), Elsewhere("2"))
