"""Which of several files that do the same is fastest: measured in turn, decided beyond noise.

The decisions are functions of ratios alone. A ratio is that of two files' times in the same rounds, with the ends of
its confidence interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from smx.runtime.latency.runner import EachItsOwn
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import ratio
from smx.timing.interleave import BURST_SECONDS, MAX_BURST, WINDOW, Timings, time_in_turn
from smx.timing.runners import stopping

ROUNDS = 4
"""In each block."""
MIN_BLOCKS, MAX_BLOCKS = 3, 10

SAME = 0.01
"""What is slower by no more than this may have the same speed."""

Ratio = tuple[float, float, float]
"""A ratio of times, and the ends of its confidence interval."""
Ratios = dict[int, Ratio]
"""By batch size."""


def beats(ratios: Ratios) -> bool:
    """Whether a file is surely faster than another at one batch size at least, and seems slower at none."""
    return wins_somewhere(ratios) and all(middle <= 1 + SAME and low <= 1 for middle, low, _ in ratios.values())


def wins_somewhere(ratios: Ratios) -> bool:
    """Whether a file is surely faster than another at one batch size at least."""
    return any(high < 1 for _, _, high in ratios.values())


def mean(ratios: Ratios) -> float:
    """Return the geometric mean over the batch sizes."""
    return math.exp(sum(math.log(middle) for middle, _, _ in ratios.values()) / len(ratios))


def best_form(to_usual: Mapping[str, Ratios]) -> str | None:
    """Return the form that beats the usual one by the most; None if none does.

    Args:
        to_usual: for each other form, its ratios to the usual one.
    """
    sure = [form for form, ratios in to_usual.items() if beats(ratios)]
    return min(sure, key=lambda form: mean(to_usual[form]), default=None)


def unbeaten(candidates: Sequence[str], rivals: Sequence[str], ratios: Callable[[str, str], Ratios]) -> str:
    """Return the first candidate that no rival surely undercuts at any batch size.

    If each is undercut somewhere, no file is best at all batch sizes: then the one with the smallest mean is returned.

    Args:
        candidates: files, the preferred one first.
        rivals: some of them.
        ratios: of the first file's times to the second's.
    """
    for candidate in candidates:
        if not any(wins_somewhere(ratios(rival, candidate)) for rival in rivals if rival != candidate):
            return candidate
    return min(candidates, key=lambda name: 1.0 if name == candidates[0] else mean(ratios(name, candidates[0])))


def ratios_of(timings: Timings, name: str, baseline: str, batch_sizes: Sequence[int]) -> Ratios:
    """Return the ratios of two files' medians."""
    return {size: ratio("p50", timings, name, baseline, size) for size in batch_sizes}


def time_files(
    paths: Mapping[str, Path],
    batch_sizes: Sequence[int],
    *,
    provider: str,
    threads: int | None,
    seconds: float,
    allow_fallback: bool = False,
) -> Timings:
    """Time files in turn, each on random inputs of its own.

    This process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808).

    Args:
        paths: by name.
        batch_sizes: examples a run.
        provider, threads, allow_fallback: see `smx.runtime.Session`.
        seconds: about how long it may take. More blocks are measured in more time, but at least `MIN_BLOCKS`.

    Raises:
        InputError: a file can't be loaded or run, or takes no input of this batch size.
    """
    settings = Settings(threads=threads)
    # Bound outputs stay where they are; copying those of a whole layer would take longer than its activations.
    each = {
        name: EachItsOwn(path, provider, settings, io_binding=True, allow_fallback=allow_fallback)
        for name, path in paths.items()
    }
    inputs = {size: [np.zeros(size)] for size in batch_sizes}
    with stopping(each) as runners:
        blocks = blocks_within(seconds, sum(_block_seconds(runner, batch_sizes) for runner in runners.values()))
        return time_in_turn(runners, inputs, blocks=blocks, rounds=ROUNDS, rest=threads != 1)


def blocks_within(seconds: float, each: float) -> int:
    """Return how many blocks of `each` seconds are measured in about `seconds`."""
    return min(MAX_BLOCKS, max(MIN_BLOCKS, int(seconds / each)))


def _block_seconds(runner: EachItsOwn, batch_sizes: Sequence[int]) -> float:
    """Return about how long a file takes in one block: to load, warm up, and run its bursts."""
    total = runner.start() or 0.0
    for size in batch_sizes:
        runner.prepare([np.zeros(size)])
        one = 1e-6 * float(np.median(runner.time(3)))
        total += (2 * WINDOW + ROUNDS) * (one + max(one, min(BURST_SECONDS, MAX_BURST * one)))
    return total
