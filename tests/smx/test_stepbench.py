"""What bench-train measures: the steps are PyTorch's own, the candidates are one function, the bytes can be counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from smx import paper
from smx.activations import resolve_pool
from smx.layers import Mixed, Selective, selectives
from smx.stepbench.costs import measure_steps
from smx.stepbench.memory import peak_bytes, saved_bytes, step_memory
from smx.stepbench.networks import (
    PHASE1,
    PHASE1_PLAIN,
    PHASE2,
    PHASE2_PLAIN,
    PHASE2_UNSORTED,
    Build,
    choices,
    networks,
    phase1,
)
from smx.stepbench.runner import DEFAULTS, StepRunner, training_step
from smx.torchrunner import TorchRunner
from smx.training.config import from_values
from smx.training.parallel import Share
from smx.training.step import Step

FLOAT = 4  # bytes


def batch(examples: int, features: int, classes: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.random((examples, features), np.float32), random.integers(classes, size=examples)]


def loss_and_gradients(build: Build, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the loss, its gradient for the inputs and for each parameter, in float64."""
    model, x = build().double(), x.clone().requires_grad_()
    torch.manual_seed(1)  # of the noise
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return loss.detach(), x.grad, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@given(st.lists(st.integers(-6, 5000), min_size=1, max_size=30))
@settings(max_examples=8, deadline=None)
def test_the_peak_of_what_is_allocated_and_freed(moves: list[int]) -> None:
    """A positive number is a tensor of so many floats, another one frees one of those that are there."""
    sizes: list[int] = []
    expected = 0

    def run() -> None:
        nonlocal expected
        alive = []
        for move in moves:
            if move > 0:
                alive.append(torch.empty(move))
                sizes.append(move)
                expected = max(expected, FLOAT * sum(sizes))
            elif alive:
                del alive[move % len(alive)], sizes[move % len(sizes)]

    before = torch.empty(1000)  # does not count
    assert peak_bytes(run) == expected
    assert before.numel() == 1000


def test_what_is_kept_for_the_backward_pass() -> None:
    weight, x = torch.randn(20, 7, requires_grad=True), torch.randn(50, 20)

    def forward() -> Tensor:
        h = (x @ weight).sigmoid()  # keeps its result; the product keeps x, for the gradient of the weight
        return (h[:, :3] * h[:, 3:6]).sum()  # keeps two views of the same storage

    assert saved_bytes(forward, (x, weight)) == FLOAT * 50 * 7
    assert saved_bytes(forward) == FLOAT * (50 * 7 + 50 * 20)
    assert saved_bytes(lambda: x.sum()) == 0


@pytest.mark.parametrize(("activation", "kept"), [("relu", 1), ("sigmoid", 1), ("selu", 2), ("leaky_relu", 2)])
def test_a_step_counted_by_hand(activation: str, kept: int) -> None:
    """Of B x N values: ReLU and Sigmoid keep their result h, as the next layer does; the others keep z besides.

    When an activation's backward is computed, what it kept (h or z) is there, and the gradients of h and of z.
    """
    B, F, N, C = 128, 300, 1000, 10
    build = networks((F, N, C), baselines=(activation,))[activation]
    memory = step_memory(build, batch(B, F, C))
    assert memory.saved == FLOAT * (kept * B * N + B * C + 1), "the softmax for the classes, and the number of examples"
    most = FLOAT * 3 * B * N
    assert most <= memory.activations <= 1.02 * most
    product = FLOAT * (N * F + B * N)  # the gradient of the first weight, made of that of z
    assert max(most, product) <= memory.accumulating <= 1.02 * max(most, product)
    at_the_end = product + FLOAT * C * N  # and that of the other weight
    assert max(most, at_the_end) <= memory.step <= 1.02 * max(most + FLOAT * C * N, at_the_end)


