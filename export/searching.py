"""Search the layout `fastest`: the form of each layer, and the file, that take the least time on this machine.

1. Each layer, with what computes its pre-activations, is cut out of the graph in every form that differs there
   (`smx.prices.FORMS`), and these small files are timed in turn. A form that surely beats that of `sorted` is taken.
2. The whole file with these forms is timed in turn with `sorted` and `scatter`. It stays unless one of them is surely
   faster at some batch size.

Without measuring, the prices of `smx.prices` decide on the form of each layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import onnx
import onnx.utils

from smx.errors import InputError
from smx.export.fastest import MIXED, USUAL, Fastest, LayerChoice, Search
from smx.export.nodes import SMALL
from smx.files import scratch
from smx.prices import FORMS, Prices, load_prices
from smx.runtime.metadata import LayerInfo
from smx.runtime.tune.forms import Ratios, best_form, ratios_of, time_files, unbeaten
from smx.subprocesses import in_subprocess
from smx.timing.interleave import Timings
from smx.timing.machine import machine

SCATTER = "scatter"

Build = Callable[[str, Mapping[str, str]], tuple[onnx.ModelProto, Sequence[LayerInfo]]]
"""Compiles the network in a layout, with a form for some of its layers; returns the layers with their provenance."""
Time = Callable[[Mapping[str, onnx.ModelProto]], Timings]
"""Times models in turn."""


class Decision(NamedTuple):
    """See the attributes of `Fastest`."""

    file: str
    layers: tuple[LayerChoice, ...]
    ratios: dict[str, Ratios]


def find_fastest(build: Build, layers: Sequence[LayerInfo], search: Search, batch: int | None) -> Fastest:
    """Search the fastest forms of a network's layers.

    Args:
        build: compiles the network.
        layers: the mixed layers.
        search: how.
        batch: the batch size that the file is made for; None is any.

    Raises:
        InputError: the network can't be measured on random inputs, or a setting is not allowed.
    """
    started, sizes = time.perf_counter(), search.batch_sizes(batch)
    if search.measure:

        def timed(models: Mapping[str, onnx.ModelProto]) -> Timings:
            """Time models in a process without torch."""
            with scratch() as folder:
                paths = {name: folder / f"{i}.onnx" for i, name in enumerate(models)}
                for name, path in paths.items():
                    path.write_bytes(models[name].SerializeToString())
                how: dict[str, Any] = {
                    "provider": search.provider,
                    "threads": search.threads,
                    "allow_fallback": search.allow_fallback,
                }
                try:
                    return in_subprocess(time_files, paths, sizes, **how, seconds=search.seconds / 2)
                except InputError as error:  # it takes no random inputs, or does not run on this provider
                    reason = f"fastest can't be measured for this network: {error}"
                    raise InputError(f"{reason}; let prices decide: smx export --no-measure, measure=False") from error

        decision = by_measuring(build, layers, sizes, timed)
        where: dict[str, Any] = {"provider": search.provider, "threads": search.threads, "machine": machine()}
    else:
        prices = load_prices(search.price)
        decision = by_prices(layers, sizes, prices, batch)
        where = {"provider": prices.provider, "threads": prices.threads, "machine": prices.machine}
    seconds = time.perf_counter() - started
    return Fastest(measured=search.measure, batch_sizes=sizes, seconds=seconds, **where, **decision._asdict())


def by_prices(layers: Sequence[LayerInfo], sizes: Sequence[int], prices: Prices, batch: int | None = None) -> Decision:
    """Decide on the form of each layer by prices; a layer counts with as many inputs as neurons.

    Of a convolution the channels are counted, without their positions.

    Args:
        layers: the mixed layers.
        sizes: the batch sizes that count.
        prices: what forms cost.
        batch: the batch size that the file is made for; None is any.
    """

    def choice(layer: LayerInfo) -> LayerChoice:
        usual = "operators" if batch is not None and batch * layer.neurons < SMALL else "shared"
        form = prices.best_form(layer.groups, inputs=layer.neurons, batch_sizes=sizes, usual=usual)
        ratios: dict[str, Ratios] = {each: {} for each in FORMS if each != usual}
        for size in sizes:
            times = {
                each: prices.layer(layer.groups, inputs=layer.neurons, batch_size=size, form=each) for each in FORMS
            }
            for each, found in ratios.items():
                ratio = times[each] / times[usual]
                found[size] = (ratio, ratio, ratio)
        return LayerChoice(layer=layer.name, form=USUAL if form == usual else form, ratios=ratios)

    return Decision(MIXED, tuple(map(choice, layers)), {})


def by_measuring(build: Build, layers: Sequence[LayerInfo], sizes: Sequence[int], timed: Time) -> Decision:
    """Decide on the form of each layer, then on the file, by measuring."""
    names = tuple(dict.fromkeys(layer.name for layer in layers))
    cuts = {USUAL: cut(*build(USUAL, {}))} | {form: cut(*build(USUAL, dict.fromkeys(names, form))) for form in FORMS}
    tried = {name: different({form: parts[name] for form, parts in cuts.items() if name in parts}) for name in names}
    small = {f"{form} of {name}": part for name in names for form, part in tried[name].items() if len(tried[name]) > 1}
    timings = timed(small) if small else Timings()

    def choice(name: str) -> LayerChoice:
        others = [form for form in tried[name] if form != USUAL]
        ratios = {form: ratios_of(timings, f"{form} of {name}", f"{USUAL} of {name}", sizes) for form in others}
        return LayerChoice(layer=name, form=best_form(ratios) or USUAL, ratios=ratios)

    choices = tuple(map(choice, names))
    forms = {each.layer: each.form for each in choices if each.form != USUAL}
    files = {layout: build(layout, {})[0] for layout in (USUAL, SCATTER)}
    if forms:
        files = {MIXED: build(USUAL, forms)[0], **files}
    files = different(files)
    first, *others = files
    whole = timed(files) if others else Timings()
    rivals = [name for name in files if name != MIXED]
    file = unbeaten(list(files), rivals, lambda name, other: ratios_of(whole, name, other, sizes))
    return Decision(file, choices, {name: ratios_of(whole, name, first, sizes) for name in others})


def cut(proto: onnx.ModelProto, layers: Sequence[LayerInfo]) -> dict[str, onnx.ModelProto]:
    """Cut each mixed layer out of a compiled network, with the operator that computes its pre-activations.

    That operator belongs to it, because ONNX Runtime may compute an activation together with it. A layer that is used
    several times is cut out once; one that can't be cut out, or timed by itself, is left out.
    """
    producers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, onnx.ModelProto] = {}
    for layer in layers:
        where = layer.provenance
        if where is None or layer.name in found:
            continue
        inputs = producers[where.z].input if where.z in producers else ()
        data = [name for name in inputs if name and name not in constants]
        start = data[0] if len(data) == 1 else where.z
        try:
            part = onnx.utils.Extractor(proto).extract_model([start], [where.h])
        except ValueError:  # the shape of a value is not known
            continue
        if _takes_batches(part, proto):
            found[layer.name] = part
    return found


def _takes_batches(part: onnx.ModelProto, whole: onnx.ModelProto) -> bool:
    """Whether the first axis of a part's input is that of the whole's, as far as is seen, and the others are fixed."""
    (first, *others), (batch, *_) = (model.graph.input[0].type.tensor_type.shape.dim for model in (part, whole))
    return bool(first == batch and all(axis.dim_value for axis in others))


def different(parts: Mapping[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    """Leave out what has the same operators, of the same names, as one before it."""
    found: dict[tuple[tuple[str, str], ...], str] = {}
    for form, part in parts.items():
        found.setdefault(tuple((node.op_type, node.name) for node in part.graph.node), form)
    return {form: parts[form] for form in found.values()}
