"""`smx train --init` and `--start current`: from one command's file to the next one's network."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import SMALL, all_refused, refused, smx_many

SHORT = (*SMALL, "--phase1-epochs", "1", "--phase2-epochs", "1")


def test_a_baseline_is_trained_on(tmp_path: Path) -> None:
    """Its neurons begin with its activation. When the run is resumed, the file may be gone."""
    chooses = ("train", *SHORT, "--init", "elu/model.pt", "--start", "current", "--keep", "0.8", "--out", "a")
    results = smx_many(
        ("train", *SHORT, "--activation", "elu", "--out", "elu"), (*chooses, "--json", "a.json"), cwd=tmp_path
    )
    for result in results:
        assert result.returncode == 0, result.stderr
    assert "% of the neurons chose another activation than they began with." in results[1].stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["config"]["selection"] == "matched"
    assert len(report["config"]["init_sha256"]) == 64
    assert 0 <= report["metrics"]["phase1"]["moved"] <= 1
    (tmp_path / "elu" / "model.pt").unlink()
    again = ("train", "--resume", "--out", "a", "--json", "again.json")
    shown, renamed = smx_many(again, (*again, "--init", "other.pt"), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "again.json").read_text())["metrics"] == report["metrics"]
    refused(renamed, 2, "was trained with init = 'elu/model.pt', not 'other.pt'")


def test_what_is_refused(run: Path) -> None:
    model = run / "model.pt"
    all_refused(
        (("train", "--start", "current", "--out", run / "no"), "start must be random without init = FILE"),
        (("train", "--init", run / "absent.pt", "--out", run / "no"), "absent.pt"),
        (("train", "--init", run / "config.toml", "--out", run / "no"), "config.toml"),
        (("train", "--init", model, "--hidden", "9", "--out", run / "no"), "is of another network, 64-24-16-10"),
        (
            ("train", "--init", model, "--hidden", "24,16", "--start", "current", "--keep", "0.1", "--out", run / "no"),
            "keep must be from",
        ),
    )
    assert not (run / "no").exists()
