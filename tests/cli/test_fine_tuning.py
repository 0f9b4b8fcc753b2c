"""`smx train --init` and `--start current`: from one command's file to the next one's network."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import SMALL, all_refused, smx_many

SHORT = (*SMALL, "--phase1-epochs", "1", "--phase2-epochs", "1")


def test_a_baseline_is_trained_on(tmp_path: Path) -> None:
    """As a baseline, and with choices: from the baseline, then from the network that chose. Its file may go then."""
    commands = (
        ("train", *SHORT, "--activation", "elu", "--out", "elu"),
        ("train", *SHORT, "--activation", "elu", "--init", "elu/model.pt", "--out", "plain", "--json", "plain.json"),
        ("train", *SHORT, "--init", "elu/model.pt", "--start", "current", "--out", "a", "--json", "a.json"),
        ("train", *SHORT, "--init", "a/model.pt", "--start", "current", "--keep", "0.8", "--out", "b"),
    )
    results = smx_many(*commands, cwd=tmp_path)
    for result in results:
        assert result.returncode == 0, result.stderr
    assert "% of the neurons chose another activation than they began with." in results[3].stdout
    plain, report = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "a"))
    assert plain["config"]["init"] == "elu/model.pt"
    assert report["config"]["selection"] == "matched"
    assert len(report["config"]["init_sha256"]) == 64
    assert 0 <= report["metrics"]["phase1"]["moved"] <= 1
    (tmp_path / "elu" / "model.pt").unlink()
    again = ("train", "--resume", "--out", "a", "--json", "again.json")
    shown, renamed = smx_many(again, (*again, "--init", "other.pt"), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "again.json").read_text())["metrics"] == report["metrics"]
    assert renamed.returncode == 2
    assert "was trained with init = 'elu/model.pt', not 'other.pt'" in renamed.stderr


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
