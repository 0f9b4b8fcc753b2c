"""Every command as a user runs it: what it prints, leaves and returns."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.table import Table
from sklearn.datasets import load_digits

from smx.cli import main, options
from smx.export import compiler, precision
from smx.runtime import providers, settings
from smx.runtime.tune import goals
from smx.study.cell import CellFolder
from smx.study.grid import read_grid
from smx.study.listing import add_cells
from smx.workflows import bench
from tests.conftest import SMALL, python, refused, smx_many
from tests.edited import loaded
from tests.study.grids import with_grid


def test_train_leaves_a_whole_run(run: Path) -> None:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names == {
        "model.pt", "checkpoint.pt", "config.toml", "metrics.csv", "report.html",
        "figures/curves.png", "figures/shares.png", "figures/shares_by_epoch.png",
    }  # fmt: skip
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["hidden"] == [24, 16]
    assert config["temperature"] == 0.3


def test_train_says_where_it_is_and_prints_json_alone(tmp_path: Path) -> None:
    """By numbers of epochs, by a rule that is met as soon as there are two epochs to compare, and a baseline."""
    (tmp_path / "c.toml").write_text('hidden = [8]\nphase1_epochs = 2\nphase2_epochs = 9\npool = ["relu", "gelu"]\n')
    rule = ("--settle-window", "1", "--settle-changed", "1", "--settle-margin", "0", "--settle-loss", "1")
    fixed, settling, baseline, author = smx_many(
        ("train", "--config", tmp_path / "c.toml", "--phase2-epochs", "1", "--out", tmp_path / "a", "--json", "-"),
        (
            "train", *SMALL, "--phase1-epochs", "auto", *rule, "--lr-schedule", "cosine", "--tensorboard",
            "--out", tmp_path / "b", "--json", "-",
        ),
        ("train", *SMALL, "--activation", "elu", "--out", tmp_path / "c"),
        ("train", *SMALL, "--protocol", "author", "--out", tmp_path / "d"),
    )  # fmt: skip
    summary = json.loads(fixed.stdout)
    assert summary["config"]["phase2_epochs"] == 1  # options go before the file
    assert summary["config"]["hidden"] == [8]
    assert set(summary["shares"]["layer1.activation"]) == {"relu", "gelu"}
    assert 0 <= summary["metrics"]["phase1"]["test_accuracy_sampled"] <= 1
    assert re.findall("^(phase .*?)  loss", fixed.stderr, re.MULTILINE) == [
        "phase 1  epoch 1/2", "phase 1  epoch 2/2", "phase 2  epoch 1/1",
    ]  # fmt: skip
    assert json.loads(settling.stdout)["config"]["phase1_epochs"] == "auto"
    assert re.findall("^(phase .*?)  loss", settling.stderr, re.MULTILINE) == [
        "phase 1  epoch 1 of at most 50", "phase 1  epoch 2 of at most 50",
        *(f"phase 2  epoch {epoch} of at most 3" for epoch in (1, 2, 3)),
    ]  # fmt: skip
    assert tomllib.loads((tmp_path / "b" / "config.toml").read_text())["tensorboard"] is True
    assert len(list((tmp_path / "b" / "tensorboard").iterdir())) == 1
    assert "test accuracy" in baseline.stdout, baseline.stderr
    assert "test accuracy" in author.stdout, author.stderr
    assert not (tmp_path / "c" / "figures" / "shares.png").exists()


def test_export_takes_raw_values_in_a_fixed_batch(run: Path, exported: Path, tmp_path: Path) -> None:
    """The file normalises itself; predict and verify fill the last batch up. --batch is the older --batch-size."""
    path = tmp_path / "raw.onnx"
    images = load_digits().images[:10]
    np.save(tmp_path / "raw.npy", images.astype(np.uint8))
    np.save(tmp_path / "floats.npy", (images / 16).astype(np.float32))
    np.save(tmp_path / "bright.npy", images - 1)
    options = ("--normalize", "--batch", "7", "--layout", "sorted", "--json", "-")
    inputs = [(model, tmp_path / name) for model in (path, exported) for name in ("raw.npy", "floats.npy")]
    made, verified, bright, *predicted = smx_many(
        ("export", run / "model.pt", path, *options),
        ("verify", run / "model.pt", path, "--json", "-"),
        ("predict", path, tmp_path / "bright.npy"),
        *(("predict", *given, "--json", "-") for given in inputs),
    )
    assert (made.returncode, verified.returncode) == (0, 0), (made.stderr, verified.stderr)
    report = json.loads(made.stdout)
    assert (report["batch"], report["operators"]["Cast"]) == (7, 1)
    groups = [layer["groups"] for layer in report["layers"]]
    assert [sum(group.values()) for group in groups] == [24, 16]
    assert report["operators_before"]["MixedActivation"] == len(groups)
    assert report["bytes"] == path.stat().st_size
    assert "layer1.activation" in made.stderr
    assert "Div" not in report["operators"]  # it went into the first weights
    rows = json.loads(verified.stdout)["comparisons"]
    assert {(row["inputs"], row["batch_size"]) for row in rows} == {
        ("digits test", 7), ("random", 7), ("zeros", 7), ("largest", 7),
    }  # fmt: skip
    refused(bright, 2, "bright.npy must hold values from 0 to 16, got -16 to 240")
    predictions = [json.loads(result.stdout)["predictions"] for result in predicted]
    assert len(predictions[0]) == 10
    assert len({tuple(row["class"] for row in found) for found in predictions}) == 1


def test_verify_holds_and_breaks(run: Path, exported: Path, tmp_path: Path) -> None:
    proto = loaded(exported)
    node = next(node for node in proto.graph.node if node.op_type in ("Elu", "Selu", "Tanh", "Sigmoid"))
    node.op_type = "Softplus"
    node.ClearField("attribute")
    onnx.save(proto, tmp_path / "broken.onnx")
    options = ("--batch-sizes", "7,50", "--json", tmp_path / "v.json")
    holds, breaks, strict = smx_many(
        ("verify", run / "model.pt", exported, "--json", "-"),
        ("verify", run / "model.pt", tmp_path / "broken.onnx", *options),
        ("verify", run / "model.pt", exported, "--atol", "0", "--rtol", "0"),
    )
    report = json.loads(holds.stdout)
    assert report["passed"]
    assert {row["inputs"] for row in report["comparisons"]} == {
        "digits test", "random", "zeros", "large", "large mixed", "denormal", "kinks",
    }  # fmt: skip
    assert {row["batch_size"] for row in report["comparisons"]} == {1, 16, 128}
    test_set = report["comparisons"][0]
    assert test_set["output"] == "output"
    assert 0 < test_set["max_abs"] < 1e-4
    assert (test_set["agreement"], test_set["changed"]) == (1, [])
    assert 0 < test_set["arbitration"]["reference_error"] < 1e-4
    assert (holds.returncode, breaks.returncode, strict.returncode) == (0, 3, 3), holds.stderr
    assert "FAILED" in breaks.stdout
    assert "parity is broken" in breaks.stdout
    assert max(map(len, breaks.stdout.splitlines())) <= 140
    report = json.loads((tmp_path / "v.json").read_text())
    assert not report["passed"]
    assert {row["batch_size"] for row in report["comparisons"]} == {7, 50}
    assert report["nearer"] == {"reference": len(report["comparisons"])}
    changed = report["comparisons"][0]["changed"][0]
    line = "digits test example {example}: PyTorch says {reference}, the file says {got}"
    assert line.format(**changed) in breaks.stdout


def test_export_in_lower_precision(run: Path, tmp_path: Path) -> None:
    """verify refuses one with more changed predictions than 0.1 % (float16) or 0.5 % (int8), or as it is told."""
    limits, low = {"float16": 0.001, "int8": 0.005}, tmp_path / "low.onnx"
    export, verify = ("export", run / "model.pt", low, "--json", "-"), ("verify", run / "model.pt", low)
    strict = (*verify, "--atol", "1e-9", "--rtol", "0")
    results = smx_many(*(each for kind in limits for each in ((*export, "--precision", kind), verify, strict)))
    assert [result.returncode for result in results[2::3]] == [3, 3]
    for (kind, limit), result, verified in zip(limits.items(), results[::3], results[1::3], strict=True):
        report = json.loads(result.stdout)
        assert report["predictions"] == 360
        assert report["changed"] <= 2
        assert f"{kind} changes {report['changed']} of 360 test predictions" in result.stderr
        assert verified.returncode == (0 if report["changed"] / 360 <= limit else 3)


def test_predict_reads_images(exported: Path, tmp_path: Path) -> None:
    digits = load_digits()
    (tmp_path / "images").mkdir()
    for i in range(10):
        dark_on_light = Image.fromarray(255 - (digits.images[i] * 255 / 16).astype(np.uint8))
        dark_on_light.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "images" / f"{i}.png")
    np.save(tmp_path / "raw.npy", digits.images[:10].astype(np.uint8))
    images, raw = smx_many(
        ("predict", exported, tmp_path / "images", "--invert", "--json", "-"),
        ("predict", exported, tmp_path / "raw.npy", "--json", "-"),
    )
    seen, read = (json.loads(result.stdout)["predictions"] for result in (images, raw))
    assert [row["class"] for row in seen] == [row["class"] for row in read]
    assert np.mean([row["index"] == digits.target[i] for i, row in enumerate(read)]) >= 0.7
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-4) for row in read)


def test_inspect(run: Path, exported: Path, tmp_path: Path) -> None:
    """Names are shown as they are."""
    paths = (run / "model.pt", Path(shutil.copy(exported, tmp_path / "[bold]x[red].onnx")))
    results = smx_many(*((*("inspect", path), *json) for path in paths for json in ((), ("--json", "-"))))
    for path, shown, printed in zip(paths, results[::2], results[1::2], strict=True):
        assert "layer1.activation" in shown.stdout, shown.stderr
        assert path.name in "".join(shown.stdout.split())  # however it is wrapped
        found: dict[str, Any] = json.loads(printed.stdout)
        assert [layer["neurons"] for layer in found["layers"]] == [24, 16]
        assert found["architecture"] == "64-24-16-10"
        assert found["bytes"] == path.stat().st_size


def test_help_lists_the_work_in_its_order_and_has_examples() -> None:
    names = list(main.commands)
    assert names[:6] == ["train", "sweep", "report", "export", "verify", "bench"]
    top, *each = smx_many(("--help",), *((name, "--help") for name in names))
    assert re.findall("^  ([a-z-]+)  ", top.stdout.partition("Commands:")[2], re.MULTILINE) == names
    for name, result in zip(names, each, strict=True):
        assert f"smx {name}" in result.stdout.partition("Options:")[0].partition("\n\n")[2]


REPORTING = main.commands.keys() - {"completion", "serve"}
MEASURING = {"bench", "bench-train", "tune", "price"}


@pytest.mark.parametrize(
    "names", [REPORTING - MEASURING, pytest.param(MEASURING, marks=pytest.mark.long)], ids=["others", "measuring"]
)
def test_json_is_written_before_tables_are_shown(
    names: set[str], run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise RuntimeError("no table")

    monkeypatch.setattr(Table, "add_column", fail)
    np.save(tmp_path / "x.npy", np.zeros((1, 64), np.float32))
    model = shutil.copy(exported, tmp_path / "copy.onnx")
    few = ("--batch-sizes", "1", "--rounds", "1")
    swept = tmp_path / "swept"
    swept.mkdir()
    (cell,) = add_cells(swept, read_grid(with_grid(seed=[0])).cells())
    CellFolder.of(cell, swept).finish({"test_accuracy": 0.5})
    commands: dict[str, tuple[str | Path, ...]] = {
        "train": ("--resume", "--out", run),
        "sweep": ("--out", swept, "--status"),
        "report": (run, "--out", tmp_path / "page.html"),
        "export": (run / "model.pt", tmp_path / "m.onnx"),
        "verify": (run / "model.pt", exported, "--batch-sizes", "64"),
        "bench": (exported, *few),
        "bench-train": ("--hidden", "4", "--baselines", "relu", "--no-plain", *few),
        "tune": (model, "--rounds", "20", "--max-threads", "1"),
        "price": ("--batch-sizes", "1,2", "--widths", "2,3", "--rounds", "1"),
        "predict": (exported, tmp_path / "x.npy"),
        "inspect": (exported,),
    }
    assert commands.keys() == REPORTING
    for name, arguments in ((name, commands[name]) for name in names):
        path = tmp_path / f"{name}.json"
        with pytest.raises(RuntimeError, match="no table"):
            main([name, *map(str, arguments), "--json", str(path)], standalone_mode=False)
        assert json.loads(path.read_text()), name


def test_completion() -> None:
    """The script that is printed, and what a shell is then told."""
    shells = ("bash", "zsh", "fish")
    for shell, result in zip(shells, smx_many(*(("completion", shell) for shell in shells)), strict=True):
        assert f"_SMX_COMPLETE={shell}_complete" in result.stdout
    asked = {"smx export --layout ": "plain,scatter", "smx bench --layouts scatter,s": "plain,scatter,sorted"}
    for line, answer in asked.items():
        words = {"COMP_WORDS": line, "COMP_CWORD": "3", "_SMX_COMPLETE": "bash_complete"}
        result = python("-c", "from smx.cli import main; main(prog_name='smx')", env={**os.environ, **words})
        assert answer in result.stdout.splitlines(), result.stderr


def test_choices_are_those_of_the_library() -> None:
    assert set(options.LAYOUTS) == set(compiler.LAYOUTS)
    assert set(options.PRECISIONS) == set(precision.PRECISIONS)
    assert set(options.PROVIDERS) == set(providers.PROVIDERS)
    assert set(options.GOALS) == set(goals.GOALS)
    assert set(options.PYTORCH) == set(bench.PYTORCH)
    assert set(options.EXECUTION_MODES) == set(settings.EXECUTION_MODES)
    assert set(options.OPTIMIZATIONS) == set(settings.OPTIMIZATIONS)
    assert bench.LAYOUTS == options.LAYOUTS
