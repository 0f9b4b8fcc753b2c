"""Selection `matched`: the candidates by formulas in NumPy, what a layer keeps of them, and the commit."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import smx
from smx import functional
from smx.activations import BUILT_IN, Pool, resolve_pool
from smx.architecture import architecture_for
from smx.data import Dataset
from smx.export.reference import in_parts
from smx.layers import NEW_WEIGHT, OBSERVED
from smx.paper import PAPER_POOL
from smx.runtime.parity.locate import locate
from smx.training.config import TrainConfig
from smx.training.controls import replace_choices
from smx.training.parallel import ALONE
from smx.training.run import _next_network, _Run, load_checkpoint, train
from smx.training.step import OBSERVE_EVERY, adam
from tests.reference import DERIVATIVES, FUNCTIONS
from tests.smx.runs import SMALL, stop_run, stopped_and_resumed
from tests.smx.test_fused import assert_near, gradients

Array = NDArray[np.float64]
MATCHED = replace(SMALL, selection="matched")
pools = st.lists(st.sampled_from(BUILT_IN), min_size=1, max_size=5, unique=True).map(tuple)
shapes = st.sampled_from([(7,), (5, 7), (3, 4, 5), (2, 3, 4, 3), (1, 1), (40, 3)])


def matching(z: Array, names: tuple[str, ...]) -> Array:
    """The scales and shifts (2, K, N) for z (B, N): mean and deviation of c f(z) + e are those of ReLU(z)."""
    relu = np.maximum(z, 0)
    values = np.stack([FUNCTIONS[name](z) for name in names])
    scale = np.maximum(relu.std(0), 0.05) / np.maximum(values.std(1), 0.05)
    return np.stack([scale, relu.mean(0) - scale * values.mean(1)])


@settings(deadline=None, max_examples=60)
@given(names=pools, shape=shapes, dim=st.integers(0, 3), exact=st.booleans(), seed=st.integers(0, 2**31))
def test_candidates_get_the_mean_and_deviation_of_relu(
    names: tuple[str, ...], shape: tuple[int, ...], dim: int, exact: bool, seed: int
) -> None:
    dim %= len(shape)
    random = torch.Generator().manual_seed(seed)
    size = 10.0 ** torch.randint(-2, 2, (shape[dim],), generator=random)  # some have less than the least deviation
    spread = size.reshape(-1, *[1] * (len(shape) - 1 - dim))
    z = (torch.randn(shape, generator=random, dtype=torch.float64) * spread + 0.5).to(
        [torch.float32, torch.float64][exact]
    )
    rows = z.double().movedim(dim, -1).reshape(-1, shape[dim]).numpy()
    expected, tolerance = matching(rows, names), 1e-9 if exact else 1e-3
    for moments in (functional.moments, functional.moments_plain):
        if z.dim() > 1 or moments is functional.moments:
            actual = functional.matching(moments(z, names, dim))
            assert actual.dtype == z.dtype
            np.testing.assert_allclose(
                actual.numpy(), expected, rtol=tolerance, atol=tolerance * (1 + abs(expected).max())
            )
    if "relu" in names:
        assert torch.equal(
            actual[:, names.index("relu")], torch.tensor([[1.0], [0.0]]).expand(2, shape[dim]).to(z.dtype)
        )


def test_matched_candidates_and_their_gradients_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    z, g = rng.normal(0.3, 2, (2, 50, 6))
    logits, gumbel = rng.normal(size=(2, 6, 6))
    scale, shift = matching(z, PAPER_POOL)
    values = np.stack([scale[k] * FUNCTIONS[name](z) + shift[k] for k, name in enumerate(PAPER_POOL)])
    slopes = np.stack([scale[k] * DERIVATIVES[name](z) for k, name in enumerate(PAPER_POOL)])
    y = np.exp((logits + gumbel) / 0.3)
    y /= y.sum(1, keepdims=True)
    neurons, chosen = np.arange(6), y.argmax(1)
    g_s = (g * values).sum(1).T
    expected = [
        values[chosen, :, neurons].T,
        g * slopes[chosen, :, neurons].T,
        y * (g_s - (g_s * y).sum(1, keepdims=True)) / 0.3,
    ]
    tensors = [torch.from_numpy(x) for x in (z, logits, gumbel, np.stack([scale, shift]))]
    for function in (functional.selective, functional.selective_plain):
        run = lambda z, logits: function(z, logits, tensors[2], 0.3, PAPER_POOL, 1, tensors[3])  # noqa: B023, E731
        for actual, wanted in zip(gradients(run, *tensors[:2], g=torch.from_numpy(g)), expected, strict=True):
            np.testing.assert_allclose(actual.numpy(), wanted, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    pool=pools.map(resolve_pool), shape=shapes, dim=st.integers(0, 3), exact=st.booleans(), seed=st.integers(0, 2**31)
)
def test_the_fast_path_is_the_plain_formula(
    pool: Pool, shape: tuple[int, ...], dim: int, exact: bool, seed: int
) -> None:
    dim %= len(shape)
    dtype, random = [torch.float32, torch.float64][exact], torch.Generator().manual_seed(seed)
    z, g = torch.randn(2, *shape, dtype=dtype, generator=random) * 2
    logits, noise = torch.randn(2, shape[dim], len(pool), dtype=dtype, generator=random)
    affine = torch.randn(2, len(pool), shape[dim], dtype=dtype, generator=random)
    fast, plain = (
        gradients(lambda z, logits: function(z, logits, noise, 0.5, pool, dim, affine), z, logits, g=g)  # noqa: B023
        for function in (functional.selective, functional.selective_plain)
    )
    assert_near(fast, plain, g)


def test_a_layer_uses_running_averages_over_the_first_examples_of_each_batch() -> None:
    torch.manual_seed(0)
    layer = smx.Selective(4, PAPER_POOL, selection="matched")
    mean = variance = np.zeros((7, 4))
    for n in range(1, 61):
        z = torch.randn(OBSERVED + 5, 4, dtype=torch.float64) * (1 + n % 3) + n / 50
        h = layer.double()(z)
        first = z[:OBSERVED].numpy()
        values = np.stack([FUNCTIONS[name](first) for name in ("relu", *PAPER_POOL)])
        weight = max(1 / n, NEW_WEIGHT)
        mean, variance = (
            old + weight * (new - old) for old, new in ((mean, values.mean(1)), (variance, values.var(1)))
        )
    deviation = np.sqrt(np.maximum(variance, 0.05**2))
    scale = deviation[0] / deviation[1:]
    candidates = [
        scale[k] * FUNCTIONS[name](z.numpy()) + mean[0] - scale[k] * mean[1 + k] for k, name in enumerate(PAPER_POOL)
    ]
    distance = np.abs(h.detach().numpy() - np.stack(candidates)).max(1)  # (K, N): every neuron computes one of them
    assert distance.min(0).max() < 1e-6
    before = layer.moments.clone()  # type: ignore[union-attr]
    h = layer.eval()(z)
    chosen = layer.choice.numpy()
    np.testing.assert_allclose(h.detach().numpy(), np.stack(candidates)[chosen, :, range(4)].T, atol=1e-6)
    with smx.sampling(layer):
        assert not all(torch.equal(layer(z), h) for _ in range(9))
    layer.train()(torch.empty(0, 4, dtype=torch.float64))
    assert torch.equal(layer.moments, before)  # type: ignore[arg-type]


def test_a_neuron_has_its_own_logits_and_those_of_its_layer() -> None:
    layer = smx.Selective(3, ("relu", "tanh"), selection="matched")
    assert {name for name, _ in layer.named_parameters()} == {"logits", "layer_logits"}
    with torch.no_grad():
        layer.logits.copy_(torch.tensor([[0.0, 1], [0, 3], [9, 0]]))
        layer.layer_logits.copy_(torch.tensor([2.0, 0]))  # type: ignore[union-attr]
    assert layer.choice.tolist() == [0, 1, 0]
    layer.choose(torch.tensor([1, 0, 1]))
    assert layer.choice.tolist() == [1, 0, 1]
    layer(torch.randn(9, 3)).sum().backward()
    assert layer.layer_logits is not None
    assert layer.layer_logits.grad is not None
    assert layer.logits.grad is not None
    torch.testing.assert_close(layer.layer_logits.grad, layer.logits.grad.sum(0))
    assert not {"layer_logits", "moments", "batches"} & smx.Selective(3).state_dict().keys()
    with pytest.raises(ValueError, match="selection must be one of paper, matched, got 'best'"):
        smx.Selective(3, selection="best")


class Branches(nn.Module):
    """Layers whose scale and shift can't move: read twice, before a convolution, or inside a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.next = nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)
        self.act2, self.head = nn.ReLU(), nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.act2(self.next(self.act(self.conv(x)))).mean((2, 3)))
        return h


