"""Numbers that nothing can be measured with are refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import smx
from smx.errors import InputError
from smx.workflows.sweep import plan

ONNX, MODEL = (Path(__file__).parents[1] / "fixtures" / name for name in ("sorted.onnx", "model.pt"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: smx.bench([ONNX], rounds=0), "rounds must be between 1 and 1000000, got 0"),
        (lambda: smx.bench([ONNX], batch_sizes=[]), r"batch sizes must be whole numbers .* got \[\]"),
        (lambda: smx.bench([ONNX], batch_sizes=[0]), r"batch sizes must be whole numbers .* got \[0\]"),
        (lambda: smx.bench([ONNX], batch_sizes=0), r"batch sizes must be whole numbers .* got \[0\]"),
        (lambda: smx.bench(MODEL, baselines="r"), "unknown activation 'r'; known are relu"),
        (lambda: smx.bench(MODEL, layouts="best"), "unknown layout 'best'; known are"),
        (lambda: smx.bench(MODEL, pytorch="lazy"), "PyTorch runs a network eager or compiled, got lazy"),
        (lambda: smx.bench([ONNX], limits="sorted"), "a limit is written .*, got 'sorted'"),
        (lambda: smx.export_model(MODEL, "m.onnx", dynamic=[1]), r"dynamic names axes by input, as .*, got \[1\]"),  # type: ignore[arg-type]
        (lambda: smx.price(names="r"), "unknown activation 'r'; known are relu"),
        (
            lambda: smx.price(MODEL, names="relu"),
            r"model\.pt must end in \.json, so that no other file is written over",
        ),
        (lambda: smx.save(nn.Linear(2, 2), ONNX, example_input=torch.ones(1, 2)), r"must end in \.pt or \.pth, so"),
        (lambda: smx.load_prices().relative("tanh"), "a sequence of activations, got the text 'tanh'"),
        (
            lambda: smx.load_prices().activations({"relu": 4}, batch_size=1, form="sorted"),
            "form must be one of .*'sorted'",
        ),
        (
            lambda: smx.load_prices().activations({"relu": 4}, batch_size=0, form="shared"),
            "batch_size must be .* got 0",
        ),
        (lambda: smx.verify(MODEL, ONNX, data=np.zeros((5, 7))), r"expects an input of shape \(.*64\), got \(1, 7\)"),
        (lambda: smx.verify(MODEL, ONNX, data=np.zeros((0, 64))), "data has no examples"),
        (lambda: smx.verify(MODEL, ONNX, data=3.0), "data must be the name of a data set, or .*, got float"),  # type: ignore[arg-type]
        (lambda: smx.price(rounds=0), "rounds must be between 1 and 1000000, got 0"),
        (lambda: smx.price(widths=(0, 8)), r"widths must be whole numbers from 1 on, got \[0, 8\]"),
        (lambda: smx.tune(MODEL, goal="p90"), "unknown goal 'p90'; known are"),
        (lambda: plan("digits", seeds=[]), "seeds must be one or more whole numbers, got none"),
        (lambda: plan("digits", only="method=relu"), "only must be pairs .* got 'method=relu'"),  # type: ignore[arg-type]
        (lambda: smx.sweep(out="none", seeds=3), "seeds and settings are a grid's; give one"),
        (lambda: smx.price(widths=4), "widths must be"),  # type: ignore[arg-type]
        (lambda: smx.bench_train((5, 4, 2), selection="best"), "selection must be one of .* got 'best'"),
        (lambda: smx.bench_train((5, 4, 2), rounds=0), "rounds must be between 1 and"),
        (lambda: smx.bench_train((5,)), r"sizes must be inputs, neurons .* got \[5\]"),
        (lambda: smx.bench_train((5, 0, 2)), r"sizes must be inputs, neurons .* got \[5, 0, 2\]"),
        (lambda: smx.bench_train((5, 4, 2), threads=0), "threads must be between 1 and 256, got 0"),
        (lambda: smx.bench_train((5, 4, 2), device="tpu"), "the device must be cpu or cuda, got 'tpu'"),
        (lambda: smx.tune(ONNX, max_threads=0), "threads must be between 1 and 256, got 0"),
        (lambda: smx.tune(ONNX, batch_size=0), r"batch sizes must be whole numbers .* got \[0\]"),
        (lambda: smx.classify(ONNX, []), "no examples are given; give an array, or paths"),
        (lambda: smx.export_model(MODEL, MODEL), r"model\.pt must end in \.onnx"),
    ],
)
def test_bad_numbers(call: Callable[[], object], said: str) -> None:
    before = MODEL.read_bytes()
    with pytest.raises(InputError, match=said):
        call()
    assert MODEL.read_bytes() == before


def test_one_value_stands_for_a_list_of_one() -> None:
    report = smx.bench_train(
        (5, 4, 2), baselines="relu", selection="matched", batch_sizes=3, plain=False, rounds=1, threads=1
    )
    names = ["relu", "phase 1", "phase 1, matched", "phase 2", "phase 2, unsorted"]
    assert [(row.name, row.batch_size) for row in report.results] == [(name, 3) for name in names]
    assert {cell.config.seed for cell in plan("digits", seeds=7)} == {7}
    assert {cell.method for cell in plan("digits", only={"method": "tanh"})} == {"tanh"}
    assert {cell.config.seed for cell in plan("digits", seeds=np.int64(7))} == {7}  # type: ignore[arg-type]


def test_examples_may_be_arrays_tensors_and_lists() -> None:
    digits = smx.data.load("digits").test
    scaled = (digits.x[:9] / 16).reshape(9, 64)
    for data in (scaled, torch.from_numpy(scaled), scaled.tolist(), digits.x[:9].reshape(9, 64)):
        assert smx.verify(MODEL, ONNX, data=data, batch_sizes=np.int64(4)).passed  # type: ignore[arg-type]
    found = [smx.classify(ONNX, x).indices.tolist() for x in (scaled, torch.from_numpy(scaled))]  # type: ignore[arg-type]
    assert found[0] == found[1]


def test_reports_print_in_some_lines(tmp_path: Path) -> None:
    digits = smx.data.load("digits")
    run = smx.train(data="digits", hidden=8, phase1_epochs=1, phase2_epochs=1, per="neuron", out=tmp_path / "run")
    whole = np.zeros((1000, 64), np.float32)
    for report in (digits, run, smx.report(tmp_path / "run"), smx.classify(ONNX, whole), smx.load_prices()):
        assert len(repr(report)) < 5000


def test_a_part_of_a_grid_is_named_in_any_spelling() -> None:
    def methods(only: Any) -> list[str]:
        return sorted({cell.method for cell in plan("digits", only=only)})

    assert methods({"method": ["ReLU", "leaky-relu"], "seed": 0}) == ["leaky_relu", "relu"]
    assert methods([("activation", "LeakyReLU")]) == ["leaky_relu"]
    assert {cell.config.hidden for cell in plan("digits", only={"hidden": [256, 128]})} == {(256, 128)}


def test_cells_are_trained_in_processes_that_know_no_activation_of_this_one(tmp_path: Path) -> None:
    smx.register(smx.Activation("only_here", torch.sin), replace=True)
    grid = {"grid": {"pool": [["only_here", "relu"]], "seed": [0]}}
    with pytest.raises(InputError, match="'only_here' is registered in this process alone"):
        smx.sweep(grid, out=tmp_path / "sweep")


def test_every_command_takes_both_suffixes_of_a_network(tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.rand(3, 4)
    mixed = smx.commit(smx.select(net, example_input=x))
    smx.save(mixed, tmp_path / "net.pth", example_input=x)
    assert smx.describe(tmp_path / "net.pth").file == str(tmp_path / "net.pth")
    report = smx.bench(tmp_path / "net.pth", layouts="sorted", baselines="relu", batch_sizes=1, rounds=20)
    assert {row.name for row in report.results} == {"sorted", "relu"}
