"""`smx tune` as a user runs it. What wins here is this machine's business; where it matters, the search is made up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest

from smx.cli import main
from smx.modelfile import load_model, save_model
from smx.runtime.metadata import ModelInfo
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.runtime.tune.search import Configuration, TuningReport
from smx.runtime.tuning import tuning_path, variant_path
from smx.timing.machine import machine
from tests.conftest import refused, smx
from tests.test_house import HEAVY, base_install, loaded_after

QUICK = ("--max-threads", "1", "--rounds", "20")
BEST = Settings(threads=1)


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported model, in a folder of its own."""
    path = tmp_path / "small.onnx"
    path.write_bytes(exported.read_bytes())
    return path


@pytest.fixture
def x(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).random((5, 64)).astype(np.float32))
    return path


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the search find what the test wants."""

    def decide(file: str = "", high: float = 0.8) -> None:
        def tune(files: dict[str, Path], **options: Any) -> TuningReport:
            assert all(path.is_file() for path in files.values())
            return TuningReport(
                goal=options["goal"], batch_size=options["batch_size"], provider=options["provider"], measured=(),
                best=Configuration(file=file, threads=1), rounds=60, level=0.99, ratio=0.75, low=0.7, high=high,
                default_figure=100.0, best_figure=75.0, machine=machine(), warnings=("too noisy",), seconds=1.0,
            )  # fmt: skip

        monkeypatch.setattr("smx.workflows.tune.without_torch", lambda _, *given, **options: tune(*given, **options))

    return decide


def tune(*arguments: str | Path) -> None:
    main(["tune", *map(str, arguments)], standalone_mode=False)


def fails(message: str, *arguments: str | Path) -> None:
    """Assert that the command would end with this message and exit code 2."""
    with pytest.raises(click.ClickException, match=re.escape(message)) as caught:
        tune(*arguments)
    assert caught.value.exit_code == 2


def with_metadata(path: Path, properties: dict[str, str]) -> None:
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def test_it_leaves_a_file_that_is_used(model: Path, x: Path, tmp_path: Path) -> None:
    """The base install is enough."""
    before = Session(model).run(np.load(x))
    tuning_path(model).write_text("{")  # a damaged one is replaced
    result = base_install("tune", model, *QUICK, "--batch-size", "4", "--goal", "throughput", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["model"] == str(model)
    assert [one["name"] for one in report["measured"]] == ["1 thread"]
    assert report["low"] <= report["ratio"] <= report["high"]
    written = json.loads(tuning_path(model).read_text())
    assert written["settings"]["threads"] == report["winner"]["threads"]
    assert (written["batch_size"], written["goal"], written["provider"]) == (4, "throughput", "cpu")
    assert (written["gain"]["high"] < 1) == (not report["kept_default"])
    for part in (f"written to {tuning_path(model)}", "1 thread takes", "of their mean time", "examples a second"):
        assert part in result.stderr
    assert ("The defaults stay" in result.stderr) == report["kept_default"]
    assert set(tmp_path.iterdir()) == {model, x, tuning_path(model)}
    session = Session(model)
    assert session.settings == Settings(**written["settings"])
    np.testing.assert_allclose(session.run(np.load(x)), before, atol=1e-6)
    shown = smx("predict", model, x)
    tuned = f"tuned: {session.settings.describe()}"
    assert (tuned in shown.stderr) == (not report["kept_default"])


def test_predict_says_why_a_tuning_is_not_used(model: Path, x: Path, found: Callable[..., None]) -> None:
    found()
    tune(model)
    assert smx("predict", model, x, "--allow-fallback").stderr.startswith(f"tuned: {BEST.describe()}")
    with_metadata(model, {})
    result = smx("predict", model, x)
    note = "small.onnx.tune.json is not used: the model is another one since smx tune"
    assert (result.returncode, note in result.stderr) == (0, True)


def test_torch_is_never_loaded_where_it_is_measured(model: Path, run: Path) -> None:
    arguments = ["tune", str(model), "--model", str(run / "model.pt"), *QUICK, "--json", str(model.parent / "r.json")]
    assert not loaded_after(f"from smx.cli import main; main({arguments!r}, standalone_mode=False)") & HEAVY
    report = json.loads((model.parent / "r.json").read_text())
    assert {one["name"] for one in report["measured"]} == {"1 thread", "sorted, all threads", "sorted, 1 thread"}


def test_another_layout_is_put_beside_it_and_removed_again(
    model: Path, run: Path, found: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported as the model was: from raw values, with its opset and batch size."""
    options = ("--normalize", "--batch", "3", "--opset", "20")
    main(["export", str(run / "model.pt"), str(model), *options], standalone_mode=False)
    capsys.readouterr()
    x = np.random.default_rng(0).integers(0, 17, (3, 8, 8), np.uint8)
    before = Session(model).run(x)
    found("sorted")
    for _ in range(2):  # the second time over its own file
        tune(model, "--model", run / "model.pt", "--goal", "p99")
    out, err = capsys.readouterr()
    shown = " ".join(out.split())
    assert "Warning: too noisy" in err
    assert "Faster than the defaults: sorted, 1 thread takes 0.750" in shown
    assert "(0.700 to 0.800, 99% interval) of their p99 (75.0 instead of 100.0 microseconds)" in shown
    variant, session = variant_path(model), Session(model)
    assert session.tuning is not None
    assert session.tuning.describe() == f"small.tuned.onnx, {BEST.describe()}; for the p99 of batch 3"
    assert session.info is not None
    assert (session.info.layout, session.batch, session.takes_raw) == ("sorted", 3, True)
    assert {entry.domain: entry.version for entry in onnx.load(variant).opset_import}[""] == 20
    np.testing.assert_allclose(session.run(x), before, atol=1e-4)
    found("sorted", high=1.0)
    tune(model)
    assert "The defaults stay, nothing was certainly faster: sorted, 1 thread" in capsys.readouterr().out
    assert not variant.exists()
    assert Session(model).settings == Settings()
    np.save(model.parent / "x.npy", x)
    result = smx("predict", model, model.parent / "x.npy")
    assert (result.returncode, result.stderr) == (0, ""), "that the defaults stay is no news"


