"""Between hosts an image is the same only where that is proven: by a file beside it, its device, or its name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from livemig.engine.images import same_images
from livemig.engine.preflight import judge_images
from livemig.engine.side import Side
from livemig.hosts.host import HostIdentity
from livemig.hosts.local_host import LocalHost
from livemig.hosts.open_files import FileKey, ImageKeys
from livemig.qemu.compare import ImagePair


class Elsewhere(LocalHost):
    """This machine's files, under another kernel's name; a mount may put a folder elsewhere."""

    def __init__(self, boot_id: str, keys: FileKey | None = None, device: str = "") -> None:
        self._boot_id, self._keys, self._device = boot_id, keys, device

    @property
    def identity(self) -> HostIdentity:
        return HostIdentity(
            boot_id=self._boot_id, machine="", process_namespace="", network_namespace="", mount_namespace=""
        )

    async def image_keys(self, pid: int, paths: Any) -> dict[str, ImageKeys]:
        found = {}
        for path in paths:
            stat = Path(path).stat() if Path(path).exists() else None
            key = self._keys or (None if stat is None else FileKey("file", stat.st_dev, stat.st_ino))
            found[path] = ImageKeys(named=key, held=None)
        return found

    async def texts_of(self, paths: Any) -> dict[str, str]:
        return {path: self._device for path in paths if path.endswith("/wwid") and self._device}


def side(host: LocalHost, *, seen: bool = True) -> Side:
    """A side whose process is seen, or not."""
    return cast("Side", SimpleNamespace(host=host, process=SimpleNamespace(pid=1) if seen else None))


def pair(source: str | Path, destination: str | Path, *, writable: bool = True) -> ImagePair:
    """One disk."""
    return ImagePair(title="disk", subject="disk", source=str(source), destination=str(destination), writable=writable)


async def judged(one: LocalHost, other: LocalHost, image: ImagePair, *, seen: bool = True) -> bool | None:
    """What is found out of one image."""
    ((_, is_same),) = await same_images(side(one), side(other, seen=seen), (image,))
    return is_same


async def test_a_shared_folder_proves_its_files(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(disk, disk)) is True
    assert list(tmp_path.iterdir()) == [disk]  # nothing stays behind


async def test_two_folders_are_no_proof_though_the_names_are_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "disk").touch()
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(tmp_path / "one/disk", tmp_path / "two/disk")) is False


async def test_two_files_of_a_shared_folder_are_two(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(tmp_path / "one", tmp_path / "two")) is False
    (tmp_path / "link").symlink_to("one")
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(tmp_path / "one", tmp_path / "link")) is True


async def test_a_folder_that_may_not_be_written_to_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "disk").touch()

    async def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Elsewhere, "write_secret", refuse)
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(tmp_path / "disk", tmp_path / "disk")) is None


@pytest.mark.parametrize(
    ("one", "other", "same"), [("naa.1", "naa.1", True), ("naa.1", "naa.2", False), ("", "", None)]
)
async def test_block_devices_have_an_identity(one: str, other: str, same: bool | None) -> None:
    hosts = Elsewhere("1", FileKey("block device", 8, 0), one), Elsewhere("2", FileKey("block device", 8, 16), other)
    assert await judged(*hosts, pair("/dev/sda", "/dev/sdb")) is same


async def test_what_is_reached_by_a_network_has_its_name() -> None:
    hosts = Elsewhere("1"), Elsewhere("2")
    assert await judged(*hosts, pair("nbd://store/disk", "nbd://store/disk")) is True
    assert await judged(*hosts, pair("rbd:pool/disk", "rbd:pool/other")) is None


async def test_a_process_that_is_not_seen_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    assert await judged(Elsewhere("1"), Elsewhere("2"), pair(tmp_path / "disk", tmp_path / "disk"), seen=False) is None


def test_an_unproven_image_is_refused_between_hosts_alone() -> None:
    """And only where something writes to it."""
    unproven = [(pair("/a", "/a"), None), (pair("/b", "/b", writable=False), None)]
    assert list(judge_images([], unproven)) == []
    (finding,) = judge_images([], unproven, between_hosts=True)
    assert finding.severity == "refusal"
    assert "nothing proves" in finding.sentence
