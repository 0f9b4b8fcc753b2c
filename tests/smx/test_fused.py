"""The fast paths against the plain formulas, draw for draw."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import smx
from smx import functional
from smx.activations import BUILT_IN, Activation, Pool, resolve_pool
from smx.fused import basis, decisions, eager, operators
from smx.paper import PAPER_POOL
from smx.stepbench.memory import peak_bytes

FAST = (*PAPER_POOL, "identity")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
shapes = st.sampled_from([(7,), (5, 7), (3, 4, 5), (2, 3, 4, 3), (1, 1), (0, 4), (40, 33), (2, 16, 17, 19)])
pools = st.lists(st.sampled_from(BUILT_IN), min_size=1, unique=True).map(resolve_pool)
dtypes = st.sampled_from([torch.float32, torch.float64])


def assert_near(actual: list[Tensor], expected: list[Tensor], g: Tensor) -> None:
    """Assert agreement relative to the largest of all values and gradients, g among them."""
    largest = max((x.abs().max().item() for x in (*expected, g) if x.numel()), default=0.0)
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=TOLERANCE[y.dtype] * largest)


def gradients(function: Callable[..., Tensor], *inputs: Tensor, g: Tensor) -> list[Tensor]:
    """Return the value and the gradient of each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    h = function(*leaves)
    return [h.detach(), *torch.autograd.grad(h, leaves, g)]


