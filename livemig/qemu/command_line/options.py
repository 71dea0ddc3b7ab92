"""QEMU's command line as a list of options, by the rules of QEMU's own option parser. Pure.

The tables hold the options of QEMU 7.2 to 11.1, found by asking the binaries which of them take a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from livemig.core.errors import CommandLineError

REMEDY = "give the destination's command line yourself with --dst-command"

WITHOUT_VALUE = frozenset(
    re.findall(
        r"\S+",
        """
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help jitdump mem-prealloc
    no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults nographic old-param only-migratable
    perfmap portrait preconfig s semihosting singlestep snapshot usb version win2k-hack xen-attach xen-domid-restrict
        """,
    )
)
WITH_VALUE = frozenset(
    re.findall(
        r"\S+",
        """
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat cpu d
    debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda hdb hdc hdd icount
    incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock name net netdev nic numa object
    option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest qtest-log readconfig rotate rtc
    run-with runas sandbox sd seed semihosting-config serial set shim smbios smp spice tpmdev trace usbdevice uuid vga
    virtfs vnc watchdog-action xen-domid
        """,
    )
)
IMAGE = "image"
"""The name given to an argument without a dash: QEMU takes it for the first disk's image, as ``-hda``."""


class Option(msgspec.Struct, frozen=True):
    """One option.

    Attributes:
        name: Its name without dashes; `IMAGE` for an argument that is no option.
        value: What follows it, or None for an option that takes none.
        flag: The name as it stood, with one dash or two; empty for an image.
    """

    name: str
    value: str | None
    flag: str

    @property
    def text(self) -> str:
        """The option as a person would write it, for messages."""
        return " ".join(self.argv)

    @property
    def argv(self) -> tuple[str, ...]:
        """The arguments it stands for, as they were."""
        if self.value is None:
            return (self.flag,)
        return (self.flag, self.value) if self.flag else (self.value,)


def option(name: str, value: str | None = None) -> Option:
    """Returns an option to add to a command line."""
    return Option(name, value, f"-{name}")


def parse(arguments: Sequence[str]) -> tuple[Option, ...]:
    """Reads what follows the program's name; `render` gives back exactly the same.

    Raises:
        CommandLineError: When an option is unknown, or lacks its value.
    """
    options = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            options.append(Option(IMAGE, argument, ""))
            continue
        name = argument[2:] if argument.startswith("--") else argument[1:]
        if name in WITHOUT_VALUE:
            options.append(Option(name, None, argument))
        elif name in WITH_VALUE:
            value = next(rest, None)
            if value is None:
                raise CommandLineError(f"{argument} lacks its value at the command line's end", argument=argument)
            options.append(Option(name, value, argument))
        else:
            raise CommandLineError(f"{argument!r} is no option of QEMU that livemig knows: {REMEDY}", argument=argument)
    return tuple(options)


def render(options: Sequence[Option]) -> list[str]:
    """Returns the arguments of these options."""
    return [argument for option in options for argument in option.argv]
