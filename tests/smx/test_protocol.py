"""The two protocols, against NumPy in float64: what counts as output and loss, alone and in whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import smx
from smx import data
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig
from smx.training.protocol import AUTHOR, STANDARD, Protocol
from smx.training.run import train

Array = NDArray[np.float64]
CLAMP = 10


def softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(exponents / exponents.sum(1, keepdims=True))


def cross_entropies(outputs: Array, y: NDArray[np.int64], *, author: bool) -> Array:
    """The author applies the cross-entropy of logits to an output that already went through a softmax."""
    outputs = softmax(outputs) if author else outputs
    shifted = outputs - outputs.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y])


@pytest.mark.parametrize(("protocol", "author"), [(STANDARD, False), (AUTHOR, True)])
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 999))
def test_outputs_and_losses(protocol: Protocol, author: bool, examples: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, y = random.normal(0, 20, (examples, classes)), random.integers(0, classes, examples)
    logits[0, :2] = 70, -70
    outputs = {phase: protocol.outputs(torch.from_numpy(logits), phase).numpy() for phase in (1, 2)}
    np.testing.assert_array_equal(outputs[1], np.clip(logits, -CLAMP, CLAMP) if author else logits)
    np.testing.assert_array_equal(outputs[2], logits)
    expected, weights = cross_entropies(logits, y, author=author), random.random(examples)
    arguments = torch.from_numpy(logits), torch.from_numpy(y)
    np.testing.assert_allclose(protocol.loss(*arguments), expected.mean(), rtol=1e-12, atol=1e-12)
    weighted = protocol.loss(*arguments, torch.from_numpy(weights))
    np.testing.assert_allclose(weighted, (expected * weights).sum(), rtol=1e-12, atol=1e-12)


def test_the_pool_of_phase_1() -> None:
    pool = smx.Mixed([0], ("identity", "relu")).pool
    z = torch.tensor([-70.0, -3, 5, 70])
    assert STANDARD.phase1_pool(pool) == pool
    identity, relu = AUTHOR.phase1_pool(pool)
    assert (identity.name, relu.name) == ("identity", "relu")
    assert identity.function(z).tolist() == [-10, -3, 5, 10]
    assert relu.function(z).tolist() == [0, 0, 5, 10]


@pytest.mark.parametrize("protocol", ["standard", "author"])
def test_the_losses_of_a_run_are_those_of_its_protocol(protocol: str, tmp_path: Path) -> None:
    """Without noise, as there is one activation, and with inputs so large that most values lie beyond the clamp."""
    digits = replace(data.load("digits"), maximum=0.05)
    config = TrainConfig(
        hidden=(20, 12), pool=("identity",), protocol=protocol, phase1_epochs=1, phase2_epochs=1, lr=1e-30, device="cpu"
    )
    states: list[Checkpoint] = []
    rows = train(
        config, digits, tmp_path, on_epoch=lambda row: states.append(Checkpoint.load(tmp_path / "checkpoint.pt"))
    ).rows
    author, clamped = protocol == "author", []
    assert [row.phase for row in rows] == [state.phase for state in states] == [1, 2]
    for row, state in zip(rows, states, strict=True):
        for split, loss in ((digits.train, row.train_loss), (digits.validation, row.validation_loss)):
            outputs = forward(state.model, split.x.reshape(len(split), -1) / 0.05, clamp=author and row.phase == 1)
            assert loss == pytest.approx(cross_entropies(outputs, split.y, author=author).mean(), rel=1e-4)
        clamped.append(np.mean(np.abs(outputs) > CLAMP))
    assert clamped[1] > 0.1  # the outputs of phase 2 are not clamped
    assert (clamped[0] == 0) == author


def forward(state: dict[str, Any], x: Array, *, clamp: bool) -> Array:
    for layer in ("layer1.linear", "layer2.linear", "output"):
        x = x @ state[f"{layer}.weight"].double().numpy().T + state[f"{layer}.bias"].double().numpy()
        x = np.clip(x, -CLAMP, CLAMP) if clamp else x
    return x
