"""Builds the Linux guest from Debian packages and the workload beside this file, once; then finds it in the cache.

The packages come from where this machine's own do. Nothing is installed, and nothing is written but the cache's folder.
Run it as ``python -m livemig.lab.linux.image``: it prints the folder.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from livemig.core.errors import LabError

SOURCES = Path(__file__).parent
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "virtio_console",
)
"""In the order in which each finds what it needs (modules.dep); virtio is all modules in the cloud kernel."""
_KERNEL = "linux-image-cloud-amd64"
_OTHERS = ("busybox-static", "qemu-guest-agent")
_DOWNLOAD_BOUND_S = 300
_COMMAND_BOUND_S = 120
_DIRECTORY, _FILE, _LINK, _DEVICE = 0o040755, 0o100755, 0o120777, 0o020600


class LinuxImage(msgspec.Struct, frozen=True, kw_only=True):
    """What QEMU boots.

    Attributes:
        kernel: For ``-kernel``.
        initramfs: For ``-initrd``.
    """

    kernel: Path
    initramfs: Path


def linux_image() -> LinuxImage:
    """Returns the guest, built now if it is not in the cache.

    Raises:
        LabError: When a package can't be had, or something does not build. Nothing half-made is left.
    """
    folder = _cache() / f"linux-guest-{_fingerprint()}"
    image = LinuxImage(kernel=folder / "kernel", initramfs=folder / "initramfs.gz")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as building:
            made = Path(building, "made")
            _build(Path(building), made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():  # else somebody else was quicker
                    raise
    return image


def _build(work: Path, made: Path) -> None:
    packages, root = work / "packages", work / "root"
    packages.mkdir()
    made.mkdir()
    _run("apt-get", "download", _kernel_package(), *_OTHERS, cwd=packages, bound_s=_DOWNLOAD_BOUND_S)
    for package in packages.glob("*.deb"):
        _run("dpkg-deb", "--extract", str(package), str(root))
    _run("gcc", *_compiler_options(), "-o", str(root / "workload"), *map(str, sorted(SOURCES.glob("*.c"))))
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, made / "kernel")
    archive = _archive([*_tree(root), *_agent(root)])
    (made / "initramfs.gz").write_bytes(gzip.compress(archive, compresslevel=1, mtime=0))


def _tree(root: Path) -> Iterable[tuple[str, int, bytes]]:
    """Everything of livemig's own and the kernel's: name, mode and content of each entry."""
    for name in ("bin", "dev", "proc", "sys", "run", "modules", "usr", "usr/sbin", "sbin", "lib64"):
        yield name, _DIRECTORY, b""
    yield "dev/console", _DEVICE, b""
    yield "init", _FILE, (SOURCES / "init").read_bytes()
    yield "workload", _FILE, (root / "workload").read_bytes()
    (busybox,) = (path for path in root.glob("**/bin/busybox") if path.is_file())
    yield "bin/busybox", _FILE, busybox.read_bytes()
    yield "sbin/hwclock", _LINK, b"/bin/busybox"  # without it the agent sets no time
    present = []
    for module in MODULES:
        found = [path for path in root.glob(f"**/kernel/**/{module}.ko*") if path.is_file()]
        if found:
            content = found[0].read_bytes()
            yield f"modules/{module}.ko", _FILE, lzma.decompress(content) if found[0].suffix == ".xz" else content
            present.append(module)  # a later kernel may have it built in
    yield "modules/order", _FILE, "\n".join(present).encode()


def _agent(root: Path) -> Iterable[tuple[str, int, bytes]]:
    """The guest agent, and the libraries that it is linked to: QEMU on this machine needs the same."""
    agent = root / "usr/sbin/qemu-ga"
    if not agent.exists():
        agent = root / "usr/bin/qemu-ga"
    yield "usr/sbin/qemu-ga", _FILE, agent.read_bytes()
    yield "lib", _DIRECTORY, b""
    for line in _run("ldd", str(agent)).splitlines():
        found = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if found is None:
            if "not found" in line:
                raise LabError(f"the guest agent's libraries are not all installed: {line.strip()}")
            continue
        path = Path(found[1])
        yield f"{'lib64' if path.name.startswith('ld-linux') else 'lib'}/{path.name}", _FILE, path.read_bytes()


def _archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive ("newc"), as the kernel unpacks it; the one device in it is /dev/console, 5:1."""
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        device = (5, 1) if mode == _DEVICE else (0, 0)
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _kernel_package() -> str:
    for line in _run("apt-cache", "depends", _KERNEL).splitlines():
        found = re.fullmatch(r"\s*Depends: (linux-image-\d\S+)", line)
        if found:
            return found[1]
    raise LabError(f"apt knows no {_KERNEL}: run apt-get update, on Debian for amd64, and try again")


def _compiler_options() -> list[str]:
    return ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livemig"


def _fingerprint() -> str:
    """Names what it is built from: another workload, or another way to build, is another guest."""
    content = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".c", ".h") or path.name in ("init", "image.py"):
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _run(*command: str, cwd: Path | None = None, bound_s: float = _COMMAND_BOUND_S) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=bound_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"the Linux guest can't be built: {command[0]}: {error}") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise LabError(f"the Linux guest can't be built: {command[0]}: {words[0]}")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{linux_image().kernel.parent}\n")
    except LabError as error:
        sys.exit(f"livemig: {error}")
