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


def edits(
    *initializers: str,
    neurons: Sequence[int] = (),
    of: str = "",
    network: str = "dense",
    layouts: tuple[str, ...] = LAYOUTS,
) -> Callable[[Callable[[Array, list[int]], None]], Plant]:
    """Enter a function that changes the values of initializers in place, which breaks what their layer computes.

    Args:
        initializers: of one layer; the function is called with the values of each, and the positions of `neurons`.
        neurons: those that break; any, if none are named.
        of: the layer that `neurons` are in, if it is not the one that breaks.
        network, layouts: see `kind`.
    """
    layer = initializers[0].partition(".")[0]

    def enter(change: Callable[[Array, list[int]], None]) -> Plant:
        def plant(model: Export) -> Planted:
            for initializer in initializers:
                with model.edited(initializer) as values:
                    change(values, model.at(of or layer, neurons))
            broken = () if of else neurons
            return output(*broken) if layer == "output" else before(layer, *broken)

        plant.__name__, plant.__doc__ = change.__name__, change.__doc__
        return kind(network, layouts)(plant)

    return enter


def before(layer: str, *neurons: int) -> Planted:
    """Say that the pre-activations of a layer are wrong; of any neurons, if none are named."""
    return Planted(f"{layer}.activation", BEFORE, frozenset(neurons) or None)


def activation(layer: str, *neurons: int) -> Planted:
    """Say that the activations of some neurons are wrong."""
    return Planted(f"{layer}.activation", ACTIVATION, frozenset(neurons) or None)


def output(*neurons: int) -> Planted:
    """Say that the outputs are wrong; any of them, if none are named."""
    return Planted("output", OUTPUT, frozenset(neurons) or None)