@settings(deadline=None, max_examples=100)
@given(pool=pools, shape=shapes, dim=st.integers(0, 3), dtype=dtypes, sort=st.booleans(), seed=st.integers(0, 2**31))
def test_mixed_is_the_plain_formula(
    pool: Pool, shape: tuple[int, ...], dim: int, dtype: torch.dtype, sort: bool, seed: int
) -> None:
    dim %= len(shape)
    if not shape[dim]:
        return
    random = torch.Generator().manual_seed(seed)
    z, g = torch.randn(2, *shape, dtype=dtype, generator=random) * 2
    choice = torch.randint(len(pool), (shape[dim],), generator=random)
    choice = choice.sort().values if sort else choice
    layer = smx.Mixed(choice, pool, dim=dim)
    plain = gradients(lambda z: functional.grouped_plain(z, functional.groups(choice), pool, dim), z, g=g)
    assert_near(gradients(layer, z, g=g), plain, g)
    with torch.no_grad():
        assert_near([layer.eval()(z)], plain[:1], g)
        assert_near([functional.mixed(z, choice, pool, dim)], plain[:1], g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_and_tiny_pre_activations(dtype: torch.dtype) -> None:
    z = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 1e-7, -1e-7, 17.0, -17.0, 90.0, -90.0, 1e4, -1e4, 1e30, -1e30])
    z = z.to(dtype)[:, None].expand(-1, len(FAST)).contiguous()
    pool, choice = resolve_pool(FAST), torch.arange(len(FAST))
    plain = gradients(lambda z: functional.grouped_plain(z, functional.groups(choice), pool), z, g=torch.ones_like(z))
    for function in (lambda z: functional.mixed(z, choice, pool), smx.Mixed(choice, pool)):
        fast = gradients(function, z, g=torch.ones_like(z))
        for actual, expected in zip(fast, plain, strict=True):
            torch.testing.assert_close(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] / 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_the_hinges_are_straight_they_are_exact(dtype: torch.dtype) -> None:
    """So a tiny result has the sign of z, by which backward knows the side of the corner."""
    z = torch.tensor([1e-30, 1e-9, 0.3, 7.0, 1e9], dtype=dtype)[:, None].expand(-1, 5).contiguous().requires_grad_()
    pool = resolve_pool(("relu", "leaky_relu", "elu", "selu", "identity"))
    h = functional.mixed(z, torch.arange(5), pool)
    expected = torch.stack([f.function(z[:, k]) for k, f in enumerate(pool)], 1)
    torch.testing.assert_close(h, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
    (actual,) = torch.autograd.grad(h.sum(), z, retain_graph=True)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.sum(), z)[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("fixed", [False, True])
def test_blocks_are_put_together(fixed: bool, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    z, g = torch.randn(2, 23, 6, 4).movedim(2, dim + 1)
    table = basis.table_of(resolve_pool(PAPER_POOL))
    assert table is not None
    _, numbers = eager.numbers(table, torch.randperm(6), z, dim, fixed)
    results = []
    for scratch in (eager.SCRATCH, 100):
        monkeypatch.setattr(eager, "SCRATCH", scratch)
        h = eager.forward(z, numbers, dim)
        if fixed:
            back = eager.backward_fixed(g, h, numbers, dim, True), eager.backward_fixed(g, z, numbers, dim, False)
        else:
            back = eager.backward(g, z, numbers, dim)
        results.append([h, *back])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def network(dtype: torch.dtype | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(12, 20), smx.Selective(20), nn.Linear(20, 8), smx.Selective(8), nn.Linear(8, 3))
    return nn.Sequential(*layers).to(dtype)


def step(module: Callable[[Tensor], Tensor], parameters: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the outputs and all gradients of one step, always with the same noise."""
    torch.manual_seed(1)
    parameters.zero_grad()
    h = module(x)
    h.square().sum().backward()  # type: ignore[no-untyped-call]
    return [h.detach(), *(p.grad.clone() for p in parameters.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    "make",
    [
        network,
        lambda: nn.Sequential(nn.Linear(12, 8), smx.Selective(8, selection="matched"), nn.Linear(8, 3)),
        lambda: smx.commit(network()),
        lambda: nn.Sequential(nn.Linear(12, 8), smx.Mixed([0, 1, 1, 2, 3, 4, 5, 5]), nn.Linear(8, 3)),
        lambda: nn.Sequential(nn.Linear(12, 3), smx.Selective(3, ("relu", "gelu"))),
        lambda: nn.Sequential(nn.Linear(12, 3), smx.Mixed([1, 0, 1], ("relu", "gelu"))),
    ],
    ids=["selective", "matched", "mixed", "sorted", "selective, general", "mixed, general"],
)
def test_compiles_without_graph_breaks(make: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    module, x = make(), torch.randn(6, 12)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    other = copy.deepcopy(module)
    torch.testing.assert_close(step(compiled, module, x), step(other, other, x))
    torch.testing.assert_close(dict(module.named_buffers()), dict(other.named_buffers()))  # moments among them
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("dim", [1, -1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sorted_neurons_are_compiled_by_groups(dtype: torch.dtype, dim: int) -> None:
    """With the result kept and nothing else; an operation in the same graph may write into it all the same."""
    torch._dynamo.reset()
    choice = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 5, 6])
    shape = [4, 5, 5]
    shape[dim] = len(choice)
    z, g = (torch.randn(2, *shape) * 3).to(dtype)
    plain = partial(functional.grouped_plain, groups=functional.groups(choice), pool=FAST, dim=dim)
    expected = [value.to(dtype) for value in gradients(plain, z.double(), g=g.double())]
    layer = smx.Mixed(choice, FAST, dim=dim)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    kept = list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):  # type: ignore[func-returns-value]
        actual = gradients(compiled, z, g=g)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    assert [x.shape for x in kept] == [z.shape]
    overwritten = torch.compile(lambda z: layer(z).mul_(2), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(overwritten, z, g=g), [2 * value for value in actual])


def test_autocast_bfloat16() -> None:
    module, x = network(), torch.randn(6, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert module[1](torch.randn(6, 20).bfloat16()).dtype == torch.bfloat16
        low = step(module, module, x)
    for actual, expected in zip(low, step(module, module, x), strict=True):
        assert (actual.float() - expected).norm() <= 0.05 * expected.norm() + 1e-3
    assert [gradient.dtype for gradient in low[1:]] == [torch.float32] * len(list(module.parameters()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    z, choice, pool = torch.randn(9, 6).to(dtype), torch.arange(6).flip(0), resolve_pool(PAPER_POOL)
    h = functional.mixed(z, choice, pool)
    assert h.dtype == dtype
    assert torch.equal(h, functional.mixed(z.float(), choice, pool).to(dtype))
    exact, g = z.float().requires_grad_(), torch.randn_like(z)
    (expected,) = torch.autograd.grad(functional.mixed(exact, choice, pool), exact, g.float())
    (actual,) = torch.autograd.grad(functional.mixed(z.requires_grad_(), choice, pool), z, g)
    torch.testing.assert_close(actual, expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    module = network(dtype)
    assert all(torch.isfinite(value).all() for value in step(module, module, torch.randn(4, 12).to(dtype)))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    module, x = network(), torch.randn(6, 12, requires_grad=True)
    checkpointed = partial(checkpoint, module, use_reentrant=use_reentrant)
    torch.testing.assert_close(step(checkpointed, module, x), step(module, module, x), rtol=0, atol=0)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_batch_is_observed_once_under_gradient_checkpointing(use_reentrant: bool) -> None:
    torch.manual_seed(0)
    layer = smx.Selective(6, selection="matched")
    for _ in range(3):
        layer(torch.randn(9, 6))
    other, z, g = copy.deepcopy(layer), torch.randn(2, 9, 6)[0], torch.randn(9, 6)
    results = []
    for each, run in ((layer, layer), (other, lambda z: checkpoint(other, z, use_reentrant=use_reentrant))):
        torch.manual_seed(1)
        leaf = z.clone().requires_grad_()
        run(leaf).backward(g)  # type: ignore[no-untyped-call]
        assert each.logits.grad is not None
        results.append([leaf.grad, each.logits.grad, each.batches, each.moments])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_only_z_and_the_choice_are_kept() -> None:
    z = torch.randn(1000, 20, requires_grad=True)
    kept = list[Tensor]()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)  # type: ignore[func-returns-value]
    with hooks:
        smx.Selective(20)(z)
    assert sum(x.numel() for x in kept if len(x) == len(z)) == z.numel()
    assert sum(x.numel() for x in kept if len(x) != len(z)) <= 20 * (6 + 12)
    kept.clear()
    with hooks:
        h = smx.Mixed(torch.arange(20) // 4)(z)
    assert [x.data_ptr() for x in kept] == [h.data_ptr()]


def layouts(whole: Tensor) -> dict[str, Tensor]:
    """Return values (4, 6, 5, 6) as they may lie in memory, cut out of (8, 12, 5, 6)."""
    last = whole.contiguous(memory_format=torch.channels_last)
    return {
        "dense": whole[:4, :6].contiguous(),
        "channels-last": last[:4, :6].contiguous(memory_format=torch.channels_last),
        "part": whole[:4, :6],
        "part of channels-last": last[:4, :6],
        "every second": last[::2, ::2],
        "transposed": whole.transpose(2, 3)[:4, :6, :5, :].expand(4, 6, 5, 5),
        "expanded": whole[:4, :6, :1].expand(4, 6, 5, 6),
    }


@pytest.mark.parametrize("layout", layouts(torch.zeros(8, 12, 5, 6)))
@pytest.mark.parametrize("g_layout", ["dense", "channels-last", "expanded"])
@pytest.mark.parametrize("kind", ["selective", "mixed", "sorted"])
def test_any_layout_in_memory(layout: str, g_layout: str, kind: str) -> None:
    torch.manual_seed(0)
    z, g = layouts(torch.randn(8, 12, 5, 6))[layout], layouts(torch.randn(8, 12, 5, 6))[g_layout]
    g = g[..., : z.shape[-1]]
    pool, logits, noise = resolve_pool(PAPER_POOL), torch.randn(6, 6), torch.randn(6, 6)
    choice = torch.tensor([5, 3, 1, 0, 2, 4])
    choice = choice.sort().values if kind == "sorted" else choice
    if kind == "selective":
        functions: list[Callable[..., Tensor]] = [functional.selective, functional.selective_plain]
        fast, plain = (gradients(lambda z, x, f=f: f(z, x, noise, 0.3, pool), z, logits, g=g) for f in functions)
    else:
        fast = gradients(smx.Mixed(choice), z, g=g)
        plain = gradients(lambda z: functional.grouped_plain(z, functional.groups(choice), pool), z, g=g)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    assert fast[0].is_contiguous(memory_format=torch.channels_last) or layout != "channels-last"
    if kind == "sorted":
        with torch.no_grad():
            assert smx.Mixed(choice)(z).stride() == torch.empty_like(z).stride()


@pytest.mark.parametrize("layer", [smx.Selective(6), smx.Mixed([5, 3, 1, 0, 2, 4])], ids=["selective", "mixed"])
@pytest.mark.parametrize("compiled", [False, True])
def test_what_follows_may_write_into_the_result(layer: nn.Module, compiled: bool) -> None:
    torch._dynamo.reset()
    z = torch.randn(3, 6, requires_grad=True)
    torch.manual_seed(0)
    expected = torch.autograd.grad((2 * layer(z)).square().sum(), z)
    torch.manual_seed(0)
    h = torch.compile(layer, backend="aot_eager")(z) if compiled else layer(z)
    torch.testing.assert_close(torch.autograd.grad(h.mul_(2).square().sum(), z), expected)


def test_writing_into_the_result_of_sorted_neurons_is_refused() -> None:
    h = smx.Mixed([0, 1, 3, 3, 4, 5])(torch.randn(3, 6, requires_grad=True)).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


def test_a_single_group_is_no_alias_of_the_input() -> None:
    z = torch.zeros(2, 3)
    smx.Mixed([0, 0, 0], (Activation("as_it_is", lambda z: z),))(z).add_(1)
    assert not z.any()


@pytest.mark.parametrize("layer", [smx.Selective(6), smx.Mixed([0, 1, 1, 2, 4, 5]), smx.Mixed([5, 3, 1, 0, 2, 4])])
def test_nothing_is_left_of_a_pass_that_computes_nothing(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    z, g = torch.randn(2, 4, 6)
    torch.manual_seed(0)
    expected = gradients(copy.deepcopy(layer), z, g=g)
    for name in ("_columns", "_weights", "_fractions"):
        monkeypatch.setattr(eager, name, basis.made_once(getattr(eager, name).__wrapped__))  # nothing made yet
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer(torch.randn(4, 6, requires_grad=True)).sum().backward()
    torch.manual_seed(0)
    torch.testing.assert_close(gradients(layer, z, g=g), expected, rtol=0, atol=0)


def test_a_layer_is_loaded_onto_another_device(tmp_path: Path) -> None:
    """What it prepared for the first one stays behind."""
    layer = smx.Mixed([0, 1, 1, 2, 4, 5])
    layer(torch.randn(4, 6, requires_grad=True))
    torch.save(layer, tmp_path / "layer.pt")
    loaded = torch.load(tmp_path / "layer.pt", map_location="meta", weights_only=False)
    assert not loaded._fixed._numbers
    assert loaded(torch.randn(4, 6, device="meta", requires_grad=True)).device.type == "meta"
    assert not loaded.to_empty(device="cpu")._fixed._numbers


@pytest.mark.parametrize("shape", [(1, 512, 128), (2, 128, 512), (512, 128)])
def test_intermediate_values_take_the_memory_of_a_block(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "SCRATCH", 4096)
    for layer in (smx.Selective(shape[-1], dim=-1), smx.Mixed(torch.arange(shape[-1]).flip(0) % 6, dim=-1)):
        z, g = torch.randn(shape, requires_grad=True), torch.randn(shape)

        def step(layer: nn.Module = layer, z: Tensor = z, g: Tensor = g) -> None:
            layer(z).backward(g)

        step()
        assert peak_bytes(step) <= 3.3 * z.nbytes  # h, the gradient, and what is added to the one that is there


@pytest.mark.parametrize("layer", [smx.Selective(6), smx.Mixed([5, 3, 1, 0, 2, 4]), smx.Mixed([0, 1, 3, 3, 4, 5])])
def test_second_derivatives_are_refused(layer: nn.Module) -> None:
    z = torch.randn(3, 6, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(z).square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()  # type: ignore[no-untyped-call]


def test_a_users_own_activation_takes_the_general_path() -> None:
    twice = Activation("twice", lambda z: 2 * z, smx.op("Relu"))  # its ONNX form is not what it does
    pool = (*resolve_pool(PAPER_POOL), twice)
    assert basis.table_of(pool) is None
    z = torch.randn(3, 4, requires_grad=True)
    for choice in itertools.permutations([0, 6, 6, 1], 4):
        assert torch.equal(smx.Mixed(choice, pool)(z)[:, choice.index(6)], 2 * z[:, choice.index(6)])


@settings(deadline=None, max_examples=60)
@given(
    pool=st.lists(st.sampled_from(FAST), min_size=1, unique=True).map(resolve_pool),
    shape=shapes,
    dim=st.integers(0, 3),
    dtype=dtypes,
    matched=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_layer_of_one_activation_leaves_terms_of_0_out(
    pool: Pool, shape: tuple[int, ...], dim: int, dtype: torch.dtype, matched: bool, seed: int
) -> None:
    """The same bits as with the terms, but for the sign of a 0."""
    dim %= len(shape)
    table = basis.table_of(pool)
    if len(shape) < 2 or shape[dim] < 2 or table is None:
        return
    random = torch.Generator().manual_seed(seed)
    z, g = torch.randn(2, *shape, dtype=dtype, generator=random) * 2
    same = int(torch.randint(len(pool), (), generator=random))
    choice = decisions.of_neurons(torch.tensor([same]), shape[dim], shape[dim])
    assert (decisions.only(choice), decisions.only(choice.clone())) == (same, None)
    found = []
    for each in (choice, choice.clone()):
        saved, numbers = eager.numbers(table, each, z, dim, False)
        assert any(not len(part) for part in numbers) == (each is choice)
        if matched:
            affine = torch.randn(2, shape[dim], dtype=dtype, generator=torch.Generator().manual_seed(seed))
            saved, numbers = eager.rescaled(saved, numbers, affine)
        found.append([eager.forward(z, numbers, dim), *eager.backward(g, z, numbers, dim)])
    for few, all_terms in zip(*found, strict=True):
        assert torch.equal(few, all_terms)


@pytest.mark.parametrize("name", ["identity", "relu", "selu"])
def test_what_follows_a_layer_that_holds_may_write_into_the_result(name: str) -> None:
    layer = smx.Selective(6, FAST, per="layer", selection="matched")
    layer.begin(torch.tensor([FAST.index(name)]))
    layer.holds = True
    z = torch.randn(5, 6)
    layer(z)  # which observes
    layer.observes = False
    assert layer.matching is not None
    affine = operators.of_choice(layer.matching, layer.choice)

    def plain(z: Tensor) -> Tensor:
        return 2 * functional.rescaled(functional.mixed_plain(z, layer.choice.clone(), layer.pool), affine)

    expected = gradients(plain, z, g=torch.ones(5, 6))
    for actual, wanted in zip(gradients(lambda z: layer(z).mul_(2), z, g=torch.ones(5, 6)), expected, strict=True):
        assert torch.equal(actual, wanted)
    with torch.no_grad():
        before = z.clone()
        assert torch.equal(layer(z).mul_(2), expected[0])
        assert torch.equal(z, before)
