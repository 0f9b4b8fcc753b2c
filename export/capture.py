"""PyTorch -> onnx_ir, every `Mixed` layer as ONE node `smx::MixedActivation`.

The node has one input and one output of the same shape, and the attributes

    choice  ints     (N,), for each neuron the index of its activation in the pool
    pool    strings  names of the activations
    axis    int      of the neurons, not negative
    layer   string   the layer's module path

and in its `meta`, under `FUNCTIONS`, how each activation of the pool that occurs is computed, by name.
"""

from __future__ import annotations

import ast
import copy
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from itertools import count as count_from
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.activations import Activation, Operator
from smx.calling import Flat
from smx.errors import InputError, SmxError
from smx.export import provenance
from smx.export.explaining import constant, explained
from smx.export.nodes import is_small, operand
from smx.hinges import Function
from smx.layers import Mixed, Selective
from smx.runtime.metadata import LayerInfo

DOMAIN = "smx"
OP_TYPE = "MixedActivation"
FUNCTIONS = "smx.functions"
AFFINE = ("scale", "shift")
"""Attributes of a node after which the graph computes scale h + shift, because PyTorch's layer does; one a neuron."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of a node's notes: the module paths through which PyTorch's exporter reached it."""
UNSORTED = "smx.unsorted"
"""Key of a node's `meta`: why its neurons keep an order that is not sorted."""
FORM = "smx.form"
"""Key of a node's `meta`: in which form of `smx.prices.FORMS` the layer is written, where that was chosen."""