def test_a_step_is_that_of_a_plain_loop() -> None:
    """Adam, cross-entropy, gradients clipped to norm 1: the paper's."""
    build = networks((12, 16, 8, 3))["relu"]
    x, y = torch.randn(20, 12) * 100, torch.arange(20) % 3
    ours, theirs = build(), build()
    step = training_step(ours, x, y)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-4)
    for _ in range(3):
        step()
        adam.zero_grad()
        nn.CrossEntropyLoss()(theirs(x), y).backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 1.0) > 1, "so that it matters"
        adam.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@given(
    hidden=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    pool=st.lists(st.sampled_from([*paper.PAPER_POOL, "gelu"]), min_size=1, max_size=7, unique=True),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_candidates_of_a_phase_are_one_function(hidden: list[int], pool: list[str], seed: int) -> None:
    sizes = (5, *hidden, 3)
    made = networks(sizes, pool, ("relu",), seed=seed)
    assert list(made) == ["relu", PHASE1, PHASE1_PLAIN, PHASE2, PHASE2_UNSORTED, PHASE2_PLAIN]
    x, y = torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 3
    for first, second in ((PHASE1, PHASE1_PLAIN), (PHASE2_UNSORTED, PHASE2_PLAIN)):
        ours, theirs = (loss_and_gradients(made[name], x, y) for name in (first, second))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    unsorted, sorted_ = (loss_and_gradients(made[name], x, y) for name in (PHASE2_UNSORTED, PHASE2))
    torch.testing.assert_close(unsorted[:2], sorted_[:2], rtol=1e-9, atol=1e-12)
    for name, gradient in unsorted[2].items():
        moved = sorted_[2][name]
        torch.testing.assert_close(gradient.flatten().sort()[0], moved.flatten().sort()[0], rtol=1e-9, atol=1e-12)
    layers = [part for part in made[PHASE2]().modules() if isinstance(part, Mixed)]
    for layer, choice in zip(layers, choices(hidden, resolve_pool(pool), seed), strict=True):
        assert layer.choice.equal(choice.sort().values)


def test_another_rule_has_its_layers_and_its_settings() -> None:
    made = networks((5, 7, 6, 3), rules=("matched", "recommended"), plain=False)
    assert list(made) == ["relu", PHASE1, phase1("matched"), phase1("recommended"), PHASE2, PHASE2_UNSORTED]
    layers = {rule: selectives(made[phase1(rule)]()) for rule in ("matched", "recommended")}
    assert [(layer.selection, layer.per) for layer in layers["matched"]] == [("matched", 1)] * 2
    assert [(layer.selection, layer.per) for layer in layers["recommended"]] == [("matched", 7), ("matched", 6)]
    assert all(layer.present is not None for layer in layers["recommended"])
    weights = [made[name]().get_parameter("output.weight") for name in (phase1("matched"), "relu")]
    assert torch.equal(*weights)
    x, y = map(torch.from_numpy, batch(20, 5, 3))
    moved = []
    for config in (DEFAULTS, from_values({"logits_lr": 3.0})):
        model = made[phase1("recommended")]()
        before = selectives(model)[0].logits.detach().clone()
        training_step(model, x, y, config)()
        moved.append((selectives(model)[0].logits - before).abs().max().item())
    assert moved == pytest.approx([1e-3, 3e-4], rel=0.01), "Adam's first step is the rate"


def test_neurons_choose_as_in_the_paper() -> None:
    drawn = choices((100_000, 10, 100_000), resolve_pool(paper.PAPER_POOL))
    first, last = (Counter(layer.tolist()) for layer in (drawn[0], drawn[2]))
    shares = {name: k for k, name in enumerate(paper.PAPER_POOL)}
    for name, counts, share in (
        ("relu", first, 0.37), ("leaky_relu", first, 0.34), ("selu", last, 0.64), ("elu", last, 0.31),
    ):  # fmt: skip
        assert counts[shares[name]] / 100_000 == pytest.approx(share, abs=0.01)
    assert all(sum(paper.shares(depth).values()) == pytest.approx(1) for depth in (0, 0.3, 1))
    (evenly,) = choices((100_000,), resolve_pool(("gelu", "silu", "mish", "identity")))
    assert [count / 100_000 for count in Counter(evenly.tolist()).values()] == pytest.approx([0.25] * 4, abs=0.01)


def test_every_block_has_new_networks_and_the_baseline_runs_twice() -> None:
    made = networks((4, 8, 3), plain=False)
    built: Counter[str] = Counter()

    def counting(name: str) -> Build:
        def build() -> nn.Module:
            built[name] += 1
            return made[name]()

        return build

    seen: list[int] = []
    threads = torch.get_num_threads()
    report = measure_steps(
        {name: counting(name) for name in made}, baseline="relu", features=4, classes=3, batch_sizes=(6, 3),
        threads=1, rounds=2, on_progress=seen.append,
    )  # fmt: skip
    names = ["relu", PHASE1, PHASE2, PHASE2_UNSORTED]
    rounds, counted = 2, 2
    assert built == dict.fromkeys(names, rounds + counted) | {"relu": 2 * rounds + counted}
    assert seen == [6, 3] * rounds
    assert torch.get_num_threads() == threads
    expected = [(name, size) for size in (6, 3) for name in names]
    assert [(row.name, row.batch_size) for row in report.results] == expected
    assert [(row.name, row.batch_size) for row in report.memory] == expected
    assert [(row.name, row.batch_size) for row in report.control] == [("relu again", 6), ("relu again", 3)]
    for row in report.memory:
        assert row.ratio == row.accumulating / next(
            other.accumulating for other in report.memory if (other.name, other.batch_size) == ("relu", row.batch_size)
        )
        assert row.saved < row.activations <= row.accumulating
    assert report.warnings[0] == "2 rounds are too few for intervals to rely on; expected at least 20"
    assert report.machine["torch"] == torch.__version__


def test_compiled_candidates_stay_through_all_blocks() -> None:
    built = 0

    def build() -> nn.Module:
        nonlocal built
        built += 1
        return networks((4, 8, 3))["relu"]()

    with torch.compiler.set_stance("force_eager"):  # what a compiler would make of it is not the question
        report = measure_steps(
            {"relu": build}, baseline="relu", features=4, classes=3, batch_sizes=(6,), threads=1, compiled=("relu",),
            rounds=3,
        )  # fmt: skip
    assert [row.name for row in report.results] == ["relu", "relu, compiled"]
    assert [row.name for row in report.memory] == ["relu"]
    assert built == 1 + 2 * 3 + 1, "for the memory, for each block twice, and compiled once"


@pytest.mark.parametrize("length", [1, 3, 5])
def test_steps_that_observe_are_timed_as_often_as_in_training(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    observed: list[bool] = []
    monkeypatch.setattr(Selective, "_observe", lambda layer, z, running: observed.append(layer.observes))
    taken: list[Tensor] = []
    step = Step._step

    def counted(self: Step, x: Tensor, y: Tensor, share: Share) -> None:
        taken.append(x)
        step(self, x, y, share)

    monkeypatch.setattr(Step, "_step", counted)
    runner = StepRunner(networks((4, 8, 3), rules=("matched",))[phase1("matched")])
    runner.start()
    runner.prepare(batch(6, 4, 3))
    assert runner.time(length).shape == (-(-length // 4),)
    assert len(taken) == 4 * (1 + -(-length // 4)), "one run untimed"
    assert len(observed) == len(taken) / 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    before = torch.zeros(1000, device="cuda")
    assert peak_bytes(lambda: before.repeat(1024), "cuda") == FLOAT * 1000 * 1024
    made = networks((20, 64, 3))
    report = measure_steps(
        made, baseline="relu", features=20, classes=3, batch_sizes=(32,), device="cuda", cuda_graphs=True, rounds=2
    )
    assert [row.name for row in report.results] == list(made)
    assert all(row.p50 > 0 for row in report.results)
    runner = StepRunner(made["relu"], "cuda", cuda_graphs=True)
    runner.start()
    runner.prepare(batch(32, 20, 3))
    assert runner.model is not None
    weights = runner.model.get_parameter("output.weight").clone()
    runner.time(1)
    assert not torch.equal(weights, runner.model.get_parameter("output.weight")), "a replayed step trains"


def test_each_network_is_compiled_and_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the tenth of a class; by default PyTorch leaves the ninth alone."""
    graphs: list[list[str]] = []

    def counting(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append([node.name for node in graph.graph.nodes if node.op in ("call_function", "call_module")])
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    torch._dynamo.reset()
    for _ in range(10):
        runner = StepRunner(lambda: networks((4, 8, 8, 3))["relu"](), compiled=True)
        runner.start()
        for size in (6, 5):
            runner.prepare(batch(size, 4, 3))
            runner.time(2)
    assert len(graphs) == 10 * 2
    assert all(len(graph) == 5 for graph in graphs), "three matrix products and two activations"
    prediction = TorchRunner(lambda: nn.Sequential(nn.Linear(4, 2), nn.ReLU()), compiled=True)
    prediction.start()
    prediction.prepare([np.zeros((3, 4), np.float32)])
    prediction.time(1)
    assert len(graphs[-1]) == 2


@pytest.mark.parametrize("compiled", [False, True])
def test_runs_are_predictions_of_a_module_that_is_new_in_every_block_unless_compiled(compiled: bool) -> None:
    built: list[nn.Module] = []
    seen: list[tuple[Tensor, bool]] = []

    def build() -> nn.Module:
        built.append(nn.Linear(3, 2))
        built[-1].register_forward_hook(lambda _, x, y: seen.append((y, torch.is_inference_mode_enabled())))
        return built[-1]

    threads = torch.get_num_threads()
    runner = TorchRunner(build, compiled=compiled, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    x = np.random.default_rng(0).random((4, 3), np.float32)
    with torch.compiler.set_stance("force_eager"):
        for block in range(2):
            seconds = runner.start()
            assert (seconds is None) == (compiled and block == 1)
            runner.prepare([x])
            assert runner.time(3).shape == (3,)
    assert len(built) == (1 if compiled else 2)
    assert len(seen) == 2 * 4
    assert all(inference for _, inference in seen)
    weights = [parameter.detach().numpy() for parameter in built[-1].parameters()]
    np.testing.assert_allclose(seen[-1][0].numpy(), x @ weights[0].T + weights[1], rtol=1e-5, atol=1e-6)
