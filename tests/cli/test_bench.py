from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from smx.cli.bench_tables import show_profile
from smx.cli.output import PLAIN
from smx.runtime.profile.fold import FallenBack, Profile, ProfileRow
from tests.conftest import all_refused, python, smx
from tests.test_house import base_install

QUICK = ("--batch-sizes", "1,8", "--rounds", "20")
FEW = ("--batch-sizes", "1", "--rounds", "2")
STEPS = Path(__file__).parents[2] / "docs" / "results" / "train-step.json"


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON file of a bench of the small run, which ends with 3 because a limit is exceeded."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    plot = path.with_suffix(".png")
    result = python(
        "-m", "smx", "bench", run / "model.pt", *QUICK, "--baselines", "relu,selu", "--pytorch", "eager", "--profile",
        "--limit", "sorted/relu<=1000", "--limit", "relu/relu<=0.5@8", "--json", path, "--plot", plot,
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert result.stderr == "exporting the candidates ...\n"
    assert "limit sorted/relu<=1000, batch 8: " in result.stdout
    assert "layer1.activation" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    return path


def test_the_mixed_model_the_baselines_and_pytorch(report: Path) -> None:
    content = json.loads(report.read_text())
    names = ["scatter", "sorted", "relu", "selu", "pytorch"]
    assert [(row["name"], row["batch_size"]) for row in content["results"]] == [(n, b) for b in (1, 8) for n in names]
    assert [(row["name"], row["batch_size"]) for row in content["control"]] == [("relu again", 1), ("relu again", 8)]
    assert content["baseline"] == "relu"
    assert content["settings"]["threads"] == 1
    assert {"processor", "cores", "governor", "load", "load_after", "onnxruntime"} <= content["machine"].keys()
    assert "torch" not in content["machine"]  # the process that measured never loaded it
    sizes = {entry["name"]: entry for entry in content["candidates"]}
    assert all(sizes[name]["bytes"] > 1000 and sizes[name]["start"] > 0 for name in names[:-1])
    assert sizes["pytorch"]["bytes"] is None
    assert {name for name, tables in content["profiles"].items() if len(tables) == 2} == set(names[:-1])
    verdicts = [(verdict["batch_size"], verdict["exceeded"]) for verdict in content["limits"]]
    assert verdicts == [(1, False), (8, False), (8, True)]


def test_files_alone_on_the_base_install(exported: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    shutil.copy(exported, other)
    result = base_install("bench", exported, other, *FEW, "--reference", "other", "--json", "-")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert [row["name"] for row in content["results"]] == ["small", "other"]
    assert content["baseline"] == "other"


def test_what_changed_since_an_earlier_bench(report: Path, run: Path) -> None:
    result = smx(
        "bench", run / "model.pt", "--layouts", "", "--baselines", "relu", *FEW, "--no-spinning", "--compare", report
    )
    assert result.returncode == 0, result.stderr
    assert f"since {report}" in result.stdout
    assert "measured under other conditions: settings was" in result.stdout
    assert "not measured any more: scatter, batch 1; sorted, batch 1; selu, batch 1" in result.stdout


def test_what_does_not_run_as_it_stands_in_the_file_is_named() -> None:
    row = ProfileRow(layer="[b]", operator="Erf", provider="cpu", count=2, microseconds=5.0, share=0.5)
    profile = Profile(
        provider="cuda", batch_size=16, runs=1, microseconds=12.34, rows=(row,), nodes=20,
        gone=tuple(f"folded{i}" for i in range(12)), fallen_back=(FallenBack("[b]/x", "Erf", "cpu"),),
    )  # fmt: skip
    people = Console(file=io.StringIO(), width=140, **PLAIN)
    show_profile("m", profile, people)
    shown = people.file.getvalue()  # type: ignore[attr-defined]
    for part in ("12.3 microseconds a run", "50.0%", "not run by cuda: [b]/x (Erf, cpu)", "folded9 and 2 more"):
        assert part in shown
    assert "12 of the 20 nodes of the file were fused, folded away or replaced: folded0, folded1" in shown


def test_bad_input(run: Path, exported: Path, report: Path, tmp_path: Path) -> None:
    model, other = run / "model.pt", tmp_path / "sorted.onnx"
    shutil.copy(exported, other)
    all_refused(
        (("bench", exported, "--limit", "small/small<=1", "--rounds", "2"), "a limit needs at least 20 rounds"),
        (("bench", exported, "--limit", "small/relu<=1"), "names relu, but the candidates are small"),
        (("bench", exported, "--compare", report), "refer to relu, the new ones to small"),
        (("bench", exported, "--compare", tmp_path / "none.json"), "none.json does not exist"),
        (("bench", exported, "--compare", report, "--json", report), "would be written over"),
        (("bench", model, other), "has the name of another candidate, sorted"),
        (("bench", exported, exported), "has the name of another candidate"),
        (("bench", model, model), "takes one MODEL.pt"),
        (("bench", exported, "--pytorch", "eager"), "only a MODEL.pt runs in PyTorch"),
        (("bench", exported, "--reference", "relu"), "the reference 'relu' is not among the candidates small"),
        (("bench", model, "--layouts", "", "--baselines", ""), "there are no candidates"),
        (("bench", model, "--baselines", "swoosh"), "unknown activation 'swoosh'"),
        (("bench", model, "--reference", "typo"), "the reference 'typo' is not among the candidates scatter, sorted"),
        (("bench", exported, "--compare", STEPS), "train-step.json is no result of smx bench --json"),
    )
