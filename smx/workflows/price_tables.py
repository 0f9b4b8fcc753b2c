"""From the times of the small networks of `smx.export.price_files` to prices: differences of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from smx.prices import BOTH, CURVES, ENDS, EXPONENTIAL, LEAST, LINES, MIXTURE, PARTS, STACKED, Prices, Table

CROWDED = (0.5, 4.0)
"""What is measured outside of this is noise."""


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

    # What a network takes beyond its layers if its weights do not fit into the processor's nearest memory.
    weights = (0, *(STACKED * (n * STACKED + 2 * ENDS) for n in stacks))
    layer = table(lambda _: ("stack 1", "stack 0"), (STACKED,))
    beyond = table(lambda n: (f"stack {n}", "stack 0"), stacks) - layer * np.array(stacks)
    beyond = np.concatenate([np.zeros((len(batch_sizes), 1)), beyond], axis=1)
    # Of a network with one more layer, what its last layer takes more than that of the other network is taken off.
    last = table(lambda w: (f"head {w}", f"head {widths[0]}"))
    dense = [table(lambda w: (f"dense {v} {w}", f"plain {v}")) - last + last[:, i, None] for i, v in enumerate(widths)]  # noqa: B023
    held = np.outer(widths, widths) + ENDS * np.add.outer(
        widths, widths
    )  # weights, of which the largest take more, too
    prices = Prices(
        machine=machine,
        provider=provider,
        threads=threads,
        batch_sizes=batch_sizes,
        widths=widths,
        dense=np.stack(dense, axis=1) - [np.interp(held, weights, row.clip(0)) for row in beyond],
        weights=weights,
        network=beyond,
        crowded=np.ones_like(beyond),
        fused=each("fused", names, "plain"),
        own=each("own", names, "split"),
        shared=each("shared", (*EXPONENTIAL, LINES, CURVES, BOTH), "split"),
        split=table(lambda w: (f"split {w}", f"plain {w}")),
        part=table(lambda w: (f"parts {w}", f"split {w}")) / (PARTS - 2),
        move=table(lambda w: (f"move {w}", f"plain {w}")),
    )
    besides = [
        [prices.operator("relu", w, b) + prices.operator("tanh", w // 2, b) for w in widths] for b in batch_sizes
    ]
    mixture = dict.fromkeys(MIXTURE, STACKED // len(MIXTURE))
    alone = np.array([[prices.activations(mixture, batch_size=b, form="shared")] for b in batch_sizes])
    inside = table(lambda n: (f"mixed {n}", f"stack {n}"), stacks) / (1 + np.array(stacks))
    crowded = np.clip(np.concatenate([alone, inside], axis=1) / alone.clip(LEAST), *CROWDED)
    # What is left of the smallest network without its layers.
    w = widths[0]
    start = [[times[f"plain {w}", b] - prices.linear(ENDS, w, b) - prices.linear(w, ENDS, b)] for b in batch_sizes]
    return replace(prices, network=beyond + np.array(start), crowded=crowded, move=prices.move - np.array(besides))
