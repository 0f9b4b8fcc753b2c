"""Fewer groups that compute the same function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from smx.activations import X, op
from smx.export import provenance
from smx.export.affine import Affine, RefusedError, into_consumers, into_producer
from smx.export.capture import FUNCTIONS, MixedActivation, mixed_nodes
from smx.export.emit import free_name
from smx.export.passes.base import Rewriting
from smx.hinges import Function, Hinge, hinge_of

FARTHEST = 1.0
"""A knee is moved at most this far from 0: a larger number beside z would cost precision."""


class Identity(NamedTuple):
    """f(z) = scale * other(inner * z + offset) + shift."""

    other: Function
    inner: float = 1.0
    offset: float = 0.0
    scale: float = 1.0
    shift: float = 0.0


Identities = Mapping[str, Identity]  # by the names of the activations that are written so


class MergeGroups(Rewriting):
    """Write activations by others, and move what they differ by into the weights.

        f(z) = scale * other(inner * z + offset) + shift

    inner and offset go into the weights that make z; scale and shift go into the weights that use f(z). The cases are
    tried in this order:

    Case 0: selu(z)    = 1.0507 (max(y, c) + exp(min(y, c))) - 2.2990,  y = z + c,  c = ln 1.6733 = 0.5148,
            in a layer of this activation alone: one operator less than in case 1.
    Case 1: elu(z)     = (max(z, 0) + exp(min(z, 0))) - 1
            selu(z)    = 1.0507 (max(z, 0) + 1.6733 exp(min(z, 0))) - 1.7581
            but in the form `operators`, which has one operator for each of them, as case 0.
    Case 2: sigmoid(z) = 1/2 tanh(z / 2) + 1/2, in layers that have tanh.
    Case 3: selu(z)    = 1.0507 (max(z, 0) + 1.6733 (exp(min(z, 0)) - 1)), where case 1 was not possible.
    Case 4: activations of different names and equal operators become one.

    In the pool, activations that can be computed together (`smx.hinges`) come to stand side by side.

    Args:
        shifts: allow cases 0 to 2, which move a constant. A constant that is subtracted only in the next layer costs
            precision where the values are much smaller than it, and range where the arithmetic is coarse.
    """

    def __init__(self, *, shifts: bool = True) -> None:
        super().__init__()
        self.shifts = shifts

    def rewrite(self, model: ir.Model) -> None:
        """Merge in every layer."""
        for node in mixed_nodes(model):
            if self.shifts:
                several = MixedActivation.of(node).form != "operators"
                if several and not self._try(model.graph, node, _by_knee(node)):  # case 0
                    self._try(model.graph, node, _by_hinges(node, shift=True), "keep their shift")  # case 1
                self._try(model.graph, node, _by_tanh(node), "is not computed by tanh")  # case 2
            self._try(model.graph, node, _by_hinges(node, shift=False), "keep their factor")  # case 3
            self.applied += _unify(node)  # case 4

    def _try(self, graph: ir.Graph, node: ir.Node, identities: Identities, otherwise: str = "") -> bool:
        """Return whether there was something to write, and it could be; without `otherwise` a refusal is not told."""
        if identities:
            try:
                _apply(graph, node, identities)
                self.applied += 1
                return True
            except RefusedError as reason:
                if otherwise:
                    scope, names = MixedActivation.of(node).scope, ", ".join(identities)
                    told = self.refusals.get(scope)
                    self.refusals[scope] = f"{told}; " * bool(told) + f"{names} {otherwise}, since {reason}"
        return False


def _by_knee(node: ir.Node) -> Identities:
    """Write the one activation of a layer, max(z, 0) + a exp(min(z, 0)), by exp(min(z, 0) + ln a)."""
    mixed = MixedActivation.of(node)
    name, *others = mixed.groups
    hinge = None if others else hinge_of(mixed.functions[name])
    if hinge is None or hinge.negative or hinge.exponential in (0, hinge.positive):
        return {}
    knee = math.log(hinge.exponential / hinge.positive) if hinge.exponential > 0 else math.inf
    if abs(knee) > FARTHEST:
        return {}
    # Clip takes less time than Max and Min; without its own bound it would make infinity a number.
    other = op("Add", op("Clip", X, knee, math.inf), op("Exp", op("Clip", X, -math.inf, knee)))
    scale = hinge.positive
    return {name: Identity(other, offset=knee, scale=scale, shift=hinge.constant - scale * knee)}


def _by_hinges(node: ir.Node, *, shift: bool) -> Identities:
    """Write those that have a shift, or a factor, by hinges with the factor 1, and without the shift."""
    identities = {}
    for name, function in MixedActivation.of(node).functions.items():
        hinge = hinge_of(function)
        if hinge is not None and (hinge.exponential and hinge.constant if shift else hinge.positive != 1):
            scale, moved = hinge.positive, hinge.constant if shift else 0.0
            other = Hinge(1.0, hinge.negative / scale, hinge.exponential / scale, (hinge.constant - moved) / scale)
            identities[name] = Identity(other, scale=scale, shift=moved)
    return identities


def _by_tanh(node: ir.Node) -> Identities:
    functions = MixedActivation.of(node).functions
    if op("Tanh") not in functions.values():
        return {}
    half = Identity(op("Tanh"), inner=0.5, scale=0.5, shift=0.5)
    return {name: half for name, function in functions.items() if function == op("Sigmoid")}


def _apply(graph: ir.Graph, node: ir.Node, identities: Identities) -> None:
    """Let the layer compute `other`, and move the four numbers into the weights before and after it.

    Raises:
        RefusedError: they can't be moved; nothing was changed.
    """
    mixed = MixedActivation.of(node)
    names = [mixed.pool[k] for k in mixed.choice]
    neurons = [identities.get(name, Identity(mixed.functions[name])) for name in names]
    inner, offset, scale, shift = (
        np.array([getattr(identity, field) for identity in neurons]) for field in ("inner", "offset", "scale", "shift")
    )
    changes = into_consumers(graph, node.outputs[0], mixed.axis, Affine(scale, shift))
    if np.any(inner != 1) or np.any(offset != 0):
        changes += into_producer(graph, mixed.z, mixed.axis, Affine(inner, offset))
    for change in changes:
        change()
    provenance.rescale(node, inner, offset, scale, shift)
    others = {name: identity.other for name, identity in identities.items()}
    node.meta[FUNCTIONS] = {**mixed.functions, **others}


def _unify(node: ir.Node) -> int:
    """Make equal functions one entry of the pool, put hinges at its end, and return how many entries it has lost."""
    mixed = MixedActivation.of(node)
    by_function: dict[Function, list[str]] = {}
    for name, function in mixed.functions.items():
        by_function.setdefault(function, []).append(name)
    ordered = sorted(by_function.items(), key=lambda entry: _rank(entry[0]))
    taken: set[str] = set()
    functions = {free_name("_".join(names), taken): function for function, names in ordered}
    index = {name: k for k, (_, names) in enumerate(ordered) for name in names}
    node.attributes["choice"] = ir.AttrInt64s("choice", [index[mixed.pool[k]] for k in mixed.choice])
    node.attributes["pool"] = ir.AttrStrings("pool", list(functions))
    node.meta[FUNCTIONS] = functions
    return len(mixed.functions) - len(functions)


def _rank(function: Function) -> tuple[float, ...]:
    """Order functions: first those that are no hinges, then straight lines, then ReLU, then what has an exponential."""
    hinge = hinge_of(function)
    return (0,) if hinge is None else (1, abs(hinge.exponential), -hinge.negative)
