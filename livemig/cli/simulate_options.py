"""The options of ``livemig simulate`` that say what is simulated. Light: the simulation is imported when it runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from livemig.cli.help import Option
from livemig.cli.help_texts import UNITS
from livemig.cli.options import DURATION, RATE, SIZE

SIMULATE_EPILOG = f"""{UNITS}

\b
Exit codes:
  0  simulated, however the guest fared
  2  the options make no sense together, or the trace can't be written
\b
Examples:
  # a guest of 64 GiB over 10 Gbit/s, twenty times
  livemig simulate --memory 64GiB --working-set 1GiB --dirty-rate 500MiB/s --deadline 10min --count 20
\b
  # several stages and a link that drops, from a file (see docs/policy.md)
  livemig simulate --scenario busy.toml --prefer downtime --deadline 1min
\b
  # one migration, step by step
  livemig simulate --pattern sweep --seed 7 --trace simulated.trace
  livemig replay simulated.trace
"""

_GUEST, _LINK, _RUNS = "The guest", "The link and both QEMUs", "Runs"
_PERCENT_MOST = 300

_option = partial(click.option, cls=Option, show_default=True)


def simulated_options(command: Any) -> Any:
    """The options of guest, link and QEMUs, the seed and the count."""
    for option in reversed((*_guest_options(), *_link_options(), *_run_options())):
        command = option(command)
    return command


def _guest_options() -> list[Any]:
    option = partial(_option, heading=_GUEST)
    return [
        option("--memory", type=SIZE, default="1GiB", help="Its memory."),
        option(
            "--pattern",
            type=click.Choice(["sweep", "random", "hot", "zipf", "grow", "idle"]),
            default="random",
            help="How it writes. hot: nine writes of ten to the working set; grow: that set grows into the content.",
        ),
        option("--working-set", type=SIZE, show_default="an eighth", help="The memory that it writes to."),
        option("--dirty-rate", type=RATE, default="100MiB/s", help="How fast it writes pages."),
        option("--content", type=SIZE, show_default="three quarters", help="Memory that is more than zeros."),
        option("--burst-period", type=DURATION, default="0s", help="From one burst's begin to the next; 0s is none."),
        option(
            "--burst-duty",
            type=click.FloatRange(1, 100),
            default=50,
            help="The burst's share of that, in percent.",
        ),
        option(
            "--variation",
            type=click.FloatRange(0, _PERCENT_MOST),
            default=0,
            help="How much its rate wavers, in percent.",
        ),
        option("--accelerator", type=click.Choice(["kvm", "tcg"]), default="kvm", help="How QEMU runs it."),
    ]


def _link_options() -> list[Any]:
    option = partial(_option, heading=_LINK)
    return [
        option("--link", type=RATE, default="10Gbit/s", help="What the link carries."),
        option(
            "--link-noise",
            type=click.FloatRange(0, _PERCENT_MOST),
            default=0,
            help="How much that wavers, in percent.",
        ),
        option("--latency", type=DURATION, default="100us", help="One way."),
        option(
            "--fixed-downtime",
            type=DURATION,
            show_default="a small guest's",
            help="What a switchover takes besides sending pages.",
        ),
        option("--qemu", type=click.Choice(["7.2", "10.0", "11.1"]), default="10.0", help="The version of both."),
    ]


def _run_options() -> list[Any]:
    option = partial(_option, heading=_RUNS)
    return [
        option(
            "--scenario",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Take guest, link and QEMUs from a TOML FILE instead: stages, outages and more than options can say.",
        ),
        option("--seed", type=click.IntRange(min=0), default=1, help="The same seed gives the same run."),
        option(
            "--count",
            type=click.IntRange(1, 10_000),
            default=1,
            help="How many, with one seed after the other; shown are the middle, the least and the most.",
        ),
    ]
