from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smx.figures.latency import draw_latency
from smx.figures.training import draw_run
from smx.runtime.latency.measure import measure_latency
from smx.training.checkpoint import Checkpoint


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        return {tuple(pixel) for pixel in np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()}


def test_a_run_is_drawn_with_the_colours_of_its_activations(run: Path, tmp_path: Path) -> None:
    rows = Checkpoint.load(run / "checkpoint.pt").rows
    paths = draw_run(rows, tmp_path)
    assert [path.name for path in paths] == ["curves.png", "shares.png", "shares_by_epoch.png"]
    relu_colour = (0x00, 0x72, 0xB2)
    assert relu_colour in colours(tmp_path / "shares.png")
    assert relu_colour in colours(tmp_path / "shares_by_epoch.png")
    baseline = [replace(row, phase=2) for row in rows[:1]]
    assert [path.name for path in draw_run(baseline, tmp_path)] == ["curves.png"]


@pytest.mark.parametrize("names", [("scatter", "relu"), ("scatter", "relu", "my_own")])
def test_a_bench_is_drawn(names: tuple[str, ...], exported: Path, tmp_path: Path) -> None:
    report = measure_latency(
        dict.fromkeys(names, exported), baseline="relu", batch_sizes=(1, 128), rounds=2, memory=False
    )
    assert len(colours(draw_latency(report, tmp_path / "bench.png"))) > 10
