"""Find known activations that a forward writes as formulas, such as x * sigmoid(x), whatever the spelling.

An expression of one value that treats each entry by itself is computed on a grid and compared with PyTorch's functions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

KNOWN: dict[str, tuple[nn.Module, ...]] = {
    "gelu": (nn.GELU(), nn.GELU("tanh")),
    "silu": (nn.SiLU(),),
    "mish": (nn.Mish(),),
    "hardswish": (nn.Hardswish(),),
}
"""The activations that are found."""

_NAMES = """abs add clamp clip div divide erf erfc exp expit expm1 float hardsigmoid hardtanh log log1p mul multiply
    neg pow reciprocal relu relu6 rsqrt sigmoid silu softplus sqrt square sub subtract tanh to true_divide truediv"""
_ENTRYWISE = frozenset(_NAMES.split())
_SAME = ("to", "float")  # their result may be the tensor that they took
_ENDS = ("mul", "multiply", "div", "truediv", "true_divide", "divide")
_GRID = torch.linspace(-7, 7, 113, dtype=torch.float64)


class Formula(NamedTuple):
    """An activation in a traced forward: its name and module, its input, its result, and what is between the two."""

    name: str
    module: nn.Module
    z: fx.Node
    end: fx.Node
    inner: frozenset[fx.Node]


def find(part: nn.Module, graph: fx.Graph, types: tuple[type[nn.Module], ...]) -> list[Formula]:
    """Return the formulas in a traced forward whose activations are of the types, the largest of those that overlap.

    Left out is one with a value that is read elsewhere, too.
    """
    inputs: dict[fx.Node, fx.Node] = {}  # of what each expression is one
    numbers: set[fx.Node] = set()
    found: dict[fx.Node, Formula] = {}
    for node in graph.nodes:
        sources = {inputs.get(x, x) for x in node.all_input_nodes if x not in numbers}
        entrywise = _is_entrywise(part, node, types)
        if not sources and (entrywise or node.target is torch.tensor):
            numbers.add(node)
        if not entrywise or len(sources) != 1:
            continue
        z = sources.pop()
        if _overwrites(node) and (node.args[0] not in inputs or _name(node.args[0]) in _SAME):
            continue  # then others read its result as z
        inputs[node] = z
        if _name(node) not in _ENDS:
            continue
        steps = frozenset(_between(z, node))
        inner = steps - numbers
        if any(user not in inner and user is not node for x in inner for user in x.users):
            continue
        known = _known(part, z, node, steps)
        if known is not None and isinstance(known[1], types):
            found = {end: formula for end, formula in found.items() if end not in inner}
            found[node] = Formula(known[0], copy.deepcopy(known[1]), z, node, inner)
    return list(found.values())


def _name(node: Any) -> str:
    name = node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))
    return name.removesuffix("_") if _overwrites(node) else name


def _overwrites(node: fx.Node) -> bool:
    return node.op == "call_method" and str(node.target).endswith("_")


def _is_entrywise(part: nn.Module, node: fx.Node, types: tuple[type[nn.Module], ...]) -> bool:
    if node.op == "call_module":
        return isinstance(part.get_submodule(str(node.target)), types) and not node.kwargs
    constants = all(isinstance(x, fx.Node | int | float | torch.dtype) for x in node.args)
    return node.op in ("call_function", "call_method") and _name(node) in _ENTRYWISE and constants


def _between(z: fx.Node, end: fx.Node) -> Iterator[fx.Node]:
    seen, stack = {z, end}, [end]
    while stack:
        for x in stack.pop().all_input_nodes:
            if x not in seen:
                seen.add(x)
                stack.append(x)
                yield x


def _known(part: nn.Module, z: fx.Node, end: fx.Node, steps: frozenset[fx.Node]) -> tuple[str, nn.Module] | None:
    values: dict[fx.Node, Any] = {z: _GRID.clone()}
    try:
        for node in end.graph.nodes:
            if node in steps or node is end:
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                values[node] = _value(part, node, args, kwargs)
    except Exception:  # whatever an expression may raise for other dtypes
        return None
    h = values[end]
    if not isinstance(h, Tensor) or h.shape != _GRID.shape:
        return None
    for name, modules in KNOWN.items():
        for module in modules:
            if torch.allclose(h.double(), module(_GRID), rtol=1e-6, atol=1e-6):
                return name, module
    return None


def _value(part: nn.Module, node: fx.Node, args: Any, kwargs: Any) -> Any:
    if node.op == "call_module":
        return part.get_submodule(str(node.target))(*args)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)
