"""Activations: each with its PyTorch function and its ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

X: Literal["x"] = "x"
"""Stands for the pre-activation inside an `Operator`."""
SAMPLE = (12, 16)
"""The shape of the values with which a function is tried."""
PARTS = (slice(3, 9), (slice(None), slice(5, 11)), (slice(4, 5), slice(7, 8)))
"""Of a sample: what an elementwise function gives for a part is that part of what it gives for all."""


@dataclass(frozen=True)
class Operator:
    """An ONNX expression of the pre-activation: an operator, its inputs and its attributes.

    An input is `X`, a float constant, or another `Operator`. Equal expressions compare equal.
    """

    type: str
    inputs: tuple[Operator | float | Literal["x"], ...]
    attributes: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        arguments = [*map(str, self.inputs), *(f"{name}={value:g}" for name, value in self.attributes)]
        return f"{self.type}({', '.join(arguments)})"


def op(type: str, *inputs: Operator | float | Literal["x"], **attributes: float) -> Operator:
    """Make an `Operator`; without inputs it is applied to `X`: `op("LeakyRelu", alpha=0.01)`."""
    return Operator(type, inputs or (X,), tuple(sorted(attributes.items())))


def _why_not(function: Callable[[Tensor], Tensor]) -> str:
    """Say why a function is no elementwise one, or nothing; also where it refuses the CPU, as a GPU's kernel does."""
    if not callable(function):
        return f"is no function but {function!r:.80}"
    if isinstance(function, nn.Module) and any(True for _ in (*function.parameters(), *function.buffers())):
        return f"is {type(function).__name__}, whose weights a network would neither train nor save"
    count = math.prod(SAMPLE)
    x = torch.linspace(-3, 3, count)[torch.arange(count) * 79 % count].view(SAMPLE)  # in no order
    try:
        with torch.no_grad():
            return _misbehaviour(function, x)
    except (RuntimeError, NotImplementedError, ValueError):
        return ""
    except Exception as error:
        return f"fails ({type(error).__name__}: {error!s:.80})"


def _misbehaviour(function: Callable[[Tensor], Tensor], x: Tensor) -> str:
    y = function(given := x.clone())
    if not isinstance(y, Tensor):
        return f"returns {type(y).__name__}, no tensor"
    if (y.shape, y.dtype) != (x.shape, x.dtype):
        return f"returned {y.dtype} {tuple(y.shape)} for {x.dtype} {tuple(x.shape)}"
    if not torch.equal(given, x):
        return "writes into its input"
    if not torch.allclose(function(x), y, equal_nan=True):
        return "is random"
    if not all(torch.allclose(function(x[part]), y[part], 1e-4, 1e-6, equal_nan=True) for part in PARTS):
        return "gives a value that depends on other values"
    return ""


