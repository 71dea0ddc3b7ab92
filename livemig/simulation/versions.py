"""The rules by which QEMU's versions differ where a simulation shows it, as data.

Read in the sources of 7.2.22 and 10.0.2 (``migration/migration.c``, ``migration/ram.c``, ``migration/qemu-file.c``); of
11.1 by its recorded events and traces.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from livemig.core.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping


class QemuRules(msgspec.Struct, frozen=True, kw_only=True):
    """How one version behaves.

    Attributes:
        version: As its users call it.
        counts_buffered: A slot's quota counts each page as it is put into the buffer. Else only what was flushed, 32
            pages at a time, so that a slot lets through up to 128 KiB too much.
        threshold_suffices: What is pending may equal the threshold; else it must be less, or nothing at all.
        announces_first_sync: The sync of the setup gives a MIGRATION_PASS.
        counts_last_sync: The sync after STOP is counted, and gives one too.
        says_device: From STOP on the status is ``device``; else only where ``pre-switchover`` came before it.
        takes_bandwidth: There is ``avail-switchover-bandwidth``.
        tells_pending: ``query-migrate`` says what was pending at QEMU's own last look.
        says_failing: ``failing`` comes before ``failed``.
    """

    version: str
    counts_buffered: bool = False
    threshold_suffices: bool = False
    announces_first_sync: bool = True
    counts_last_sync: bool = True
    says_device: bool = True
    takes_bandwidth: bool = True
    tells_pending: bool = False
    says_failing: bool = False

    def looks_exactly(self, estimate_bytes: int, threshold_bytes: int) -> bool:
        """Whether QEMU syncs its bitmap, by what it holds to be left."""
        return estimate_bytes < threshold_bytes or (self.threshold_suffices and estimate_bytes == threshold_bytes)

    def switches_over(self, pending_bytes: int, threshold_bytes: int) -> bool:
        """Whether QEMU stops the guest, by what is left.

        With a threshold of 0, as in the first 100 ms, 7.2 and 10.0 never sync: they stop the guest when all was sent
        once, with everything it dirtied meanwhile still to send.
        """
        if self.threshold_suffices:
            return pending_bytes <= threshold_bytes
        return pending_bytes == 0 or pending_bytes < threshold_bytes


RULES: Mapping[str, QemuRules] = MappingProxyType(
    {
        "7.2": QemuRules(version="7.2", counts_buffered=True, says_device=False, takes_bandwidth=False),
        "10.0": QemuRules(version="10.0"),
        "11.1": QemuRules(
            version="11.1",
            threshold_suffices=True,
            announces_first_sync=False,
            counts_last_sync=False,
            tells_pending=True,
            says_failing=True,
        ),
    }
)


def rules_of(version: str) -> QemuRules:
    """Returns the rules of a version.

    Raises:
        PlanError: When they are not known.
    """
    rules = RULES.get(version)
    if rules is None:
        raise PlanError(f"there is no simulation of QEMU {version}: give {', '.join(RULES)}")
    return rules
