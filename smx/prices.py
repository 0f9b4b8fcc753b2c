"""What one machine takes for each activation, each further group and each form of a layer; `smx price` measures it.

A price is seconds. A network costs what its layers cost, and what it takes beyond them (`Prices.network`). A layer
costs its Gemm and its activations, which depend on the form in which the exporter writes them (`FORMS`,
docs/layouts.md). Each price was measured for a few sizes; between and beyond these it is interpolated linearly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx import files
from smx.errors import InputError
from smx.schema import Count, Index, Text, checked, from_json, without_header

FORMAT = "smx-prices"
VERSION = 1
"""Of the file's layout. A later release may write a higher one."""

FORMS = ("operators", "shared", "joined", "in place")
"""How a mixed layer can be written, see docs/layouts.md; the layout `sorted` has the form `shared`."""

EXPONENTIAL = ("elu", "selu")
HINGES = ("leaky_relu", "relu", *EXPONENTIAL)
"""The activations that have a common form, see `smx.hinges`."""
LINES, CURVES, BOTH = "lines", "curves", "lines and curves"
"""Under which the common form has its price where neurons of different activations are computed together: ReLU and
Leaky ReLU; activations with an exponential, and ReLU; all of them."""
ENDS = 4
"""Outputs of every network that is timed, and inputs of most: few, because ONNX Runtime copies them."""
STACKED = 384
"""Neurons of each layer in the networks whose size matters."""
PARTS = 6
"""As many groups are divided and joined in the networks `parts`."""
MIXTURE = ("tanh", "relu", "elu", "selu")
"""Activations of a layer in a large network, with about as many neurons each."""

RIDERS = 32
"""As in `smx.export.passes.lower_to_sorted`."""

LEAST = 1e-9
"""Seconds: a layer that seems to take less was measured too roughly."""

MOST = 1e4
"""Seconds: no run of a layer takes so long, and no ratio is so large."""

