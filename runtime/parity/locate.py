"""Where does a model first leave its reference? Layer by layer, down to the neuron."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.graph import expose
from smx.runtime.metadata import LayerInfo, ModelInfo
from smx.runtime.session import Session
from smx.runtime.settings import Settings

Array = NDArray[Any]

BEFORE, ACTIVATION, OUTPUT = "before the activation", "activation", "output"
"""What can break: what computes the pre-activations of a layer, its activation, or what comes after the last layer."""

ROUNDING = {"float32": 2.0**-23, "float16": 2.0**-10, "int8": 2.0**-7}
"""The rounding of one value, relative to the largest of its example, by a model's precision."""

MARGIN = 16
"""So many times what rounding explains is a fault."""

DRAWS = 4
"""How often the reference is run on values that are off by their rounding."""


class LayerArrays(NamedTuple):
    """What one call of a mixed layer took and gave: its module path, and z and h, shaped like each other."""

    layer: str
    z: Array
    h: Array


class Values(NamedTuple):
    """What a run saw: the calls of its mixed layers, in their order, and its outputs (B, *)."""

    layers: Sequence[LayerArrays]
    outputs: Sequence[Array]


class Reference(Protocol):
    """Runs a network in parts: what lies between its mixed layers, and each of those, on values that are given."""

    def __call__(self, *inputs: Array, given: Sequence[LayerArrays]) -> Values:
        """Run the network on arrays (B, *), one for each argument.

        Args:
            inputs: of the network.
            given: an entry for each call of a mixed layer, in their order. Whatever comes to call k, it gives
                `given[k].h` to what comes after it. An entry that is missing or of another shape changes nothing.

        Returns:
            For each call the z that came to it, and the h that it makes of `given[k].z`.
        """


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place in the model where values were compared, neuron by neuron.

    Attributes:
        layer: module path of a mixed layer, or the name of an output.
        part: `BEFORE`, `ACTIVATION` or `OUTPUT`.
        difference: the one that is largest beside its limit.
        limit: what rounding explains there.
        neurons: those that differ by more, the worst first.
    """

    layer: str
    part: str
    difference: float
    limit: float
    neurons: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The first thing that breaks.

    Attributes:
        layer, part: where, as in `Place`.
        neuron: the one that differs most, counted as in PyTorch.
        activation: which it has; None for an output.
        example: on which it differs most.
        got, expected: the values there; for a channel of several values, the one that differs most.
        neurons: all that break in this place, the worst first.
        examples: on how many examples.
    """

    layer: str
    part: str
    neuron: int
    activation: str | None
    example: int
    got: float
    expected: float
    neurons: tuple[int, ...]
    examples: int


@dataclass(frozen=True, kw_only=True)
class Location:
    """What was compared, in the order of the graph up to the first fault; None if there is none."""

    places: tuple[Place, ...]
    fault: Fault | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def locate(
    model: str | os.PathLike[str],
    reference: Reference,
    exact: Reference,
    *inputs: Array,
    provider: str = "cpu",
    allow_fallback: bool = False,
) -> Location:
    """Find the first layer, neuron and example in which a model differs from a reference by more than rounding.

    The model's intermediate values are made outputs, and brought back into the reference's order and scale. Each part
    of the network is held against the exact result for the values that the model itself had before that part: so
    nothing adds up, and a difference belongs to the place where it is seen. The limit for an example is

        MARGIN * max(noise, rounding * size)

    with noise the largest error of the reference in this place when it is given values that are off by their rounding,
    and size the largest value there, at least 1: what activations are made of, like exp(z) - 1, is of unit size.

    Values that are outputs can't be fused with what follows: a fault of a fused operator alone is not seen here.

    Args:
        model: the file; its metadata must tell where its layers are.
        reference: computes in float32.
        exact: computes in float64.
        inputs: as the model takes them, (B, *); no more than all values of the network have room in memory for.
        provider, allow_fallback: see `Session`.

    Raises:
        InputError: the file can't be run, or its metadata does not fit it or the reference.
    """
    session, info, outputs = _open(model, provider, allow_fallback)
    if len({len(x) for x in inputs}) != 1 or not len(inputs[0]):
        raise InputError(f"{model} needs at least one example, and as many of each input")
    rounding = ROUNDING.get(info.precision, ROUNDING["float32"])
    count = len(inputs[0])
    size = session.batch or count
    batches = [np.arange(start, start + size) % count for start in range(0, count, size)]
    with np.errstate(all="ignore"):
        runs = [_run(session, info, outputs, reference, exact, rounding, [x[rows] for x in inputs]) for rows in batches]
        got, expected, *rough = (
            [np.concatenate(parts)[:count] for parts in zip(*places, strict=True)] for places in zip(*runs, strict=True)
        )
        heads = [(layer.name, part, _activations(layer)) for layer in info.layers for part in (BEFORE, ACTIVATION)]
        heads += [(name, OUTPUT, []) for name in outputs]
        places = []
        for k, (layer, part, activations) in enumerate(heads):
            noise = np.max([_largest(run[k] - expected[k], np.inf) for run in rough], 0)
            limit = MARGIN * np.maximum(noise, rounding * np.maximum(_largest(expected[k]), 1))
            place, fault = _judge(layer, part, activations, got[k], expected[k], limit)
            places.append(place)
            if fault is not None:
                return Location(places=tuple(places), fault=fault)
    return Location(places=tuple(places), fault=None)