def shared() -> nn.Sequential:
    again = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), again, nn.ReLU(), again)


class Twice(nn.Identity):
    """No identity any more."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))
    net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0].clamp(max=1.0),))
    return net


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[bool]]] = {
    "a chain": (lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 3)), (4,), [False]),
    "nested": (
        lambda: nn.Sequential(OrderedDict(a=nn.Sequential(nn.Linear(4, 9), nn.ReLU()), b=nn.Linear(9, 3))),
        (4,),
        [False],
    ),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)), (9, 4), [False]),
    "no bias": (lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)), (4,), [True]),
    "a weight used twice": (shared, (4,), [True, True]),
    "a part that is no identity": (
        lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), Twice(), nn.Linear(9, 3)),
        (4,),
        [True],
    ),
    "hooks": (hooked, (4,), [True]),
    "at the end": (lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU()), (4,), [True]),
    "a forward of its own": (Branches, (1, 5, 5), [True, True, True]),
}


def selected(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """A network after some batches, with choices of all kinds."""
    torch.manual_seed(0)
    net = smx.select(make(), example_input=torch.randn(2, *shape), selection="matched", include="*")
    for _ in range(3):
        net(torch.randn(20, *shape) * 2)
    for layer in net.modules():
        if isinstance(layer, smx.Selective):
            nn.init.normal_(layer.logits)
    return net.eval()


@pytest.mark.filterwarnings("ignore:nothing was sorted")  # nothing can be at the end
@pytest.mark.parametrize("case", CASES)
def test_a_commit_keeps_the_function(case: str) -> None:
    make, shape, stay = CASES[case]
    net, x = selected(make, shape), torch.randn(7, *shape)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    committed = smx.commit(net)
    layers = [layer for layer in committed.modules() if isinstance(layer, smx.Mixed)]
    assert [layer.affine is not None for layer in layers] == stay
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    expected = net(x).detach()
    fresh = smx.commit(smx.select(make(), example_input=x, include="*"))
    fresh.load_state_dict(committed.state_dict())
    for other in (committed, smx.sort(committed, example_input=x), fresh.eval()):
        torch.testing.assert_close(other(x).detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("committed", [False, True])
def test_a_file_keeps_the_function(committed: bool, tmp_path: Path) -> None:
    net, x = selected(Branches, (1, 5, 5)), torch.randn(7, 1, 5, 5)
    smx.save(smx.commit(net) if committed else net, tmp_path / "model.pt", example_input=x)
    loaded = smx.load(tmp_path / "model.pt")
    torch.testing.assert_close(loaded(x), net(x), rtol=1e-5, atol=1e-5)
    if not committed:
        assert smx.commit(loaded).state_dict().keys() == {
            name.replace(".logits", ".choice").replace(".moments", ".affine")
            for name in net.state_dict()
            if not name.endswith(("layer_logits", "batches"))
        }


@pytest.mark.parametrize("z", [torch.full((1, 3), 2.0), torch.full((9, 3), torch.inf)])
def test_what_shows_no_deviation_is_not_averaged(z: Tensor) -> None:
    layer = smx.Selective(3, selection="matched")
    layer(torch.randn(9, 3))
    assert layer.moments is not None
    before = layer.moments.clone()
    layer(z)
    assert torch.equal(layer.moments, before)
    assert layer.eval()(torch.randn(2, 3)).isfinite().all()


def test_moments_of_many_values_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(6, 5, 7, 3, dtype=torch.float64)
    whole = smx.functional.moments(z, smx.PAPER_POOL)
    monkeypatch.setattr("smx.fused.matching.LARGE", 20)
    torch.testing.assert_close(smx.functional.moments(z, smx.PAPER_POOL), whole)


def test_a_commit_to_relu_alone_adds_nothing() -> None:
    net = selected(Branches, (1, 5, 5))
    for layer in net.modules():
        if isinstance(layer, smx.Selective):
            layer.choose(torch.zeros(layer.num_features, dtype=torch.int64))
    assert (
        smx.commit(net).state_dict().keys()
        == smx.commit(smx.select(Branches(), example_input=torch.zeros(2, 1, 5, 5))).state_dict().keys()
    )


def test_a_control_keeps_what_its_neurons_have() -> None:
    """Of a shuffled network, too, every neuron has the scale and the shift of its own new choice."""
    net, x = selected(Branches, (1, 5, 5)), torch.randn(6, 1, 5, 5)
    before = smx.commit(net)
    replace_choices(net, "shuffled", 1)
    after = smx.commit(net)
    torch.testing.assert_close(after(x), net(x))
    for old, new in zip(before.modules(), after.modules(), strict=True):
        if isinstance(old, smx.Mixed) and isinstance(new, smx.Mixed):
            assert old.group_sizes == new.group_sizes
    assert not torch.allclose(after(x), before(x))


@pytest.mark.parametrize("affine", [torch.ones(3), torch.ones(2, 4)])
def test_a_scale_of_the_wrong_shape(affine: Tensor) -> None:
    with pytest.raises(ValueError, match=r"affine must be \(2, 3\) for the choice, got \("):
        smx.Mixed([0, 1, 0], affine=affine)


def test_a_run_resumes_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    expected = train(MATCHED, digits, tmp_path / "whole")
    for epochs in (2, 4):
        resumed = stopped_and_resumed(MATCHED, digits, tmp_path / str(epochs), epochs)
        assert [row.changed for row in resumed.rows] == [row.changed for row in expected.rows]
        assert (tmp_path / str(epochs) / "model.pt").read_bytes() == (tmp_path / "whole" / "model.pt").read_bytes()
    assert expected.model.metrics["phase2"]["test_accuracy"] > 0.8


@pytest.mark.parametrize("selection", ["paper", "matched"])
def test_rewound_weights_are_those_of_the_start(selection: str) -> None:
    config = replace(SMALL, selection=selection, rewind=True)
    training = _Run(config, architecture_for("mlp", (8, 8), 10, hidden=config.hidden), ALONE)
    start, trained, x = training.network(1), training.network(1), torch.randn(9, 64)
    trained(x)
    for old, new in zip(start.modules(), trained.modules(), strict=True):
        for parameter in new.parameters(recurse=False):
            nn.init.normal_(parameter)
        if isinstance(old, smx.Selective) and isinstance(new, smx.Selective):
            old.choose(new.choice)
    begins = _next_network(training, trained)
    torch.testing.assert_close(begins.eval()(x), start.eval()(x))
    for layer in begins.modules():
        assert not isinstance(layer, smx.Mixed) or layer.choice.diff().min() >= 0


def test_every_fourth_step_of_an_epoch_is_observed(digits: Dataset, tmp_path: Path) -> None:
    stop_run(MATCHED, digits, tmp_path, 2)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state.model["layer1.activation.batches"] == 2 * math.ceil(11 / OBSERVE_EVERY)  # 11 steps an epoch


@pytest.mark.parametrize(
    ("config", "factors"),
    [
        (SMALL, [1.0]),
        (MATCHED, [1.0, 10.0]),
        (replace(MATCHED, logits_lr=1.0), [1.0]),
        (replace(SMALL, logits_lr=3.0), [1.0, 3.0]),
    ],
)
def test_the_logits_learn_at_a_rate_of_their_own(config: TrainConfig, factors: list[float]) -> None:
    net = nn.Sequential(nn.Linear(4, 6), smx.Selective(6, selection=config.selection), nn.Linear(6, 2))
    optimizer = adam(net, config)
    assert [group["lr"] for group in optimizer.param_groups] == [config.lr * factor for factor in factors]
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    if len(factors) > 1:
        assert {id(p) for p in optimizer.param_groups[1]["params"]} == {id(p) for p in net[1].parameters()}


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_a_file_knows_the_scale_of_its_neurons(layout: str, tmp_path: Path) -> None:
    """Each neuron of the file is compared with PyTorch's, whether scale and shift have moved or not."""
    net, x = smx.commit(selected(Branches, (1, 5, 5))), torch.randn(30, 1, 5, 5)
    smx.export.export_onnx(net, tmp_path / "m.onnx", example_input=x[:2], layout=layout)
    location = locate(tmp_path / "m.onnx", in_parts(net), in_parts(net, torch.float64), x.numpy())
    assert location.fault is None
    assert len(location.places) >= 6