Table = NDArray[np.float64]
"""Seconds, (batch sizes, widths)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """What one machine takes, in seconds, all float64.

    Attributes:
        machine: see `smx.timing.machine.machine`.
        provider: see `smx.runtime.providers.PROVIDERS`.
        threads: of one operator; None is ONNX Runtime's default.
        batch_sizes, widths: the sizes that were measured, in ascending order; at least two of each.
        dense: a Linear layer without activation, (batch sizes, inputs, neurons), for `widths` inputs and neurons.
        weights: the numbers of weights for which `network` was measured.
        network: what a network takes beyond its layers, (batch sizes, weights). One whose weights are too many for the
            processor's nearest memory takes more.
        crowded: how many times as long activations take in a network with so many weights, (batch sizes, weights). What
            an operator needs has then left the nearest memory before its turn.
        fused: an activation that the whole layer has, by ONNX's own operator, which ONNX Runtime may compute together
            with the Gemm.
        own: an activation by ONNX's own operator, of n neurons, as an operator of its own.
        shared: an activation in the common form, of n neurons, or several of them together: `LINES`, `CURVES`, `BOTH`.
        split: Split and Concat of a layer of n neurons in two groups.
        part: each further group, in a layer of n neurons.
        move: Gather and ScatterElements of half of the n neurons of a layer.
    """

    machine: dict[str, Any]
    provider: str
    threads: int | None
    batch_sizes: tuple[int, ...]
    widths: tuple[int, ...]
    dense: Table = field(repr=False)
    weights: tuple[int, ...]
    network: Table = field(repr=False)
    crowded: Table = field(repr=False)
    fused: dict[str, Table] = field(repr=False)
    own: dict[str, Table] = field(repr=False)
    shared: dict[str, Table] = field(repr=False)
    split: Table = field(repr=False)
    part: Table = field(repr=False)
    move: Table = field(repr=False)

    def predict(
        self, layers: Sequence[Mapping[str, int]], *, inputs: int, outputs: int, batch_size: int, form: str = "shared"
    ) -> float:
        """Predict the seconds of one run of a multilayer perceptron.

        Args:
            layers: for each hidden layer, how many neurons have each activation.
            inputs, outputs: of the network; the last layer has no activation.
            batch_size: examples a run.
            form: of all layers, one of `FORMS`.
        """
        sizes = [inputs, *(sum(groups.values()) for groups in layers), outputs]
        pairs = list(pairwise(sizes))
        weights = sum(a * b for a, b in pairs)
        total = self._at(self.network, self.weights, weights, batch_size)
        total += sum(self.linear(a, b, batch_size) for a, b in pairs)
        alone = sum(self.activations(groups, batch_size=batch_size, form=form) for groups in layers)
        # The factor is not extrapolated: more than too small a memory there is not.
        return total + alone * self._at(self.crowded, self.weights, min(weights, self.weights[-1]), batch_size)

    def linear(self, inputs: int, neurons: int, batch_size: int) -> float:
        """Return the seconds of a Linear layer without activation."""
        of_batch = _between(self.dense, self.batch_sizes, batch_size)
        return max(0.0, float(_between(_between(of_batch, self.widths, inputs), self.widths, neurons)))

    def activations(self, groups: Mapping[str, int], *, batch_size: int, form: str) -> float:
        """Return the seconds of a layer's activations: of its groups, and of what divides and joins them.

        Args:
            groups: how many neurons have each activation.
            batch_size: examples a run.
            form: one of `FORMS`.
        """
        if form not in FORMS:
            raise InputError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        neurons = sum(groups.values())
        runs, moved = _runs(groups, form)
        if len(runs) == 1 and not moved:
            (names, _) = runs[0]
            return self._run(names, neurons, batch_size, form, alone=True)
        total = sum(self._run(names, size, batch_size, form) for names, size in (*runs, *moved))
        divided = moved if moved else runs
        if len(divided) > 1:
            whole = sum(size for _, size in divided)
            total += self._width(self.split, whole, batch_size)
            total += (len(divided) - 2) * self._width(self.part, whole, batch_size)
        return total + (self._width(self.move, 2 * sum(size for _, size in moved), batch_size) if moved else 0.0)

    def layer(self, groups: Mapping[str, int], *, inputs: int, batch_size: int, form: str) -> float:
        """Return the seconds of a Linear layer with its activations, at least `LEAST`; see `activations`."""
        linear = self.linear(inputs, sum(groups.values()), batch_size)
        return max(LEAST, linear + self.activations(groups, batch_size=batch_size, form=form))

    def operator(self, name: str, neurons: int, batch_size: int) -> float:
        """Return the seconds of an activation of so many neurons, by ONNX's own operator after a Split or a Gather."""
        return self._run((name,), neurons, batch_size, "operators")

    def best_form(
        self, groups: Mapping[str, int], *, inputs: int, batch_sizes: Sequence[int], usual: str = "shared"
    ) -> str:
        """Return the form in which a layer takes the least time, on the geometric mean of these batch sizes.

        Of several it is `usual`.
        """

        def time(form: str) -> float:
            return float(
                np.mean([np.log(self.layer(groups, inputs=inputs, batch_size=b, form=form)) for b in batch_sizes])
            )

        return min(FORMS, key=lambda form: (time(form), form != usual))

    def relative(self, names: Sequence[Any], *, neurons: int = 256, batch_size: int | None = None) -> tuple[float, ...]:
        """Return the price of a neuron of each activation, relative to ReLU's.

        It is the time of a layer whose neurons all have the activation, in its fastest form, relative to the same layer
        with ReLU; so it contains the layer's weights.

        Args:
            names: of activations, or these. One that was not measured costs as the dearest.
            neurons: of the layer, and its inputs.
            batch_size: examples a run; None is the geometric mean over those that were measured.
        """
        if isinstance(names, str):
            raise InputError(f"names must be a sequence of activations, got the text {names!r}")
        names = [str(getattr(name, "name", name)) for name in names]
        sizes = self.batch_sizes if batch_size is None else (batch_size,)

        def time(name: str) -> float:
            return float(np.mean([np.log(self._fastest(name, neurons, size)) for size in sizes]))

        relu = time("relu")
        prices = {name: float(np.exp(time(name) - relu)) for name in self.fused}
        return tuple(prices.get(name, max(prices.values())) for name in names)

    def to_json(self) -> str:
        """Return the content of a price file."""
        values = {name: _plain(value) for name, value in asdict(self).items()}
        return json.dumps({"format": FORMAT, "version": VERSION, **values}, indent=None, ensure_ascii=False) + "\n"

    def _fastest(self, name: str, neurons: int, batch_size: int) -> float:
        forms = ("operators", "shared")
        times = (self.layer({name: neurons}, inputs=neurons, batch_size=batch_size, form=form) for form in forms)
        return min(times)

    def _run(self, names: tuple[str, ...], neurons: int, batch_size: int, form: str, *, alone: bool = False) -> float:
        """Return the seconds of neurons that are computed together, see `_runs`."""
        if len(names) > 1:
            curved = any(name in EXPONENTIAL for name in names)
            prices, name = self.shared, (BOTH if "leaky_relu" in names else CURVES) if curved else LINES
        elif form != "operators" and names[0] in EXPONENTIAL:
            prices, (name,) = self.shared, names
        else:
            prices, (name,) = self.fused if alone else self.own, names
        tables = [prices[name]] if name in prices else list(prices.values())
        return max(self._width(table, neurons, batch_size) for table in tables)

    def _width(self, table: Table, neurons: int, batch_size: int) -> float:
        return self._at(table, self.widths, neurons, batch_size)

    def _at(self, table: Table, sizes: Sequence[int], size: int, batch_size: int) -> float:
        return max(0.0, float(_between(_between(table, self.batch_sizes, batch_size), sizes, size)))