def test_a_file_of_somebody_elses_stays(model: Path, run: Path, found: Callable[..., None], exported: Path) -> None:
    variant = variant_path(model)
    variant.write_bytes(b"mine")
    found("sorted")
    fails("small.tuned.onnx exists, but is not from an earlier smx tune of", model, "--model", run / "model.pt")
    variant.unlink()
    tune(model, "--model", run / "model.pt")
    variant.write_bytes(b"mine")  # in the place of what tune left
    fails("move or remove it", model, "--model", run / "model.pt")
    found()
    tune(model)
    assert variant.read_bytes() == b"mine"


def test_bad_input(model: Path, run: Path, tmp_path: Path) -> None:
    refused(smx("tune", tmp_path / "none.onnx"), 2, "none.onnx does not exist")
    fails("choose another path for --json", model, "--json", tuning_path(model))
    fails("none.pt does not exist", model, "--model", tmp_path / "none.pt")
    fixed = tmp_path / "fixed.onnx"
    main(["export", str(run / "model.pt"), str(fixed), "--batch", "3"], standalone_mode=False)
    fails("fixed.onnx is made for batch size 3, got 4", fixed, "--batch-size", "4")
    assert not list(tmp_path.glob("*.tune.json"))


def test_a_model_that_does_not_belong_to_the_file(model: Path, run: Path, tmp_path: Path) -> None:
    saved = load_model(run / "model.pt")
    other = tmp_path / "other.pt"
    first = next(name for name in saved.weights if name.endswith("weight"))
    saved.weights[first] = -saved.weights[first]
    save_model(other, saved)
    fails("other.pt: their answers differ by up to", model, "--model", other)
    layer = next(iter(saved.choices))
    saved.choices[layer] = (saved.choices[layer] + 1) % len(saved.pool)
    save_model(other, saved)
    refused(smx("tune", model, "--model", other), 2, "small.onnx was not exported from", "their mixed layers differ")
    info = Session(model).info
    assert isinstance(info, ModelInfo)
    with_metadata(model, {**info.to_properties(), "smx.precision": "int8"})
    fails("other layouts are tried in float32 alone", model, "--model", run / "model.pt")
    with_metadata(model, {})
    fails("was not written by smx export; tune it without", model, "--model", run / "model.pt")
    assert not tuning_path(model).exists()
