"""The form that ReLU, Leaky ReLU, ELU, SELU and the identity share:

    f(z) = positive * max(z, 0) + negative * min(z, 0) + exponential * exp(min(z, 0)) + constant

With it, neurons of different activations are computed together, each with its own four numbers; then an infinite
pre-activation may become NaN, as infinity times 0. Both `smx.fused` and the exporter use it: ONNX Runtime's Exp is
faster than its Elu and Selu (docs/layouts.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from smx.activations import Operator, X, op


@dataclass(frozen=True)
class Hinge:
    """The four numbers of an activation; positive >= max(negative, 0)."""

    positive: float = 1.0
    negative: float = 0.0
    exponential: float = 0.0
    constant: float = 0.0


Function = Operator | Hinge
"""How an activation is computed: by ONNX operators, or in the form of a hinge."""


def hinge_of(function: Function) -> Hinge | None:
    """Return the four numbers of an activation, or None if it does not have this form."""
    if isinstance(function, Hinge):
        return function
    attributes = dict(function.attributes)
    known = {"LeakyRelu": {"alpha"}, "Elu": {"alpha"}, "Selu": {"alpha", "gamma"}}
    if function.inputs != (X,) or not attributes.keys() <= known.get(function.type, set()):
        return None
    match function.type:
        case "Relu":
            return Hinge()
        case "Identity":
            return Hinge(negative=1.0)
        case "LeakyRelu" if (slope := attributes.get("alpha", 0.01)) <= 1:
            return Hinge(negative=slope)
        case "Elu":
            alpha = attributes.get("alpha", 1.0)
            return Hinge(exponential=alpha, constant=-alpha)
        case "Selu" if (scale := attributes.get("gamma", 1.0507009873554805)) > 0:
            depth = scale * attributes.get("alpha", 1.6732632423543772)
            return Hinge(positive=scale, exponential=depth, constant=-depth)
    return None


def operator_of(hinge: Hinge) -> Operator | None:
    """Return the one ONNX operator that computes a hinge, or None if there is none."""
    positive, negative, exponential, constant = hinge.positive, hinge.negative, hinge.exponential, hinge.constant
    if not exponential and not constant and positive == 1:
        return {0.0: op("Relu"), 1.0: op("Identity")}.get(negative, op("LeakyRelu", alpha=negative))
    if exponential == -constant and not negative:
        alpha = exponential / positive
        return op("Elu", alpha=alpha) if positive == 1 else op("Selu", alpha=alpha, gamma=positive)
    return None