Runs = list[tuple[tuple[str, ...], int]]
"""Neurons that are computed together: the names of their activations, and how many they are."""


def _runs(groups: Mapping[str, int], form: str) -> tuple[Runs, Runs]:
    """Return what is computed side by side, or on the whole layer, and what is gathered and scattered besides."""
    sizes = {name: size for name, size in groups.items() if size}
    if "tanh" in sizes and "sigmoid" in sizes:  # sigmoid by tanh
        sizes["tanh"] += sizes.pop("sigmoid")
    hinges = [name for name in HINGES if name in sizes]
    if form == "in place":
        whole = sum(sizes.values())
        largest = max(sizes, key=lambda name: sizes[name])
        kept = hinges if sum(sizes[name] for name in hinges) >= sizes[largest] else [largest]
        return [(tuple(kept), whole)], [((name,), size) for name, size in sizes.items() if name not in kept]
    together: list[str] = []
    if form == "joined":
        together = hinges
    elif form == "shared" and any(name in sizes for name in EXPONENTIAL):
        together = [name for name in hinges if name in EXPONENTIAL or sizes[name] <= RIDERS]
    runs: Runs = [((name,), size) for name, size in sizes.items() if name not in together]
    return [*runs, *([(tuple(together), sum(sizes[name] for name in together))] if together else [])], []


def _between(table: Table, sizes: Sequence[int], size: int) -> Table:
    """Return the table's entry along its first axis for a size, linear between the two nearest and beyond the last."""
    i = int(np.clip(np.searchsorted(sizes, size) - 1, 0, len(sizes) - 2))
    share = (size - sizes[i]) / (sizes[i + 1] - sizes[i])
    entry: Table = table[i] + share * (table[i + 1] - table[i])
    return entry


_PLAIN: dict[str, Any] = {
    **dict.fromkeys(("batch_sizes", "widths", "weights"), tuple[Index, ...]),
    "machine": dict[Text, Any],
    "provider": Text,
    "threads": Count | None,
}
"""What a file says beside its tables."""


def load_prices(path: str | os.PathLike[str] | None = None) -> Prices:
    """Read a price file.

    Args:
        path: of what `smx price --out` wrote; None takes the prices that come with the package.

    Raises:
        InputError: there is no such file, or it is no price file.
    """
    where = path or "smx/prices.json"
    try:
        source = resources.files("smx").joinpath("prices.json") if path is None else Path(path)
        return _checked(without_header(from_json(files.read(source), dict[str, Any]), FORMAT, VERSION))
    except FileNotFoundError:
        raise InputError(f"{where} does not exist; expected a price file, which smx price --out FILE writes") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, InputError) as error:
        reason = shorten(str(error), 300)
        raise InputError(f"{where} is no price file ({reason}); write one with smx price --out FILE") from error


def check_sizes(what: str, values: Sequence[int]) -> None:
    """Refuse sizes between which no line can be drawn.

    Raises:
        InputError: there are fewer than two, or they do not ascend.
    """
    if len(values) < 2 or list(values) != sorted(set(values)) or values[0] < 0:
        raise InputError(f"{what} must be at least two numbers in ascending order, got {list(values)}")


def _checked(content: dict[str, Any]) -> Prices:
    """Make prices of a file's content; raise InputError or ValueError where the tables do not fit the sizes."""
    plain = {name: checked(content.pop(name), kind) for name, kind in _PLAIN.items()}
    sizes: dict[str, tuple[int, ...]] = {name: plain[name] for name in ("batch_sizes", "widths", "weights")}
    for name, values in sizes.items():
        check_sizes(name, values)
    batches, widths, weights = (len(values) for values in sizes.values())

    def table(values: Any, *shape: int) -> Table:
        array = np.array(values, np.float64)
        if array.shape != shape or not (np.abs(array) < MOST).all():
            raise ValueError(f"expected a table of shape {shape} of numbers below {MOST:g}, got {array.shape}")
        return array

    tables: dict[str, Any] = {
        "dense": table(content.pop("dense"), batches, widths, widths),
        **{name: table(content.pop(name), batches, weights) for name in ("network", "crowded")},
    }
    tables |= {name: table(content.pop(name), batches, widths) for name in ("split", "part", "move")}
    for name in ("fused", "own", "shared"):
        of_each = checked(content.pop(name), dict[Text, Any])
        tables[name] = {each: table(values, batches, widths) for each, values in of_each.items()}
    for form, needed in (("fused", ("relu",)), ("own", ("relu",)), ("shared", (LINES, CURVES, BOTH))):
        if missing := [name for name in needed if name not in tables[form]]:
            raise ValueError(f"{form} lacks {', '.join(missing)}")
    return Prices(**content, **plain, **tables)


def _plain(value: Any) -> Any:
    """Return values for JSON; seconds with four digits."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
