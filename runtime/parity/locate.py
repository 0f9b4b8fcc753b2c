"""The first layer, neuron and example in which a model differs from its reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smx.errors import InputError
from smx.runtime.graph import expose
from smx.runtime.metadata import LayerInfo, ModelInfo, Provenance
from smx.runtime.parity.compare import Array
from smx.runtime.session import Session
from smx.runtime.settings import Settings

BEFORE, ACTIVATION, OUTPUT = "before the activation", "activation", "output"
"""The parts that can break: the operators before a layer's activation, the activation, those after the last layer."""

ROUNDING = {"float32": 2.0**-23, "float16": 2.0**-10, "int8": 2.0**-7}
"""The rounding of one value, relative to the largest of its example, by a model's precision."""

MARGIN = 16
"""A difference is a fault above this multiple of what rounding explains."""

DRAWS = 4
"""Runs of the reference on values with random rounding errors."""


class LayerArrays(NamedTuple):
    """One call of a mixed layer: its module path, the pre-activations z and the activations h, both of one shape."""

    layer: str
    z: Array
    h: Array


class Values(NamedTuple):
    """What a run computed: the calls of its mixed layers, in their order, and its outputs (B, *)."""

    layers: Sequence[LayerArrays]
    outputs: Sequence[Array]


Reference = Callable[..., Values]
"""Runs a network in parts, the mixed layers and what is between them: `reference(*inputs, given=layers)`.

It takes arrays (B, *), one for each input, and in `given` a `LayerArrays` for each call of a mixed layer, in order. It
returns for each call the z that it got, and the h that it computes from `given[k].z`; what follows call k gets
`given[k].h`. A call without an entry, or with one of another shape, runs as usual.
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in the model where values were compared, neuron by neuron.

    Attributes:
        layer: module path of a mixed layer, or the name of an output.
        part: `BEFORE`, `ACTIVATION` or `OUTPUT`.
        difference: |model - exact|, where it is largest relative to its limit.
        limit: the largest difference that is no fault there, see `locate`.
    """

    layer: str
    part: str
    difference: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The first place that breaks.

    Attributes:
        layer, part: where, as in `Place`.
        neuron: the one that differs most, counted as in PyTorch.
        activation: of that neuron; None for an output.
        example: the index of the example on which it differs most.
        got, expected: the values there; of a channel with several values, those that differ most.
        neurons: all neurons that break in this place, the worst first.
        examples: the number of examples on which any of them breaks.
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
    """The places that were compared, in the order of the graph up to the first fault; None if no place breaks."""

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

    The model's intermediate values become outputs, and are brought back into the reference's order and scale. Each part
    of the network is compared with the exact result for the values that the model itself had before that part. So
    differences do not add up, and a difference belongs to the part in which it is seen. The limit for an example is

        MARGIN * max(noise, rounding * size)

    noise: the largest error of the reference in this place when its inputs have rounding errors.
    rounding: the relative rounding error of one value, by the precision of the model (`ROUNDING`).
    size: the largest exact value in this place, at least 1: activations such as exp(z) - 1 have terms of size 1.

    ONNX Runtime can't fuse an operator whose result is an output with the next one. So a fault of a fused operator is
    not found here.

    Args:
        model: the file; its metadata must tell where its layers are.
        reference: computes in float32.
        exact: computes in float64.
        inputs: as the model takes them, (B, *); all values of the network for all examples must fit into memory.
        provider, allow_fallback: see `Session`.

    Raises:
        InputError: the file can't be run, or its metadata does not fit it or the reference.
    """
    session, info, outputs = _open(model, provider, allow_fallback)
    if len({len(x) for x in inputs}) != 1 or not len(inputs[0]):
        raise InputError(f"{model} needs at least one example, and as many of each input")
    if info.precision not in ROUNDING:
        raise InputError(f"{model} is of the unknown precision {info.precision!r}; export it again")
    rounding = ROUNDING[info.precision]
    count = len(inputs[0])
    size = session.batch or count
    batches = [np.arange(start, start + size) % count for start in range(0, count, size)]
    places: list[Place] = []
    fault = None
    with np.errstate(all="ignore"):
        runs = [_run(session, info, outputs, reference, exact, rounding, [x[rows] for x in inputs]) for rows in batches]
        values = [
            [np.concatenate(parts)[:count] for parts in zip(*run, strict=True)] for run in zip(*runs, strict=True)
        ]
        heads = [(layer.name, part, activations_of(layer)) for layer in info.layers for part in (BEFORE, ACTIVATION)]
        heads += [(name, OUTPUT, []) for name in outputs]
        for (layer, part, activations), got, expected, *rough in zip(heads, *values, strict=True):
            noise = np.max([_largest(other - expected, np.inf) for other in rough], 0)
            limit = MARGIN * np.maximum(noise, rounding * np.maximum(_largest(expected), 1))
            place, fault = _judge(layer, part, activations, got, expected, limit)
            places.append(place)
            if fault is not None:
                break
    return Location(places=tuple(places), fault=fault)


def _open(model: str | os.PathLike[str], provider: str, allow_fallback: bool) -> tuple[Session, ModelInfo, list[str]]:
    """Load a model with its intermediate values as outputs; return also its metadata and its own outputs' names."""
    load = partial(Session, provider=provider, settings=Settings(), allow_fallback=allow_fallback, name=str(model))
    original = load(model)
    info = original.info
    if info is None or not all(layer.provenance for layer in info.layers):
        raise InputError(f"{model} does not say where its layers are; export it again with this version of smx")
    exposed = expose(Path(model), [name for layer in info.layers for name in (_of(layer).z, _of(layer).h)])
    return load(exposed, folder=Path(model).parent), info, [output.name for output in original.outputs]


