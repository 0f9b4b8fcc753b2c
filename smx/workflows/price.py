"""What each activation, each further group and each form costs on this machine; the library's call for `smx price`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from smx import files
from smx.errors import InputError
from smx.paper import PAPER_POOL
from smx.prices import Prices, check_sizes
from smx.runtime.latency.runner import EachItsOwn
from smx.runtime.providers import DEVICES, execution_providers
from smx.runtime.settings import Settings
from smx.timing import BATCH_SIZES
from smx.timing.interleave import time_in_turn
from smx.timing.machine import machine
from smx.timing.runners import stopping
from smx.workflows import OnProgress, listed, silent
from smx.workflows.measuring import check_measurement, with_torch, without_torch
from smx.workflows.price_tables import prices_of

WIDTHS = (8, 64, 256, 512, 1024)
STACKS = (1, 2, 3, 4, 7, 20)
"""Layers of the networks that show what size costs: 0.6 MB each, where a core has 1 or 2 MB near it."""
BLOCKS = 3
ROUNDS = 5
"""In each block, which loads all networks anew."""
QUANTILE = 0.25
"""Of a network's times: a price is the difference of two, in which what else the machine did would count double."""


def price(
    out: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] = PAPER_POOL,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    widths: Sequence[int] = WIDTHS,
    stacks: Sequence[int] = STACKS,
    blocks: int = BLOCKS,
    rounds: int = ROUNDS,
    threads: int | None = 1,
    provider: str = "cpu",
    allow_fallback: bool = False,
    on_progress: OnProgress = silent,
) -> Prices:
    """Measure what activations, groups and forms cost on this machine, in about two minutes.

    Small networks are timed in turn (`smx.export.price_files`); prices are differences of their times. If this process
    has loaded torch, the measurement runs in another one.

    Args:
        out: where to write the price file that `smx.prices.load_prices` reads; None writes none.
        names: of the activations; ReLU and Tanh are always among them.
        batch_sizes, widths, stacks: what is measured, each in ascending order, at least two of each.
        blocks, rounds: blocks, and rounds in each; in each round every network runs a short burst.
        threads: of one operator; None is ONNX Runtime's default.
        provider, allow_fallback: see `smx.runtime.Session`.
        on_progress: see `smx.workflows.OnProgress`.

    Raises:
        InputError: the file can't be written, or a name, a size or the provider is unknown or unfit.
    """
    if out is not None:
        files.check_writable(Path(out))
        files.check_suffix(Path(out), ".json")
    execution_providers(provider)
    batch_sizes, widths, stacks = map(listed, (batch_sizes, widths, stacks))
    for what, values in {"batch sizes": batch_sizes, "widths": widths, "stacks": stacks}.items():
        check_sizes(what, values)
    if min(widths) < 1:
        raise InputError(f"widths must be whole numbers from 1 on, got {list(widths)}")
    for number in (rounds, blocks):
        check_measurement(batch_sizes, number, threads)
    before = machine()
    with files.scratch() as folder:
        on_progress("writing small networks", 0, 0)
        names, paths = with_torch(_write, folder, widths, (*listed(names), "relu", "tanh"), stacks)
        times = without_torch(
            _measure,
            paths,
            batch_sizes,
            blocks=blocks,
            rounds=rounds,
            settings=Settings(threads=threads),
            provider=provider,
            allow_fallback=allow_fallback,
            on_progress=on_progress,
        )
    here = {**machine(), "load": before["load"]}
    prices = prices_of(
        times,
        names=names,
        batch_sizes=batch_sizes,
        widths=widths,
        stacks=stacks,
        machine=here,
        provider=provider,
        threads=threads,
    )
    if out is not None:
        files.write_text(Path(out), prices.to_json())
    return prices


def _write(
    folder: Path, widths: Sequence[int], names: Sequence[str], stacks: Sequence[int]
) -> tuple[tuple[str, ...], dict[str, Path]]:
    """Write the networks; return the activations' names, in one spelling and each once, and the files."""
    from smx.activations import get
    from smx.export.price_files import write_price_files

    try:
        found = {activation.name: activation for activation in map(get, names)}
    except ValueError as error:
        raise InputError(str(error)) from error
    if without := [name for name, activation in found.items() if activation.onnx is None]:
        raise InputError(f"the activation {without[0]!r} has no ONNX form")
    return tuple(found), write_price_files(folder, widths, tuple(found), stacks)


def _measure(
    paths: Mapping[str, Path],
    batch_sizes: Sequence[int],
    *,
    blocks: int,
    rounds: int,
    settings: Settings,
    provider: str,
    allow_fallback: bool,
    on_progress: OnProgress = silent,
) -> dict[tuple[str, int], float]:
    """Return the seconds of a run of each network at each batch size: `QUANTILE` of those that were timed."""
    done, total = count(), len(batch_sizes) * blocks * rounds
    each = {
        name: EachItsOwn(path, provider, settings, io_binding=provider in DEVICES, allow_fallback=allow_fallback)
        for name, path in paths.items()
    }
    with stopping(each) as runners:
        timings = time_in_turn(
            runners,
            {size: [np.zeros(size)] for size in batch_sizes},
            blocks=blocks,
            rounds=rounds,
            rest=settings.threads != 1,
            on_progress=lambda size: on_progress(f"measuring, batch {size}", next(done), total),
        )
    return {key: 1e-6 * float(np.quantile(timings.runs(*key), QUANTILE)) for key in timings.bursts}