def _open(model: str | os.PathLike[str], provider: str, allow_fallback: bool) -> tuple[Session, ModelInfo, list[str]]:
    """Load a model with its intermediate values as outputs; return also its metadata and the names of its own ones."""

    def load(source: str | os.PathLike[str] | bytes, folder: Path | None = None) -> Session:
        return Session(
            source,
            provider,
            settings=Settings(),
            allow_fallback=allow_fallback,
            folder=folder,
            name=str(model),
        )

    original = load(model)
    info = original.info
    located = [layer.provenance for layer in info.layers if layer.provenance] if info else []
    if info is None or len(located) < len(info.layers):
        raise InputError(f"{model} does not say where its layers are; export it again with this version of smx")
    exposed = expose(Path(model), [name for layer in located for name in (layer.z, layer.h)])
    return load(exposed, Path(model).parent), info, [output.name for output in original.outputs]


def _run(
    session: Session,
    info: ModelInfo,
    outputs: Sequence[str],
    reference: Reference,
    exact: Reference,
    rounding: float,
    x: Sequence[Array],
) -> list[list[Array]]:
    """Return the values of every place, see `_flat`: the model's, the exact ones, and several times the reference's."""
    named = dict(zip([output.name for output in session.outputs], session.run_all(*x), strict=True))
    layers = [_in_order(session.name, layer, named) for layer in info.layers]
    got = Values(layers, [named[name] for name in outputs])
    right = exact(*x, given=layers)
    _check_same(session.name, got, right)
    rough = [reference(*values, given=given) for values, given in _rounded(x, layers, rounding)]
    return [_flat(values, info.layers, len(x[0])) for values in (got, right, *rough)]


def _in_order(model: str, layer: LayerInfo, named: Mapping[str, Array]) -> LayerArrays:
    """Bring a layer's values into the reference's order and scale."""
    provenance = layer.provenance
    assert provenance is not None
    try:
        inner, scale, shift = np.array([provenance.kinds[kind][1:] for kind in provenance.kind]).T
        back = np.argsort(provenance.neurons)
        if not np.array_equal(np.take(provenance.neurons, back), np.arange(len(inner))):
            raise ValueError(f"{len(inner)} neurons are not counted from 0 to {len(inner) - 1}")

        def restored(name: str, factor: Array, summand: Array) -> Array:
            values = np.moveaxis(named[name].astype(np.float64), layer.axis, -1) * factor + summand
            return np.moveaxis(values[..., back], -1, layer.axis)

        z, h = restored(provenance.z, 1 / inner, 0 * inner), restored(provenance.h, scale, shift)
        return LayerArrays(layer.name, z, h)
    except (IndexError, ValueError) as error:
        raise InputError(f"{model}: the metadata of {layer.name!r} do not fit its graph ({error})") from error


