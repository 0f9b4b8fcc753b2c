"""From the times of the small networks of `smx.export.price_files` to prices: differences of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from smx.prices import BOTH, CURVES, EXPONENTIAL, LINES, Prices, Table

OUTPUTS, STACKED, PARTS = 4, 512, 6
"""As in `smx.export.price_files`, which loads torch."""


def prices_of(
    times: Mapping[tuple[str, int], float],
    *,
    names: Sequence[str],
    batch_sizes: tuple[int, ...],
    widths: tuple[int, ...],
    stacks: tuple[int, ...],
    machine: dict[str, Any],
    provider: str,
    threads: int | None,
) -> Prices:
    """Return the prices.

    Args:
        times: seconds of a run, by network and batch size; `write_price_files` says what the networks are.
        names: of the activations.
        batch_sizes, widths, stacks: that were measured.
        machine, provider, threads: see `Prices`.
    """

    def table(of: Callable[[int], tuple[str, str]], sizes: Sequence[int] = widths) -> Table:
        """Return the difference of two networks' times, (batch sizes, sizes); `of` gives their names for a size."""
        pairs = [of(size) for size in sizes]
        return np.array([[times[more, batch] - times[less, batch] for more, less in pairs] for batch in batch_sizes])

    def each(form: str, of: Sequence[str], less: str) -> dict[str, Table]:
        return {name: table(lambda w: (f"{form} {name} {w}", f"{less} {w}")) for name in of}  # noqa: B023

    dense = [table(lambda w: (f"dense {v} {w}", f"head {w}")) for v in widths]  # noqa: B023
    prices = Prices(
        machine=machine,
        provider=provider,
        threads=threads,
        batch_sizes=batch_sizes,
        widths=widths,
        dense=np.stack(dense, axis=1),
        weights=(0, *(STACKED * (n * STACKED + OUTPUTS) for n in stacks)),
        network=np.zeros((len(batch_sizes), 1 + len(stacks))),
        fused=each("fused", names, f"dense {OUTPUTS}"),
        own=each("own", names, "head"),
        shared=each("shared", (*EXPONENTIAL, LINES, CURVES, BOTH), "head"),
        split=table(lambda w: (f"split {w}", f"head {w}")),
        part=table(lambda w: (f"parts {w}", f"split {w}")) / (PARTS - 2),
        move=table(lambda w: (f"move {w}", f"own relu {w}")),
    )
    tanh = np.array([[prices.operator("tanh", w // 2, batch) for w in widths] for batch in batch_sizes])
    # What is left of the smallest network without its one layer, and of the large ones without theirs.
    start = [[times[f"head {widths[0]}", b] - prices.linear(widths[0], OUTPUTS, b)] for b in batch_sizes]
    layer = table(lambda _: (f"dense {STACKED} {STACKED}", f"head {STACKED}"), (STACKED,))
    beyond = table(lambda n: (f"stack {n}", f"head {STACKED}"), stacks) - layer * np.array(stacks)
    network = np.array(start) + np.concatenate([np.zeros((len(batch_sizes), 1)), beyond], axis=1)
    return replace(prices, network=network, move=prices.move - tanh)
