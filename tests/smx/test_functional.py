from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from smx import functional
from smx.activations import BUILT_IN, resolve_pool
from smx.paper import PAPER_POOL
from tests import reference

POOL = resolve_pool(PAPER_POOL)
pools = st.lists(st.sampled_from((*PAPER_POOL, "identity")), min_size=1, unique=True).map(tuple)


def test_gumbel_noise_is_equation_1() -> None:
    u = torch.rand(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).numpy()
    noise = functional.gumbel_noise((50, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    np.testing.assert_allclose(noise.numpy(), -np.log(-np.log(u + 1e-20) + 1e-20), rtol=1e-12)


def test_gumbel_noise_is_finite_for_any_uniform_value(monkeypatch: pytest.MonkeyPatch) -> None:
    assert functional.gumbel_noise((2, 3), device="meta").device.type == "meta"
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.tensor([0.0, 1.0, 0.5]))
    expected = [-np.log(-np.log(1e-20)), -np.log(1e-20), -np.log(np.log(2))]
    np.testing.assert_allclose(functional.gumbel_noise((3,)), expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_selective_agrees_with_torchs_gumbel_softmax(temperature: float) -> None:
    torch.manual_seed(0)
    z, weights = torch.randn(2, 7, 40, dtype=torch.float64)
    logits = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng():  # gumbel_softmax draws its noise so; the same state gives the same draw
        noise = -torch.empty_like(logits).exponential_().log()
    s = torch.nn.functional.gumbel_softmax(logits, tau=temperature, hard=True)
    theirs = (torch.stack([activation.function(z) for activation in POOL], -1) * s).sum(-1)
    ours = functional.selective(z, logits, noise, temperature, POOL)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((h * weights).sum(), logits)[0] for h in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    names=pools,
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    data=st.data(),
    temperature=st.sampled_from([0.05, 0.3, 1.0, 5.0]),
    spread=st.sampled_from([0.1, 2, 30]),
    seed=st.integers(0, 2**31),
)
def test_selective_and_its_gradients_are_the_formulas(
    names: tuple[str, ...], shape: list[int], data: st.DataObject, temperature: float, spread: float, seed: int
) -> None:
    """Every position of (B, N, *) counts as an example of its neurons."""
    random = np.random.default_rng(seed)
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    z, g_h = random.normal(0, spread, (2, *shape))
    logits, noise = random.normal(0, 1, (2, shape[dim], len(names)))

    def flat(array: Any) -> Any:
        return np.moveaxis(array, dim, -1).reshape(array.size // max(1, shape[dim]), shape[dim])

    h, g_z, g_logits = reference.selective(flat(z), logits, noise, temperature, names, flat(g_h))
    tz, tlogits = torch.tensor(z, requires_grad=True), torch.tensor(logits, requires_grad=True)
    for function in (functional.selective, functional.selective_plain):
        out = function(tz, tlogits, torch.tensor(noise), temperature, names, dim)
        got = torch.autograd.grad(out, (tz, tlogits), torch.tensor(g_h))
        np.testing.assert_allclose(flat(out.detach().numpy()), h, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(flat(got[0].numpy()), g_z, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(got[1].numpy(), g_logits, rtol=1e-9, atol=1e-12 * max(1, spread) ** 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_sample_is_exactly_one_hot(dtype: torch.dtype) -> None:
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    logits = torch.randn(500, 6, dtype=dtype)
    for noise in (functional.gumbel_noise((500, 6)), functional.gumbel_noise((500, 6), dtype=torch.float64)):
        s = functional.straight_through(logits, noise, 0.3)
        assert s.dtype == expected
        assert torch.equal(s.sort(1).values, torch.tensor([0.0] * 5 + [1.0], dtype=expected).expand(500, 6))


def test_gumbel_max_samples_the_softmax_of_the_logits() -> None:
    """Equation 7, by a chi-squared test of 60,000 draws."""
    logits = torch.tensor([0.5, -1.0, 0.0, 2.0, 1.0, -0.3])
    draws = 60_000
    noise = functional.gumbel_noise((draws, 6), generator=torch.Generator().manual_seed(7))
    s = functional.straight_through(logits.expand(draws, 6), noise, 0.3)
    expected = torch.softmax(logits.double(), 0).numpy() * draws
    assert chisquare(s.sum(0).double().numpy(), expected * (draws / expected.sum())).pvalue > 1e-3


@settings(deadline=None, max_examples=60)
@given(
    names=st.lists(st.sampled_from(BUILT_IN), min_size=1, unique=True).map(tuple),
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
def test_mixed_is_one_activation_a_neuron(
    names: tuple[str, ...], shape: list[int], data: st.DataObject, seed: int
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, shape)
    choice = random.integers(0, len(names), shape[axis])
    expected = reference.mixed(z, choice, names, axis)
    tz, tchoice = torch.tensor(z), torch.tensor(choice)
    for h in (
        functional.mixed(tz, tchoice, names, axis),
        functional.grouped_plain(tz, functional.groups(tchoice), names, axis),
    ):
        np.testing.assert_allclose(h.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_a_pool_may_have_names_and_activations() -> None:
    z, logits, noise = torch.randn(3, 2), torch.randn(2, 2), torch.zeros(2, 2)
    choice, pool = logits.argmax(1), resolve_pool(("relu", "gelu"))
    for names in (["relu", "gelu"], ("relu", pool[1]), iter(["relu", "gelu"])):
        assert torch.equal(functional.mixed(z, choice, names), functional.mixed(z, choice, pool))
    for function in (functional.selective, functional.selective_plain):
        assert torch.equal(function(z, logits, noise, 0.3, ["relu", "gelu"]), function(z, logits, noise, 0.3, pool))
    with pytest.raises(ValueError, match="unknown activation 'step'"):
        functional.mixed(z, choice, ["step"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    z = torch.randn(3, 6, 2, dtype=dtype, requires_grad=True)
    logits = torch.randn(6, 6, dtype=dtype)
    h = functional.mixed(z, logits.argmax(1), POOL)
    assert h.dtype == dtype
    assert "Combine" in str(h.grad_fn)  # the fast path
    torch.testing.assert_close(functional.mixed(z.movedim(1, 0), logits.argmax(1), POOL, 0), h.movedim(1, 0))
    torch.testing.assert_close(functional.selective(z, logits, torch.zeros(6, 6), 0.3, POOL), h)


def test_groups_are_equation_9() -> None:
    groups = functional.groups(torch.tensor([4, 0, 4, 2]))
    assert [(k, index.tolist()) for k, index in groups] == [(0, [1]), (2, [3]), (4, [0, 2])]