def _of(layer: LayerInfo) -> Provenance:
    assert layer.provenance is not None
    return layer.provenance


def _run(
    session: Session,
    info: ModelInfo,
    outputs: Sequence[str],
    reference: Reference,
    exact: Reference,
    rounding: float,
    x: Sequence[Array],
) -> list[list[Array]]:
    """Return the values of every place, see `_flat`: the model's, the exact ones, and `DRAWS` times the reference's."""
    named = dict(zip([output.name for output in session.outputs], session.run_all(*x), strict=True))
    layers = [in_order(session.name, layer, named) for layer in info.layers]
    got = Values(layers, [named[name] for name in outputs])
    right = exact(*x, given=layers)
    _check_same(session.name, got, right)
    rough = [reference(*values, given=given) for values, given in _rounded(x, layers, rounding)]
    return [_flat(values, info.layers, len(x[0])) for values in (got, right, *rough)]


def in_order(model: str, layer: LayerInfo, named: Mapping[str, Array]) -> LayerArrays:
    """Bring a layer's values into the reference's order and scale."""
    provenance = _of(layer)
    try:
        inner, scale, shift, offset = np.array([provenance.kinds[kind][1:] for kind in provenance.kind], float).T
        back = np.argsort(provenance.neurons)
        z, h = (np.moveaxis(named[name].astype(float), layer.axis, -1) for name in (provenance.z, provenance.h))
        z, h = (np.moveaxis(values[..., back], -1, layer.axis) for values in ((z - offset) / inner, h * scale + shift))
        return LayerArrays(layer.name, z, h)
    except (IndexError, ValueError) as error:
        raise InputError(f"{model}: the metadata of {layer.name!r} do not fit its graph ({error})") from error


def activations_of(layer: LayerInfo) -> list[str]:
    """Return the activations by neuron."""
    provenance = _of(layer)
    kinds = sorted(zip(provenance.neurons, provenance.kind, strict=True))
    return [provenance.kinds[kind].activation for _, kind in kinds]


def _check_same(model: str, got: Values, exact: Values) -> None:
    """Refuse a reference that is another network."""
    names = [call.layer for call in got.layers] + ["the output"] * len(got.outputs)
    shapes = [[call.z.shape for call in run.layers] + [y.shape for y in run.outputs] for run in (got, exact)]
    counts = [f"{len(run.layers)} calls of mixed layers and {len(run.outputs)} outputs" for run in (got, exact)]
    differing = [
        f"{name} has the shape {found} in {model}, {expected} in the reference"
        for name, found, expected in zip(names, *shapes, strict=False)
        if found != expected
    ]
    if counts[0] != counts[1]:
        differing = [f"{counts[0]} in {model}, {counts[1]} in the reference"]
    if differing:
        raise InputError(f"is it the same network? {differing[0]}")


def _rounded(
    x: Sequence[Array], layers: Sequence[LayerArrays], rounding: float
) -> Iterator[tuple[list[Array], list[LayerArrays]]]:
    """Yield inputs and layers `DRAWS` times, with random errors of up to twice the rounding of their largest value."""
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

    If the first axis of a layer is not the examples, nor a multiple of them, each example gets all values of the layer.
    """
    found = [(array, layer.axis) for layer, (_, *both) in zip(layers, values.layers, strict=True) for array in both]
    found += [(array if array.ndim > 1 else array[:, None], 1) for array in values.outputs]
    rows = []
    for array, axis in found:
        moved = np.moveaxis(array.astype(float), axis, -1)
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
    """Compare the values of a place, (B, N, rest), with the limits of the examples, (B,)."""
    difference = np.where(np.isfinite(exact), np.nan_to_num(np.abs(got - exact), nan=np.inf, posinf=np.inf), 0.0)
    excess = np.nan_to_num(difference / limit[:, None, None], nan=0.0, posinf=np.inf)  # no limit where it is infinite
    worst = excess.max((0, 2), initial=0)
    order = np.argsort(-worst, kind="stable")
    neuron = int(order[0])
    example, value = np.unravel_index(excess[:, neuron].argmax(), excess[:, neuron].shape)
    at = (example, neuron, value)
    place = Place(layer=layer, part=part, difference=float(difference[at]), limit=float(limit[example]))
    if worst[neuron] <= 1:
        return place, None
    return place, Fault(
        layer=layer,
        part=part,
        neuron=neuron,
        activation=activations[neuron] if activations else None,
        example=int(example),
        got=float(got[at]),
        expected=float(exact[at]),
        neurons=tuple(order[worst[order] > 1].tolist()),
        examples=int((excess > 1).any((1, 2)).sum()),
    )