def _activations(layer: LayerInfo) -> list[str]:
    """Return the activations by neuron."""
    provenance = layer.provenance
    assert provenance is not None
    of = {neuron: provenance.kinds[kind][0] for neuron, kind in zip(provenance.neurons, provenance.kind, strict=True)}
    return [of[neuron] for neuron in range(len(of))]


def _check_same(model: str, got: Values, right: Values) -> None:
    counts = [(len(run.layers), len(run.outputs)) for run in (got, right)]
    if counts[0] != counts[1]:
        raise InputError(
            "is it the same network? {} calls of mixed layers and {} outputs in {}, {} and {} in the reference".format(
                *counts[0], model, *counts[1]
            )
        )
    names = [layer for layer, _, _ in got.layers] + ["the output"] * len(got.outputs)
    shapes = [[z.shape for _, z, _ in run.layers] + [y.shape for y in run.outputs] for run in (got, right)]
    for name, there, expected in zip(names, *shapes, strict=True):
        if there != expected:
            raise InputError(
                f"is it the same network? {name} has the shape {there} in {model}, {expected} in the reference"
            )


def _rounded(
    x: Sequence[Array], layers: Sequence[LayerArrays], rounding: float
) -> Iterator[tuple[list[Array], list[LayerArrays]]]:
    """Yield inputs and layers whose values are off by up to twice their rounding, several times."""
    random = np.random.default_rng(0)

    def off(values: Array, least: float = 0.0) -> Array:
        if not np.issubdtype(values.dtype, np.floating):
            return values
        size = np.abs(values).max(tuple(range(1, values.ndim)), keepdims=True, initial=least)
        rounded: Array = values + rounding * size * random.uniform(-2.0, 2.0, values.shape)
        return rounded.astype(values.dtype)

    for _ in range(DRAWS):
        yield [off(values) for values in x], [LayerArrays(layer, off(z), off(h, 1.0)) for layer, z, h in layers]


def _flat(values: Values, layers: Sequence[LayerInfo], examples: int) -> list[Array]:
    """Return the values of every place in the order of the graph, as float64 (B, N, rest).

    Where a layer does not keep the examples apart, all its values stand for each of them.
    """
    found = [(array, layer.axis) for layer, (_, *both) in zip(layers, values.layers, strict=True) for array in both]
    found += [(array if array.ndim > 1 else array[:, None], 1) for array in values.outputs]
    rows = []
    for array, axis in found:
        moved = np.moveaxis(array.astype(np.float64), axis, -1)
        apart = moved if len(moved) % examples == 0 else np.broadcast_to(moved, (examples, *moved.shape))
        rows.append(apart.reshape(examples, -1, moved.shape[-1]).swapaxes(1, 2))
    return rows


def _largest(rows: Array, undefined: float = 0.0) -> Array:
    """Return each example's largest value, (B,), with those that are not finite as `undefined`."""
    largest: Array = np.where(np.isfinite(rows), np.abs(rows), undefined).max((1, 2), initial=0)
    return largest


def _judge(
    layer: str, part: str, activations: Sequence[str], got: Array, exact: Array, limit: Array
) -> tuple[Place, Fault | None]:
    """Hold the values of a place, (B, N, rest), against the limits of the examples, (B,)."""
    difference = np.where(np.isfinite(exact), np.nan_to_num(np.abs(got - exact), nan=np.inf, posinf=np.inf), 0.0)
    excess = np.nan_to_num(difference / limit[:, None, None], nan=0.0, posinf=np.inf)  # no limit where it is infinite
    worst = excess.max((0, 2), initial=0)
    order = np.argsort(-worst, kind="stable")
    neurons = tuple(order[worst[order] > 1].tolist())
    neuron = int(order[0])
    example, value = np.unravel_index(excess[:, neuron].argmax(), excess[:, neuron].shape)
    place = Place(
        layer=layer,
        part=part,
        difference=float(difference[example, neuron, value]),
        limit=float(limit[example]),
        neurons=neurons,
    )
    if not neurons:
        return place, None
    return place, Fault(
        layer=layer,
        part=part,
        neuron=neuron,
        activation=activations[neuron] if activations else None,
        example=int(example),
        got=float(got[example, neuron, value]),
        expected=float(exact[example, neuron, value]),
        neurons=neurons,
        examples=int((excess > 1).any((1, 2)).sum()),
    )
