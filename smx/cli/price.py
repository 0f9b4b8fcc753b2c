"""`smx price`: what each activation, each further group and each form costs on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from smx import limits
from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.cli.progress import progress
from smx.paper import PAPER_POOL

NEURONS = 256
"""Of the layers that the table shows."""


class Threads(click.IntRange):
    """`all`, which becomes None, or a whole number from 1."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show both."""
        return "all|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        return None if value == "all" else super().convert(value, param, ctx)


@click.command(cls=options.Command)
@click.option(
    "--out", type=options.OutputPath(".json"), metavar="FILE.json", help="Write the price file that --price reads."
)
@click.option(
    "--batch-sizes",
    type=options.BATCH_SIZES,
    default=options.USUAL_BATCH_SIZES,
    help="Examples a run; prices between are a line.",
)
@click.option(
    "--pool",
    "names",
    type=options.Commas(empty=False),
    default=",".join(PAPER_POOL),
    metavar="NAME,...",
    help="The activations that are measured.",
)
@click.option("--widths", type=options.WIDTHS, default="8,64,256,512,1024", help="Neurons of the layers.")
@click.option("--threads", type=Threads(1, limits.THREADS), default="1", help="Threads of one operator.")
@options.session
@click.option(
    "--rounds",
    type=options.ROUNDS,
    default=5,
    metavar="N",
    help="Rounds of each of three blocks, in each of which every network runs a short burst.",
)
@options.json
def price(json_path: str | None, **given: Any) -> None:
    """Measure what activations, groups and forms of a layer cost on this machine.

    Small networks are timed in turn for about two minutes; prices are differences of their times. The file says which
    machine, provider and number of threads it holds for.

    \b
    smx price --out prices.json
    """
    from smx.timing.machine import busy
    from smx.workflows.price import price

    with progress() as show:
        prices = price(on_progress=show, **given)
    people = write_json(json_path, json.loads(prices.to_json()))
    rows = []
    for name in sorted(prices.fused, key=lambda name: prices.relative((name,))[0]):
        ratios = (prices.relative((name,), neurons=NEURONS, batch_size=size)[0] for size in prices.batch_sizes)
        rows.append((name, *(f"{ratio:.3f}" for ratio in ratios)))
    headings = ("activation", *(f">batch {size}" for size in prices.batch_sizes))
    title = f"{prices.machine['processor']}, {prices.provider}, {prices.threads or 'all'} threads"
    caption = f"time of a layer of {NEURONS} neurons and inputs, relative to ReLU's"
    people.print(table(headings, rows, title=title, caption=caption))
    halves = {"tanh": NEURONS // 2, "relu": NEURONS - NEURONS // 2}
    more = []
    for size in prices.batch_sizes:
        one, two = (
            prices.activations(groups, batch_size=size, form="operators") for groups in ({"tanh": NEURONS}, halves)
        )
        more.append(f"{1e6 * (two - one):.1f} at batch {size}")
    people.print(f"microseconds that half ReLU, half Tanh take more than Tanh: {', '.join(more)}", soft_wrap=True)
    if given["out"]:
        people.print(f"written to {given['out']}")
    if sentence := busy(prices.machine):
        logs().print(f"Warning: {sentence}", soft_wrap=True)
