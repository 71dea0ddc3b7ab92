"""``python -m bench``: the benchmarks by name."""

from __future__ import annotations

from typing import Any

import click

from bench.channel import channel
from bench.decisions import decisions
from bench.dirtyring import dirtyring
from bench.footprint import footprint
from bench.forecast import forecast
from bench.forecast_cost import forecastcost
from bench.handover import handover
from bench.journal import journal
from bench.pingpong import pingpong
from bench.policies import policies
from bench.policies_real import policies_real
from bench.runner import CouldNotMeasure
from bench.simulation import simulation
from bench.startup import startup
from bench.switchover import switchover
from livemig.core.errors import LivemigError

EXAMPLES = """\b
Examples:
  # how much livemig adds to a switchover: 200 of them, in a minute or two
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


class Benchmarks(click.Group):
    """The benchmarks by name; what can't be measured is one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the one that was chosen.

        Raises:
            CouldNotMeasure: When what was asked makes no sense.
        """
        try:
            return super().invoke(ctx)
        except LivemigError as error:
            raise CouldNotMeasure(str(error)) from error


@click.group(
    cls=Benchmarks,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXAMPLES,
)
def bench() -> None:
    """Measures livemig on this machine, with its built-in guest. Needs QEMU; `handover` and `channel` need root.

    Each benchmark prints a table, or with --json one object; other work on the machine shows in the figures.
    """


BENCHMARKS = (
    switchover,
    startup,
    footprint,
    pingpong,
    journal,
    dirtyring,
    simulation,
    forecast,
    forecastcost,
    handover,
    channel,
    policies,
    policies_real,
    decisions,
)

for command in BENCHMARKS:
    bench.add_command(command)

if __name__ == "__main__":
    bench(prog_name="python -m bench")
