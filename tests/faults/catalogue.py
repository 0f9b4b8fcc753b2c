"""The catalogue of faults: what each kind is, how it is planted, and where it must be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from smx.runtime.parity.locate import ACTIVATION, BEFORE, OUTPUT
from tests.faults.exported import Array, Export

LAYOUTS = ("scatter", "sorted")


class Planted(NamedTuple):
    """Where a fault must be found: a layer or an output, the part, and the neurons; None where it may be any."""

    layer: str
    part: str
    neurons: frozenset[int] | None = None


Plant = Callable[[Export], Planted]


class Kind(NamedTuple):
    """A kind of fault: what it is, where it can occur, and a function that plants it."""

    name: str
    what: str
    network: str
    layouts: tuple[str, ...]
    plant: Plant


KINDS: dict[str, Kind] = {}


def kind(network: str = "dense", layouts: tuple[str, ...] = LAYOUTS) -> Callable[[Plant], Plant]:
    """Enter a function into the catalogue, by its name; its docstring says what the fault is."""

    def enter(plant: Plant) -> Plant:
        KINDS[plant.__name__] = Kind(plant.__name__, plant.__doc__ or "", network, layouts, plant)
        return plant

    return enter


def edit(
    name: str,
    what: str,
    initializers: str,
    change: Callable[[Array], Array],
    *,
    neurons: Sequence[int] = (),
    of: str = "",
    network: str = "dense",
) -> None:
    """Enter a fault of weights into the catalogue: it breaks what their layer computes before the activation.

    Args:
        name, what, network: see `Kind`.
        initializers: names in the file, of one layer, with blanks between.
        change: takes the values of `neurons`, one neuron in a row, or of all if none are named; returns the wrong ones.
        neurons: those that break; any, if none are named.
        of: the layer that `neurons` are in, if it is not the one that breaks; a row is then what uses one of them.
    """
    layer = initializers.partition(".")[0]

    def plant(model: Export) -> Planted:
        for initializer in initializers.split():
            with model.edited(initializer) as values:
                rows = values.swapaxes(0, 1) if of else values
                index = model.at(of or layer, neurons) if neurons else slice(None)
                rows[index] = change(rows[index])
        broken = () if of else neurons
        return output(*broken) if layer == "output" else before(layer, *broken)

    KINDS[name] = Kind(name, what, network, LAYOUTS, plant)


def before(layer: str, *neurons: int) -> Planted:
    """Say that the pre-activations of a layer are wrong; of any neurons, if none are named."""
    return Planted(f"{layer}.activation", BEFORE, frozenset(neurons) or None)


def activation(layer: str, *neurons: int) -> Planted:
    """Say that the activations of some neurons are wrong."""
    return Planted(f"{layer}.activation", ACTIVATION, frozenset(neurons) or None)


def output(*neurons: int) -> Planted:
    """Say that the outputs are wrong; any of them, if none are named."""
    return Planted("output", OUTPUT, frozenset(neurons) or None)