def capture(
    module: nn.Module,
    example: tuple[Tensor, ...],
    opset: int,
    batch: int | None = None,
    axes: Sequence[Mapping[int, str]] = (),
) -> ir.Model:
    """Export a module in `eval()` with PyTorch's exporter; the initializers have the names of the module's tensors.

    Args:
        module: its `Mixed` layers become MixedActivation nodes.
        example: tensors (B, *), one for each argument.
        batch: the length of the first axis of every input; None makes it dynamic.
        axes: for each input, the names of the axes beside the first that are dynamic.

    Raises:
        SmxError: PyTorch's exporter can't convert the module.
    """
    flat = module if isinstance(module, Flat) else Flat(module, example)
    marked = _mark(flat).eval()
    dims: list[dict[int, Any]] = [{} if batch else {0: torch.export.Dim("batch")} for _ in example]
    for own, named in zip(dims, axes, strict=False):
        own |= {axis: name for axis, name in named.items() if axis}
    try:
        with quiet(), library_read_once(), _recurrences_forgotten(), torch.no_grad():
            program = torch.onnx.export(
                marked,
                example,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=(tuple(dims),) if any(dims) else None,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps any error of the module
        raise SmxError(explained(error, flat, marked, example, dims)) from error
    assert program is not None
    model = program.model
    if problem := _fixed(flat, example, dims, model):
        raise SmxError(problem)
    for node in model.graph:
        if SCOPES in node.metadata_props:
            scopes = ast.literal_eval(node.metadata_props[SCOPES])
            node.metadata_props[SCOPES] = repr([_inner(scope) for scope in scopes])
    for value in list(model.graph.initializers.values()):
        value.name = _inner(str(value.name))
    graph = model.graph
    for i, value in enumerate(graph.outputs):
        if value in graph.inputs or value in graph.outputs[:i] or value.is_initializer():  # it needs a name of its own
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[i] = node.outputs[0]
    count = len(graph.outputs)
    name_ends(model, flat.usual, ["output"] if count == 1 else [f"output{i}" for i in range(count)])
    return model


def _fixed(flat: Flat, example: tuple[Tensor, ...], dims: Sequence[Mapping[int, Any]], model: ir.Model) -> str | None:
    """Say which dynamic axis PyTorch's exporter has fixed without a word, as nn.RNN's, which it unrolls; or None."""
    for name, x, own, value in zip(flat.names, example, dims, model.graph.inputs, strict=False):
        for axis in own:
            if value.shape is not None and isinstance(value.shape[axis], int):
                return constant(flat, name, axis, own[axis], x.shape[axis])
    return None


def name_ends(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the inputs and outputs of a graph; other values of it that have such a name get another."""
    graph = model.graph
    wanted = {*inputs, *outputs}
    taken = wanted | {str(value.name) for node in graph for value in node.outputs} | set(graph.initializers)
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if value.name in wanted:
            number = next(i for i in count_from(1) if f"{value.name}_{i}" not in taken)
            value.name = f"{value.name}_{number}"
            taken.add(value.name)
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name


def _inner(path: str) -> str:
    """Return a path in the network itself; that of a `Flat` has `module` before it."""
    return path.removeprefix("module").removeprefix(".") if path.split(".")[0] == "module" else path


def mixed_nodes(model: ir.Model) -> list[ir.Node]:
    """Return the MixedActivation nodes in the order of the graph."""
    return [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]


class MixedActivation(NamedTuple):
    """The content of a MixedActivation node; see the module."""

    z: ir.Value
    choice: NDArray[np.int64]
    pool: Sequence[str]
    axis: int
    layer: str
    functions: Mapping[str, Function]
    unsorted: str
    form: str

    @property
    def scope(self) -> str:
        """The name scope of the operators that it becomes."""
        return self.layer.replace(".", "/") or "activation"

    @property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """The neurons, int64 (n,), of each activation that occurs, in the order of the pool."""
        found = {name: np.flatnonzero(self.choice == k) for k, name in enumerate(self.pool)}
        return {name: neurons for name, neurons in found.items() if len(neurons)}

    @property
    def trailing(self) -> int:
        """How many axes follow that of the neurons."""
        return len(self.z.shape or ()) - 1 - self.axis

    @classmethod
    def of(cls, node: ir.Node) -> MixedActivation:
        """Read the node."""
        attributes = node.attributes
        z = operand(node, 0)
        return cls(
            z=z,
            choice=np.array(attributes["choice"].as_ints(), np.int64),
            pool=attributes["pool"].as_strings(),
            axis=attributes["axis"].as_int(),
            layer=attributes["layer"].as_string(),
            functions=node.meta[FUNCTIONS],
            unsorted=node.meta.get(UNSORTED, "the layer has too many activations"),
            form=node.meta.get(FORM, "operators" if is_small(z.shape) else "shared"),
        )


def batched(example: tuple[Tensor, ...], batch: int | None) -> tuple[Tensor, ...]:
    """Repeat or cut an example so that it has the batch size `batch`; at least 2 examples if that is None."""
    size = batch or max(2, len(example[0]))  # a dynamic batch of 1 would be taken for a constant
    return tuple(x[torch.arange(size, device=x.device) % len(x)] for x in example)


def simplify(model: ir.Model) -> None:
    """Fold constants and fuse operators with PyTorch's own optimizer; weights get new names where it computes them."""
    with quiet():
        torch.onnx.ONNXProgram(model, None).optimize()


def attach(model: ir.Model, functions: Mapping[str, Function]) -> None:
    """Note at every MixedActivation node how the activations that occur in it are computed, and which call it is.

    The optimizer would compute two calls with one input once; in the file each call of the network has its values.
    """
    for number, node in enumerate(mixed_nodes(model)):
        node.attributes["call"] = ir.AttrInt64("call", number)
        pool = node.attributes["pool"].as_strings()
        present = sorted(set(node.attributes["choice"].as_ints()))
        node.meta[FUNCTIONS] = {pool[k]: functions[pool[k]] for k in present}
        mixed = MixedActivation.of(node)
        affine = {name: np.array(node.attributes[name].as_floats()) for name in AFFINE if name in node.attributes}
        provenance.start(node, mixed.layer, [pool[k] for k in mixed.choice], **affine)


def describe_layers(model: ir.Model) -> tuple[LayerInfo, ...]:
    """Return the groups of every mixed layer of a captured model."""
    return tuple(
        LayerInfo(name=mixed.layer, axis=mixed.axis, groups={name: len(group) for name, group in mixed.groups.items()})
        for mixed in map(MixedActivation.of, mixed_nodes(model))
    )


def choose_forms(model: ir.Model, forms: Mapping[str, str]) -> None:
    """Note at the MixedActivation nodes of these layers in which form of `smx.prices.FORMS` they are written."""
    for node in mixed_nodes(model):
        if (form := forms.get(MixedActivation.of(node).layer)) is not None:
            node.meta[FORM] = form


def expressions_of(module: nn.Module) -> dict[str, Operator]:
    """Return the ONNX expressions of the activations that the module's neurons have, by name.

    Raises:
        InputError: a layer is still selective, two different activations share a name, or one has no ONNX form.
    """
    found: dict[str, Activation] = {}
    expressions: dict[str, Operator] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Selective):
            raise InputError(
                f"the model is still in phase 1: {path or 'it'} is a Selective layer;"
                " fix the choices first, model = smx.commit(model)"
            )
        for name in layer.group_sizes if isinstance(layer, Mixed) else ():
            activation = next(entry for entry in layer.pool if entry.name == name)
            if found.setdefault(name, activation) != activation:
                raise InputError(f"two different activations are named {name!r}; give each its own name")
            if activation.onnx is None:
                raise InputError(
                    f"the activation {name!r} has no ONNX form; make it with smx.Activation(..., onnx=smx.op(...))"
                )
            expressions[name] = activation.onnx
    return expressions


class _Marker(nn.Module):
    """Stands for a `Mixed` layer while PyTorch's exporter runs; scale and shift become operators after the node."""

    affine: Tensor | None

    def __init__(self, layer: Mixed, name: str) -> None:
        super().__init__()
        pool = [activation.name for activation in layer.pool]
        self.attributes: dict[str, Any] = {"choice": layer.choice.tolist(), "pool": pool, "layer": name}
        self.dim = layer.dim
        self.register_buffer("affine", layer.affine)
        if layer.affine is not None:
            self.attributes |= dict(zip(AFFINE, layer.affine.tolist(), strict=True))

    def forward(self, z: Tensor) -> Tensor:
        attributes = {**self.attributes, "axis": self.dim % z.dim()}
        name = f"{DOMAIN}::{OP_TYPE}"
        h = torch.onnx.ops.symbolic(name, (z,), attributes, dtype=z.dtype, shape=z.shape, version=1)
        if self.affine is None:
            return h
        # The factor comes last, because zero padding after it stops a shift but no factor.
        scale, shift = self.affine.reshape(2, -1, *[1] * (z.dim() - 1 - attributes["axis"])).unbind()
        return (h + shift / scale) * scale


def _mark(flat: Flat) -> Flat:
    """Return a copy with a marker in each `Mixed` layer's place; the weights are shared, not copied."""
    shared = {id(tensor): tensor for tensor in (*flat.parameters(), *flat.buffers())}
    marked = copy.deepcopy(flat, shared)
    for name, part in list(marked.named_modules(remove_duplicate=False)):
        if isinstance(part, Mixed):
            marked.set_submodule(name, _Marker(part, _inner(name)))
    return marked


@contextmanager
def _recurrences_forgotten() -> Iterator[None]:
    """Let PyTorch's exporter make loops of LSTM and GRU, whose time axis then may have any length.

    It changes how they are computed while it runs, but what an earlier run, or an earlier export, has cached stays in
    use: the loop would be unrolled, for one length. The cache is private; where a version has none, all goes on.
    """
    caches = [getattr(getattr(torch.ops.aten, kind).input, "_dispatch_cache", {}) for kind in ("lstm", "gru")]
    for cache in caches:
        cache.clear()
    try:
        yield
    finally:
        for cache in caches:
            cache.clear()


_remembering = functools.cache(functools.cache)


@contextmanager
def library_read_once() -> Iterator[None]:
    """Spare PyTorch's exporter most of a small export's time: reading its library of 500 functions, each time anew.

    It parses them for their domain alone, derives the same signatures, and lists the same operators 60 times. The names
    are private; where a version has others, all goes on as without this.
    """
    old: list[tuple[Any, str, Any]] = []
    with suppress(ImportError, AttributeError):
        for owner, name, new in (
            (import_module("onnxscript._internal.values").TracedOnnxFunction, "function_ir", _domain_alone),
            (import_module("torch.onnx._internal.exporter._schemas"), "op_signature_from_function", _remembering),
            (import_module("torch._export.utils"), "_materialize_cpp_cia_ops", functools.cache),
        ):
            old.append((owner, name, getattr(owner, name)))
            setattr(owner, name, new(old[-1][2]))
    try:
        yield
    finally:
        for entry in old:
            setattr(*entry)


def _domain_alone(parse: property) -> property:
    return property(lambda function: SimpleNamespace(domain=function.opset.domain))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the notes that libraries write to their own developers off the user's screen."""
    root, handler, disabled = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)  # to a root without one, logging.info() and its like would add one that prints, for good
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
