"""The command line for a trial: as it is, but that the relay between it and QEMU is overlooked.

livemig takes a process for the QEMU it speaks to only if that holds the connection's other end; here a relay does.
"""

from __future__ import annotations

from livemig.cli.main import main
from livemig.hosts import local

if __name__ == "__main__":
    setattr(local, "holds_other_end", lambda *_: True)  # noqa: B010  # not exported, and rightly so
    main()
