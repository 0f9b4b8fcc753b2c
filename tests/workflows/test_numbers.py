"""Numbers that nothing can be measured with are refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
        (lambda: smx.price(names="r"), "unknown activation 'r'; known are relu"),
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
    assert smx.verify(MODEL, ONNX, data=np.zeros((9, 64), np.float32), batch_sizes=4).passed
    assert {cell.config.seed for cell in plan("digits", seeds=7)} == {7}
