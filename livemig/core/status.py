"""What QEMU says of itself, as closed sets: run states and migration statuses of 7.2, 10.0 and 11.1.

Decides nothing; the names are QEMU's own (qapi/run-state.json, qapi/migration.json).
"""

from enum import StrEnum


class RunState(StrEnum):
    """``query-status``'s ``status``, of a QEMU that answered."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    INMIGRATE = "inmigrate"
    FINISH_MIGRATE = "finish-migrate"
    POSTMIGRATE = "postmigrate"
    PRELAUNCH = "prelaunch"
    SHUTDOWN = "shutdown"
    IO_ERROR = "io-error"
    WATCHDOG = "watchdog"
    GUEST_PANICKED = "guest-panicked"
    INTERNAL_ERROR = "internal-error"
    DEBUG = "debug"
    RESTORE_VM = "restore-vm"
    SAVE_VM = "save-vm"
    COLO = "colo"
    UNKNOWN = "unknown"
    """A state that this livemig does not know: nothing destructive follows from it."""

    @classmethod
    def _missing_(cls, _value: object) -> "RunState":
        return cls.UNKNOWN


class MigrationStatus(StrEnum):
    """``query-migrate``'s ``status``; ``NONE`` when QEMU gives none (7.2 on a destination that listens)."""

    NONE = "none"
    SETUP = "setup"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ACTIVE = "active"
    POSTCOPY_DEVICE = "postcopy-device"
    POSTCOPY_ACTIVE = "postcopy-active"
    POSTCOPY_PAUSED = "postcopy-paused"
    POSTCOPY_RECOVER_SETUP = "postcopy-recover-setup"
    POSTCOPY_RECOVER = "postcopy-recover"
    COMPLETED = "completed"
    FAILING = "failing"
    FAILED = "failed"
    COLO = "colo"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    WAIT_UNPLUG = "wait-unplug"
    UNKNOWN = "unknown"
    """A status that this livemig does not know: keep observing."""

    @classmethod
    def _missing_(cls, _value: object) -> "MigrationStatus":
        return cls.UNKNOWN