@dataclass(frozen=True)
class Activation:
    """One entry of a pool.

    Attributes:
        name: used in configurations, files and reports; a Python identifier.
        function: elementwise, Tensor -> Tensor of the same shape and dtype.
        onnx: the same function as ONNX operators (opset 18 or later); None means it can't be exported.

    Raises:
        ValueError: the name is no identifier; or the function is not elementwise, is random, or writes into its input.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    onnx: Operator | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"an activation's name must be a plain identifier, got {self.name!r}")
        if reason := _why_not(self.function):
            raise ValueError(f"the function of an activation must be elementwise; that of {self.name} {reason}")
        if not isinstance(self.onnx, Operator | None):
            raise ValueError(f"the ONNX form of an activation is made by smx.op, or None; got {self.onnx!r:.80}")

    def clamped(self, limit: float) -> Activation:
        """Return the same activation with its values clamped to [-limit, limit]; it keeps its name."""
        return Activation(self.name, lambda z: torch.clamp(self.function(z), -limit, limit))


Pool = tuple[Activation, ...]

_known: dict[str, Activation] = {}
BUILT_IN: tuple[str, ...] = ()
"""The names of the activations of this file."""

ALIASES = {
    "swish": "silu",
    "leakyrelu": "leaky_relu",
    "hard_swish": "hardswish",
    "hswish": "hardswish",
    "hard_tanh": "hardtanh",
    "soft_plus": "softplus",
    "soft_sign": "softsign",
    "linear": "identity",
}
"""Other spellings of names, in lower case and with underscores."""


def register(activation: Activation, *, replace: bool = False) -> Activation:
    """Register an activation by its name, for pools of names and for files that are loaded.

    Args:
        activation: its name stands for it from now on.
        replace: in the place of another of this name that a user registered: for a notebook's cell that runs again.

    Raises:
        ValueError: another activation already has this name, or it is one of smx's own.
    """
    other = _known.get(activation.name, activation)
    if other != activation and (not replace or activation.name in BUILT_IN):
        remedy = "choose another name" if activation.name in BUILT_IN else "choose another name, or give replace=True"
        raise ValueError(f"an activation named {activation.name!r} is already registered; {remedy}")
    _known[activation.name] = activation
    return activation


def known() -> tuple[str, ...]:
    """Return the names of all registered activations."""
    return tuple(_known)


def get(name: str) -> Activation:
    """Return a registered activation, by its name or another usual spelling: `swish`, `leaky-relu`, `LeakyReLU`.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    plain = str(name).lower().replace("-", "_")
    try:
        return _known.get(name) or _known[ALIASES.get(plain, plain)]
    except KeyError:
        raise ValueError(f"unknown activation {name!r}; known are {', '.join(known())}") from None


def resolve_pool(pool: Iterable[str | Activation]) -> Pool:
    """Turn names and activations into a pool.

    Raises:
        ValueError: the pool is empty, a name is unknown, an entry is neither a name nor an activation, or two
            activations have one name.
    """
    if isinstance(pool, str):
        raise ValueError(f"a pool is a sequence of activations, got the string {pool!r}")
    activations: dict[str, Activation] = {}
    for entry in pool:
        activation = get(entry) if isinstance(entry, str) else entry
        if not isinstance(activation, Activation):
            raise ValueError(f"a pool has names of activations or smx.activations.Activation, got {entry!r}")
        if activation.name in activations:
            raise ValueError(f"a pool has each activation once, got {activation.name} twice")
        activations[activation.name] = activation
    if not activations:
        raise ValueError(f"the pool is empty; give at least one activation of {', '.join(known())}")
    return tuple(activations.values())


for _activation in (
    Activation("relu", F.relu, op("Relu")),
    Activation("sigmoid", torch.sigmoid, op("Sigmoid")),
    Activation("tanh", torch.tanh, op("Tanh")),
    Activation("leaky_relu", F.leaky_relu, op("LeakyRelu", alpha=0.01)),
    Activation("elu", F.elu, op("Elu", alpha=1.0)),
    Activation("selu", F.selu, op("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805)),
    Activation("gelu", F.gelu, op("Mul", op("Mul", X, op("Add", op("Erf", op("Div", X, math.sqrt(2.0))), 1.0)), 0.5)),
    Activation("silu", F.silu, op("Mul", X, op("Sigmoid"))),
    Activation("mish", F.mish, op("Mul", X, op("Tanh", op("Softplus")))),
    Activation("hardswish", F.hardswish, op("HardSwish")),
    Activation("identity", torch.clone, op("Identity")),
    Activation("relu6", F.relu6, op("Min", op("Relu"), 6.0)),
    Activation("hardtanh", F.hardtanh, op("Max", op("Min", X, 1.0), -1.0)),
    Activation(
        "softplus", F.softplus, op("Add", op("Relu"), op("Log", op("Add", op("Exp", op("Neg", op("Abs"))), 1.0)))
    ),
    Activation("softsign", F.softsign, op("Softsign")),
):
    register(_activation)

BUILT_IN = known()


def is_built_in(activation: Activation) -> bool:
    """Whether an activation is of this file. Of others, nobody knows if function and ONNX operators are the same."""
    return activation.name in BUILT_IN and activation == _known[activation.name]
