from __future__ import annotations

import copy

import pytest
import torch

import smx
from smx import functional
from smx.layers import START_LOGIT
from smx.paper import PAPER_POOL


def test_logits_start_at_zero_with_one_favourite() -> None:
    layer = smx.Selective(200)
    values, counts = torch.unique(layer.logits.detach(), return_counts=True)
    assert values.tolist() == pytest.approx([0.0, START_LOGIT])
    assert counts.tolist() == [1000, 200]
    assert torch.unique(layer.choice).numel() == 6


def test_training_samples_and_eval_does_not() -> None:
    layer = smx.Selective(50)
    z = torch.randn(4, 50)
    assert not torch.equal(layer(z), layer(z))
    layer.eval()
    assert torch.equal(layer(z), functional.mixed(z, layer.choice, layer.pool))
    with smx.sampling(layer):
        assert not torch.equal(layer(z), layer(z))
    assert torch.equal(layer(z), layer(z))


def test_one_draw_serves_the_whole_batch() -> None:
    layer = smx.Selective(30)
    h = layer(torch.randn(1, 30).expand(5, 30))
    torch.testing.assert_close(h, h[:1].expand(5, 30))


def test_a_seed_gives_the_formula_with_its_noise() -> None:
    layer = smx.Selective(8, pool=("relu", "tanh"), temperature=0.7, dim=-1)
    z = torch.randn(3, 4, 8)
    torch.manual_seed(5)
    h = layer(z)
    torch.manual_seed(5)
    noise = functional.gumbel_noise((8, 2))
    torch.testing.assert_close(h, functional.selective(z, layer.logits, noise, 0.7, layer.pool, -1))


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_gradients_reach_z_and_every_logit(dim: int) -> None:
    z = torch.randn(4, 6, 6, requires_grad=True)
    layer = smx.Selective(6, dim=dim)
    layer(z).square().sum().backward()
    assert z.grad is not None
    assert layer.logits.grad is not None
    assert (layer.logits.grad != 0).all()


def test_mixed_moves_saves_loads_and_copies() -> None:
    layer = smx.Mixed([0, 5, 1, 0])
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
    meta = copy.deepcopy(layer).to("meta")
    assert all(buffer.device.type == "meta" for buffer in meta.buffers())


def test_bfloat16_module() -> None:
    layer = smx.Selective(12).to(torch.bfloat16)
    h = layer(torch.randn(2, 12, dtype=torch.bfloat16))
    assert h.dtype == torch.bfloat16
    h.float().sum().backward()
    assert layer.logits.grad is not None


@pytest.mark.parametrize("layer", [smx.Selective(4), smx.Mixed([0, 1, 2, 3])])
def test_a_wrong_width_says_what_was_expected(layer: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expects 4 features on axis 1, got an input of shape \(2, 5\)"):
        layer(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"got an input of shape \(4,\)"):
        layer(torch.zeros(4))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        smx.Selective(0)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        smx.Selective(3, temperature=0)
    with pytest.raises(ValueError, match=r"index the pool's 6 activations, got values from 0 to 6"):
        smx.Mixed([0, 6])
    with pytest.raises(ValueError, match=r"choice must be int64 \(N,\)"):
        smx.Mixed(torch.zeros(3))


def test_layers_print_what_they_are() -> None:
    assert "relu: 1, elu: 2" in repr(smx.Mixed([0, 4, 4]))
    assert f"pool=({', '.join(PAPER_POOL)})" in repr(smx.Selective(3))
