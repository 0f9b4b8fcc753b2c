from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

import smx
from smx import functional
from smx.activations import resolve_pool
from smx.paper import PAPER_POOL


def test_logits_start_at_zero_with_one_favourite() -> None:
    layer = smx.Selective(200)
    nn.init.ones_(layer.logits)
    layer.reset_parameters()
    values, counts = torch.unique(layer.logits.detach(), return_counts=True)
    assert values.tolist() == pytest.approx([0.0, 0.001])
    assert counts.tolist() == [1000, 200]
    assert torch.unique(layer.choice).numel() == 6
    assert torch.equal(layer.choice, layer.logits.argmax(1))


def test_training_samples_and_eval_does_not() -> None:
    """`sampling` keeps the noise on in a part of a module, and leaves each layer as it was, also after an error."""
    layer, other = smx.Selective(50), smx.Selective(50).eval()
    z = torch.randn(4, 50)
    assert not torch.equal(layer(z), layer(z))
    layer.eval()
    assert torch.equal(layer(z), functional.mixed(z, layer.choice, layer.pool))
    with smx.sampling(nn.Sequential(nn.Identity(), layer)):
        assert not torch.equal(layer(z), layer(z))
        assert torch.equal(other(z), other(z))
        with pytest.raises(ValueError, match="expects 50 features"), smx.sampling(layer):
            layer(z.T)
        assert not torch.equal(layer(z), layer(z))
    assert torch.equal(layer(z), layer(z))


@pytest.mark.parametrize("pool", [("relu", "tanh"), ("relu", "gelu")])
@pytest.mark.parametrize(
    ("dtype", "noise_dtype"), [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)]
)
def test_a_seed_gives_the_formula_with_its_noise(
    pool: tuple[str, ...], dtype: torch.dtype, noise_dtype: torch.dtype
) -> None:
    layer = smx.Selective(8, pool=pool, temperature=0.7, dim=-1, dtype=dtype)
    z = torch.randn(3, 4, 8, dtype=dtype)
    torch.manual_seed(5)
    h = layer(z)
    torch.manual_seed(5)
    noise = functional.gumbel_noise((8, 2), dtype=noise_dtype)
    expected = functional.selective(z, layer.logits, noise, 0.7, pool, -1)
    assert h.dtype == dtype
    assert torch.equal(h, expected)
    g, g_expected = (torch.autograd.grad(x.float().square().sum(), layer.logits)[0] for x in (h, expected))
    assert torch.equal(g, g_expected)
    assert torch.equal(layer.eval()(z), functional.mixed(z, layer.choice, pool, -1))


def test_mixed_moves_saves_loads_and_copies() -> None:
    given = torch.tensor([0, 5, 1, 0])
    layer = smx.Mixed(given)
    given.zero_()
    assert layer.choice.tolist() == [0, 5, 1, 0]
    assert list(layer.state_dict()) == ["choice"]
    z = torch.randn(3, 4)
    other = smx.Mixed([2, 2, 2, 2])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(z), layer(z))
    assert other.group_sizes == {"relu": 2, "sigmoid": 1, "selu": 1}
    clone = copy.deepcopy(layer)
    other.load_state_dict(smx.Mixed([3, 3, 3, 3]).state_dict())
    assert torch.equal(clone(z), layer(z))
    assert clone.to(torch.float64).choice.dtype == torch.int64


def test_both_layers_take_a_device_and_the_axis_by_its_name() -> None:
    for layer in (
        smx.Selective(4, device="meta"),
        smx.Mixed([0, 5, 1, 0], device="meta"),
        smx.Mixed([2, 1]).to("meta"),
    ):
        assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}
        n = layer.num_features
        assert layer(torch.zeros(3, n, device="meta")).shape == (3, n)
    assert smx.Mixed([2, 1])(torch.zeros(3, 2, device="meta")).device.type == "meta"
    loaded = smx.Mixed([0, 5, 1, 0], device="meta").to_empty(device="cpu")
    loaded.load_state_dict(smx.Mixed([1, 1, 0, 2]).state_dict())
    z = torch.randn(3, 4)
    assert torch.equal(loaded(z), smx.Mixed([1, 1, 0, 2])(z))
    for kind in (smx.Selective, smx.Mixed):
        parameters = inspect.signature(kind).parameters
        assert {parameters[name].kind for name in ("dim", "device")} == {inspect.Parameter.KEYWORD_ONLY}
    assert smx.Selective(3).temperature == 0.3
    assert smx.Selective(3).pool == smx.Mixed([0]).pool == resolve_pool(PAPER_POOL)


@pytest.mark.parametrize("make", [lambda **dim: smx.Selective(4, **dim), lambda **dim: smx.Mixed([0, 1, 2, 3], **dim)])
def test_a_wrong_width_says_what_was_expected(make: Callable[..., nn.Module]) -> None:
    name = type(make()).__name__
    for dim, right, wrong in [(1, (2, 4), (2, 5)), (1, (2, 4, 3), (4,)), (-2, (4, 3), (4,)), (-1, (4,), (4, 3))]:
        assert make(dim=dim)(torch.zeros(right)).shape == right
        with pytest.raises(ValueError, match="features") as error:
            make(dim=dim)(torch.zeros(wrong))
        assert str(error.value) == f"{name} expects 4 features on axis {dim}, got an input of shape {wrong}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smx.Selective(0), "num_features must be a whole number from 1 to 1048576, got 0"),
        (lambda: smx.Selective(3, temperature=0), "temperature must be positive and finite, got 0"),
        (lambda: smx.Selective(3, temperature=float("nan")), "temperature must be positive and finite, got nan"),
        (lambda: smx.Mixed([0, 6]), "choice must index the pool's 6 activations, got values from 0 to 6"),
        (lambda: smx.Mixed([-1, 0]), "choice must index the pool's 6 activations, got values from -1 to 0"),
        (lambda: smx.Mixed(torch.zeros(3)), "choice must be int64 (N,) with N >= 1, got torch.float32 (3,)"),
        (lambda: smx.Mixed([]), "choice must be int64 (N,) with N >= 1, got torch.int64 (0,)"),
        (lambda: smx.Mixed(torch.zeros(1, 1).long()), "choice must be int64 (N,) with N >= 1, got torch.int64 (1, 1)"),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        make()
    assert str(error.value) == message


def test_layers_print_what_they_are() -> None:
    assert repr(smx.Mixed([0, 4, 4], dim=-1)) == "Mixed(3, {relu: 1, elu: 2}, dim=-1)"
    assert repr(smx.Selective(1, ("relu", "elu"))) == "Selective(1, pool=(relu, elu), temperature=0.3, dim=1)"
