from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smx
from smx import activations
from smx.activations import BUILT_IN, get, resolve_pool
from tests import reference


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_pytorch_function_is_the_formula(name: str) -> None:
    z = np.concatenate([np.linspace(-12, 12, 401), [0.0, -1e-9, 1e-9]])
    np.testing.assert_allclose(
        get(name).function(torch.tensor(z)).numpy(), reference.FUNCTIONS[name](z), rtol=1e-10, atol=1e-12
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown activation 'softmax'; known are relu, sigmoid, .*identity"):
        resolve_pool(("relu", "softmax"))


@pytest.mark.parametrize(
    ("pool", "message"),
    [((), "the pool is empty"), (("relu", "elu", "relu"), "once, got relu twice"), ("relu", "the string 'relu'")],
)
def test_bad_pools_are_refused(pool: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_pool(pool)


def test_a_users_own_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_known", dict(activations._known))
    square = smx.Activation("square_for_test", torch.square, smx.op("Mul", "x", "x"))
    smx.register(square)
    assert resolve_pool(("relu", "square_for_test"))[1] is square
    assert activations.known() == (*BUILT_IN, "square_for_test")
    assert not activations.is_built_in(square)
    smx.register(square)  # the same one again is no conflict
    with pytest.raises(ValueError, match="already registered"):
        smx.register(smx.Activation("square_for_test", torch.abs))
    absolute = smx.register(smx.Activation("square_for_test", torch.abs), replace=True)
    assert get("square_for_test") is absolute
    with pytest.raises(ValueError, match=r"'relu' is already registered; choose another name$"):
        smx.register(smx.Activation("relu", torch.abs), replace=True)
    with pytest.raises(ValueError, match="plain identifier"):
        smx.Activation("my square", torch.square)
    with pytest.raises(ValueError, match=r"the ONNX form of an activation is made by smx\.op, or None; got 'Relu'"):
        smx.Activation("own", torch.relu, "Relu")  # type: ignore[arg-type]


def test_operators_are_plain_data() -> None:
    assert smx.op("LeakyRelu", alpha=0.01) == get("leaky_relu").onnx
    assert str(get("silu").onnx) == "Mul(x, Sigmoid(x))"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("swish", "silu"),
        ("leaky-relu", "leaky_relu"),
        ("LeakyReLU", "leaky_relu"),
        ("ReLU6", "relu6"),
        ("GELU", "gelu"),
    ],
)
def test_other_spellings(spelling: str, name: str) -> None:
    assert get(spelling) is get(name)
    assert [activation.name for activation in resolve_pool(["tanh", spelling])] == ["tanh", name]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda z: z.sum(), r"returned torch.float32 \(\) for torch.float32 \(12, 16\)"),
        (lambda z: z.double(), r"returned torch.float64 \(12, 16\) for"),
        (lambda z: (z, z), "returns tuple, no tensor"),
        (lambda z: z.relu_(), "writes into its input"),
        (lambda z: F.rrelu(z, training=True), "is random"),
        (lambda z: z.softmax(0), "gives a value that depends on other values"),
        (lambda z: z.softmax(-1), "gives a value that depends on other values"),
        (lambda z: z - z.mean(), "gives a value that depends on other values"),
        (lambda z: z.cumsum(-1), "gives a value that depends on other values"),
        (lambda z: z.flip(0), "gives a value that depends on other values"),
        (lambda z: z.sort().values, "gives a value that depends on other values"),
        (lambda z: 1 / 0, "fails .ZeroDivisionError: division by zero"),
        (lambda: 1, "fails .TypeError"),
        ("relu", "is no function but 'relu'"),
        (nn.PReLU(), "is PReLU, whose weights a network would neither train nor save"),
        (nn.BatchNorm1d(4), "is BatchNorm1d, whose weights"),
    ],
)
def test_a_function_that_is_not_elementwise_is_refused(function: Callable[[Tensor], Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"must be elementwise; that of own {reason}"):
        smx.Activation("own", function)


def test_elementwise_functions_are_taken() -> None:
    """Also those that jump, are NaN somewhere, or can't be asked on the CPU."""

    def elsewhere(z: Tensor) -> Tensor:
        raise RuntimeError("no kernel for cpu")

    for function in (torch.floor, torch.log, torch.reciprocal, nn.GELU(), elsewhere):
        assert smx.Activation("own", function).function is function
