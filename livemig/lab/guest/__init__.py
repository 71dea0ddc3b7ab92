"""The built-in guest's firmware image and where it lies. Its sources are beside it; docs/guest.md tells of it."""

from pathlib import Path

__all__ = ["image_path"]


def image_path() -> Path:
    """Returns the 64 KiB image that QEMU runs with ``-bios``."""
    return Path(__file__).parent / "livemig-guest.bin"
