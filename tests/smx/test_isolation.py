"""Training works in any mode of PyTorch's, and leaves the caller's random numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import smx
from smx import data
from smx.errors import InputError
from smx.training.run import train
from tests.smx.runs import SMALL


def test_random_numbers_go_on_as_without_a_training(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(SMALL, data.load("digits"), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(1)
    smx.bench_train((5, 4, 2), baselines="relu", batch_sizes=3, plain=False, rounds=1, threads=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_run_trains_in_any_mode(mode: type[torch.no_grad], tmp_path: Path) -> None:
    with mode():
        run = train(SMALL, data.load("digits"), tmp_path / "inside")
    outside = train(SMALL, data.load("digits"), tmp_path / "outside")
    for name, weight in outside.model.weights.items():
        assert torch.equal(run.model.weights[name], weight)


def test_autocast_and_strictness_of_the_caller_stay_outside(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            inside = train(SMALL, data.load("digits"), tmp_path / "inside")
            assert torch.is_autocast_enabled("cpu")
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    outside = train(SMALL, data.load("digits"), tmp_path / "outside")
    assert inside.model.metrics == outside.model.metrics
    assert not torch.are_deterministic_algorithms_enabled()


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_another_default_dtype_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with double(), pytest.raises(InputError, match=r"trained in float32, and PyTorch's default is torch\.float64"):
        train(SMALL, data.load("digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
