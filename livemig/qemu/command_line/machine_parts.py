"""Parts of a machine that the destination can't take over as they stand. Pure.

Memory in files, host devices, processes beside QEMU, passed descriptors: refused by name, unless ``--map`` or
``--dst-set`` gives it others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from livemig.qemu.command_line.properties import is_on
from livemig.qemu.command_line.rewriting import Entry, Rewriting

_FD_KEYS = frozenset({"fd", "fds", "vhostfd", "vhostfds", "sockfd"})
_FDSET = re.compile(r"/dev/fdset/")
_REFUSED_OPTIONS = {
    "add-fd": "passed descriptors can't be opened again: name their files with --dst-command",
    "chroot": "its paths are inside another root: give the whole line with --dst-command",
    "preconfig": "what was said by QMP before the machine was made is not in it: use --dst-command",
    "snapshot": "the disks' changes are in temporary files of the source alone: commit them, and start it without",
    "xen-attach": "a Xen domain can't be moved by QMP: use Xen's own tools",
    "xen-domid": "a Xen domain can't be moved by QMP: use Xen's own tools",
}


def backend_chardevs(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """Yields the chardevs behind which another process keeps a part of the machine, and what that part is."""
    for entry in entries:
        chardev = entry.get("chardev")
        kind = _kind(entry)
        if chardev is None:
            continue
        if entry.name == "tpmdev" and kind == "emulator":
            yield chardev, "swtpm (-tpmdev emulator)"
        elif entry.name in ("netdev", "nic", "net") and kind == "vhost-user":
            yield chardev, "vhost-user"
        elif entry.name in ("device", "object") and "vhost-user" in kind:
            yield chardev, kind


def refuse_option(rewriting: Rewriting, entry: Entry) -> bool:
    """Refuses an option that can't stand at a destination; returns whether it did."""
    reason = _REFUSED_OPTIONS.get(entry.name)
    if reason is not None:
        rewriting.refuse(entry.option.text, reason)
    return reason is not None


def refuse_descriptors(rewriting: Rewriting, entry: Entry) -> None:
    """Refuses what still names a descriptor after taps and listening sockets were opened anew."""
    if entry.value is not None and _FDSET.search(entry.value):
        rewriting.refuse(entry.option.text, "it names a passed descriptor: name its file with --dst-command")
        return
    for key, value in entry.properties.items():
        last = key.rpartition(".")[2]
        by_type = last == "type" and value == "fd" and key != "type"
        if ((last in _FD_KEYS and value) or by_type) and key not in entry.settled:
            reason = f"its descriptor ({key}={value}) was passed by whoever started the source: use --dst-command"
            rewriting.refuse(entry.option.text, reason)
            return


def check_device(rewriting: Rewriting, entry: Entry) -> None:
    """Refuses a device that stands for a piece of this host which the source holds."""
    driver = entry.get("driver") or ""
    if driver.startswith("ivshmem-doorbell"):
        rewriting.refuse(entry.option.text, "its memory belongs to an ivshmem server: unplug it before")
    if not rewriting.request.same_host:
        return
    held = _held_by_source(driver)
    if held is None:
        return
    value = next((entry.get(key) for key in held if entry.get(key) is not None), None)
    if value is None or entry.settled & set(held) or rewriting.is_mapped(value):
        return
    name = entry.get("id")
    remedy = f"give another with --dst-set {name}.{held[0]}=VALUE" if name else "use --dst-command"
    rewriting.refuse(entry.option.text, f"the source holds {held[0]}={value} on this host: {remedy}")


def check_drive(rewriting: Rewriting, entry: Entry) -> None:
    """Refuses a drive whose changes are in a temporary file of the source."""
    if is_on(entry.get("snapshot")):
        rewriting.refuse(entry.option.text, "its changes are in a temporary file of the source alone: commit them")


def check_memory_file(rewriting: Rewriting, entry: Entry) -> None:
    """Refuses a file that both sides would map: the destination would overwrite the running guest's memory."""
    path = entry.get("mem-path")
    if entry.get("qom-type") != "memory-backend-file" or path is None or not rewriting.request.same_host:
        return
    private = not is_on(entry.get("share")) or is_on(entry.get("readonly"))
    own = "mem-path" in entry.settled or rewriting.is_mapped(path)
    if private or own or rewriting.request.absolute(path) in rewriting.request.folders:
        return
    reason = "both QEMUs would write to one memory, and the running guest's would be overwritten"
    rewriting.refuse(
        f"-object memory-backend-file,id={entry.get('id')}", f"{reason}: give a fresh file with --map {path}=NEW"
    )


def _held_by_source(driver: str) -> tuple[str, ...] | None:
    if driver.startswith("vfio-"):
        return ("host", "sysfsdev")
    if driver.startswith("vhost-vsock"):
        return ("guest-cid",)
    if driver.startswith("vhost-scsi"):
        return ("wwpn",)
    if driver.startswith("vhost-vdpa"):
        return ("vhostdev",)
    return None


def _kind(entry: Entry) -> str:
    return entry.get({"device": "driver", "object": "qom-type"}.get(entry.name, "type")) or ""
