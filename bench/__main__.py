"""``python -m bench``: the benchmarks by name."""

from __future__ import annotations

import click

from bench.dirtyring import dirtyring
from bench.footprint import footprint
from bench.pingpong import pingpong
from bench.startup import startup
from bench.switchover import switchover

EXAMPLES = """\b
Examples:
  # how much livemig adds to a switchover: 200 of them, some two minutes
  python -m bench switchover
\b
  # the same under KVM, the guest writing to its memory, kept for later comparison
  python -m bench switchover --accelerator kvm --workload loaded --output kvm.json
\b
  # fifty moves of a busy guest, all its memory checked after each
  python -m bench pingpong
\b
Exit codes:
  0    measured; every target was reached
  1    measured; a target was missed, or memory was lost
  2    could not be measured; one line says why
  130  ended by Ctrl-C; what had been measured by then is shown
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXAMPLES,
)
def bench() -> None:
    """Measures livemig on this machine, with its built-in guest. Needs QEMU, no root.

    Each benchmark prints a table, or with --json one object; other work on the machine shows in the figures.
    """


for command in (switchover, startup, footprint, pingpong, dirtyring):
    bench.add_command(command)

if __name__ == "__main__":
    bench(prog_name="python -m bench")
