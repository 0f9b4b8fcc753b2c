"""The layout `fastest` as a user asks for it. What wins here is this machine's business."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from smx.cli import main, options
from smx.errors import InputError
from smx.export import exporter
from smx.runtime.session import Session
from smx.runtime.tuning import tuning_path
from smx.workflows.export_model import export_model
from smx.workflows.tune import tune
from tests.conftest import refused, smx_many
from tests.edited import loaded
from tests.runtime.fakes import save


def test_prices_decide_and_the_file_says_why(run: Path, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "fastest.onnx"
    chosen, inspected = smx_many(
        ("export", run / "model.pt", path, "--layout", "fastest", "--no-measure", "--batch", "4", "--json", "-"),
        ("inspect", path),
    )
    report = json.loads(chosen.stdout)
    found = report["fastest"]
    assert (report["layout"], found["batch_sizes"], found["measured"], found["file"]) == (
        "fastest",
        [4],
        False,
        "forms",
    )
    assert [each["layer"] for each in found["layers"]] == ["layer1.activation", "layer2.activation"]
    assert "fastest: taken: forms" in chosen.stderr
    assert "taken: forms" in inspected.stdout
    session = Session(path)
    assert session.info is not None
    assert session.info.layout == "fastest"
    assert session.info.chosen[-1].startswith("by prices of ")
    x = np.random.default_rng(0).random((4, 64)).astype(np.float32)
    np.testing.assert_allclose(session.run(x), Session(exported).run(x), atol=1e-4)


@pytest.mark.long
def test_tune_searches_it_for_a_saved_network(run: Path, tmp_path: Path) -> None:
    """The whole search, by measuring."""
    model, tuned = tmp_path / "model.pt", tmp_path / "model.tuned.onnx"
    model.write_bytes((run / "model.pt").read_bytes())
    quick = ("--batch-size", "4", "--rounds", "20", "--max-threads", "1", "--json", tmp_path / "report.json")
    result, twice = smx_many(("tune", model, *quick), ("tune", model, "--model", model))
    assert result.returncode == 0, result.stderr
    refused(twice, 2, "two networks are given")
    assert json.loads((tmp_path / "report.json").read_text())["batch_size"] == 4
    assert set(tmp_path.iterdir()) == {model, tuned, tuning_path(tuned), tmp_path / "report.json"}
    assert f"written to {tuning_path(tuned)}" in result.stdout
    session = Session(tuned)
    assert session.info is not None
    assert session.info.layout == "fastest"
    assert session.info.chosen[-1].startswith("measured on ")
    assert session.tuning is not None


def test_a_tuning_that_is_stopped_changes_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tuned = tmp_path / "model.pt", tmp_path / "model.tuned.onnx"
    model.write_bytes((run / "model.pt").read_bytes())

    def stopped(*arguments: object, **options: object) -> None:
        searched.append(arguments)
        raise KeyboardInterrupt

    searched: list[tuple[object, ...]] = []
    monkeypatch.setattr("smx.workflows.tune.without_torch", stopped)
    monkeypatch.setattr("smx.workflows.tune.with_torch", lambda _, model, path, **how: save(path))
    for _ in range(2):  # what an earlier one left would be refused
        with pytest.raises(KeyboardInterrupt):
            tune(model)
    assert len(searched) == 2
    assert {*tmp_path.iterdir()} == {model}
    with pytest.raises(InputError, match="unknown goal 'p90'"):  # before anything is searched
        tune(model, goal="p90")
    tuned.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"exists, but is not from an earlier smx tune of .*; move or remove it"):
        tune(model)
    assert tuned.read_bytes() == b"mine"
    assert len(searched) == 2


def test_bad_input(run: Path, tmp_path: Path) -> None:
    model, path = run / "model.pt", tmp_path / "m.onnx"
    for options_, why in (
        ({"for_batch": 2}, "only the layout fastest is searched, got settings of a search for scatter"),
        ({"layout": "fastest", "for_batch": 2, "batch": 3}, "made for batch size 3, so it can't be searched for 2"),
        ({"layout": "fastest", "precision": "float16"}, "searched in float32 alone, got float16; export it as sorted"),
        (
            {"layout": "fastest", "measure": False, "price": tmp_path / "p.json"},
            "p.json does not exist; expected a price",
        ),
        ({"layout": "slowest"}, "unknown layout 'slowest'; known are scatter, sorted, fastest"),
    ):
        with pytest.raises(InputError, match=why):
            export_model(model, path, **options_)
    assert not path.exists()
    assert options.FASTEST == exporter.FASTEST


def test_files_of_an_older_version_say_nothing_of_a_choice(exported: Path, tmp_path: Path) -> None:
    proto = loaded(exported)
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key != "smx.chosen"}
    assert len(kept) + 1 == len(proto.metadata_props)
    onnx.helper.set_model_props(proto, kept)
    onnx.save(proto, tmp_path / "old.onnx")
    info = Session(tmp_path / "old.onnx").info
    assert info is not None
    assert info.chosen == ()
    main(["inspect", str(tmp_path / "old.onnx")], standalone_mode=False)
