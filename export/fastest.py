"""The layout `fastest`: how it is searched, and what was found; `smx.export.searching` searches."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from smx.errors import InputError
from smx.prices import load_prices
from smx.runtime.tune.forms import Ratios
from smx.timing import BATCH_SIZES

USUAL = "sorted"
"""The layout whose forms are taken where no other is surely faster."""
MIXED = "forms"
"""The file with the form that was chosen for each layer."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the layout `fastest` is searched.

    Attributes:
        for_batch: the batch size that matters; None is 1, 16, 128 and 1024 alike, or what the file is made for.
        measure: time the forms on this machine; False lets prices decide.
        price: the price file that decides then; None is the one that comes with the package.
        provider, threads, allow_fallback: that the file will run with, see `smx.runtime.Session`.
        seconds: about how long all measurements take.

    Raises:
        InputError: a setting is not allowed.
    """

    for_batch: int | None = None
    measure: bool = True
    price: str | os.PathLike[str] | None = None
    provider: str = "cpu"
    threads: int | None = 1
    allow_fallback: bool = False
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.for_batch is not None and self.for_batch < 1:
            raise InputError(f"the batch size that fastest is searched for must be at least 1, got {self.for_batch}")
        if self.measure and self.price is not None:
            raise InputError(f"prices, as in {self.price}, decide only without measuring (measure=False, --no-measure)")
        if not self.measure:
            load_prices(self.price)  # refused now, and not after minutes

    def batch_sizes(self, batch: int | None) -> tuple[int, ...]:
        """Return the batch sizes that count for a file that is made for `batch`.

        Raises:
            InputError: the search is for another one.
        """
        if batch is not None and self.for_batch not in (None, batch):
            raise InputError(f"the file is made for batch size {batch}, so it can't be searched for {self.for_batch}")
        chosen = batch or self.for_batch
        return (chosen,) if chosen else BATCH_SIZES


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The form of a layer.

    Attributes:
        layer: its module path in PyTorch.
        form: one of `smx.prices.FORMS`, or `sorted`, which is the form that this layout has.
        ratios: by form and batch size, its time relative to the form of `sorted`, with the ends of the interval; prices
            have none, so all three are equal. Forms that would be the same operators are left out.
    """

    layer: str
    form: str
    ratios: dict[str, Ratios]


@dataclass(frozen=True, kw_only=True)
class Fastest:
    """What a search found.

    Attributes:
        file: `forms`, the file with the chosen form of each layer; or `sorted` or `scatter`, which was faster.
        measured: whether it was measured, or follows from prices.
        batch_sizes: that counted.
        layers: the form of each layer.
        ratios: by file and batch size, its time relative to that of `forms`, or of `sorted` where no layer has a form
            of its own, with the ends of the interval.
        provider, threads: that it was measured with, or that the prices hold for.
        machine: likewise, see `smx.timing.machine.machine`.
        seconds: that the search took.
    """

    file: str
    measured: bool
    batch_sizes: tuple[int, ...]
    layers: tuple[LayerChoice, ...]
    ratios: dict[str, Ratios]
    provider: str
    threads: int | None
    machine: dict[str, Any]
    seconds: float

    @property
    def layout(self) -> str:
        """The layout that the file is compiled in, with `forms`."""
        return USUAL if self.file == MIXED else self.file

    @property
    def forms(self) -> dict[str, str]:
        """The form of each layer that has another one than in `sorted`."""
        layers = self.layers if self.file == MIXED else ()
        return {each.layer: each.form for each in layers if each.form != USUAL}

    def reasons(self) -> tuple[str, ...]:
        """Return why the file is as it is, one sentence for each layer with a form of its own, and one for the file."""
        own = [each for each in self.layers if each.form != USUAL]
        lines = [
            f"{each.layer or 'the layer'} {each.form}: {_listed(each.ratios[each.form])} of sorted's" for each in own
        ]
        others = [f"{name} takes {_listed(ratios)}" for name, ratios in self.ratios.items()]
        first = "these forms" if own else "sorted"
        lines.append(f"taken: {self.file}" + f"; relative to {first} {', '.join(others)}" * bool(others))
        how = "measured on" if self.measured else "by prices of"
        processor = self.machine.get("processor") or "an unknown processor"
        lines.append(f"{how} {processor}, {self.provider}, threads: {self.threads or 'all'}")
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def _listed(ratios: Ratios) -> str:
    """Write ratios with their intervals, where they have some."""
    return ", ".join(
        f"{ratio:.3f}{'' if low == high else f' ({low:.3f}-{high:.3f})'} at batch {size}"
        for size, (ratio, low, high) in ratios.items()
    )
