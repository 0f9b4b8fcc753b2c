from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import all_refused, smx

TINY = ("--hidden", "16,8", "--inputs", "12", "--classes", "3", "--threads", "1")
FEW = (*TINY, "--batch-sizes", "8", "--rounds", "1")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON file of a bench of all candidates."""
    path = tmp_path_factory.mktemp("bench-train") / "steps.json"
    plot = path.with_suffix(".png")
    result = smx(
        "bench-train", *TINY, "--batch-sizes", "8,32", "--rounds", "2", "--baselines", "relu,selu",
        "--json", path, "--plot", plot,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "12-16-8-3, cpu, 1 threads, rounds: 2" in result.stdout
    assert "phase 2, unsorted" in result.stdout
    assert "Warning: 2 rounds are too few for intervals" in result.stdout
    assert result.stderr == ""
    assert plot.read_bytes().startswith(b"\x89PNG")
    return path


def test_all_candidates_at_all_batch_sizes(report: Path) -> None:
    content = json.loads(report.read_text())
    names = ["relu", "selu", "phase 1", "phase 1, plain", "phase 2", "phase 2, unsorted", "phase 2, plain"]
    rows = [(name, size) for size in (8, 32) for name in names]
    assert [(row["name"], row["batch_size"]) for row in content["results"]] == rows
    assert [(row["name"], row["batch_size"]) for row in content["memory"]] == rows
    assert [(row["name"], row["batch_size"]) for row in content["control"]] == [("relu again", 8), ("relu again", 32)]
    memory = {(row["name"], row["batch_size"]): row for row in content["memory"]}
    assert all(memory[name, 32]["saved"] > 2 * memory[name, 8]["saved"] for name in names)
    assert memory["phase 1, plain", 32]["ratio"] > 5, "six values of each neuron, and what they keep"
    assert content["sizes"] == [12, 16, 8, 3]
    assert content["pool"] == ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu"]
    assert (content["device"], content["threads"], content["cuda_graphs"]) == ("cpu", 1, False)
    assert {"processor", "cores", "load", "load_after", "torch", "python"} <= content["machine"].keys()
    assert content["limits"] == []


def test_other_rules_are_measured_beside_the_papers() -> None:
    result = smx(
        "bench-train", *FEW, "--no-plain", "--baselines", "relu", "--selection", "recommended,paper,matched",
        "--json", "-",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = ["relu", "phase 1", "phase 1, recommended", "phase 1, matched", "phase 2", "phase 2, unsorted"]
    assert [row["name"] for row in json.loads(result.stdout)["results"]] == names


def test_a_limit_that_is_exceeded_ends_with_3() -> None:
    """JSON alone on standard output, and the first baseline as the reference."""
    result = smx(
        "bench-train", *TINY, "--batch-sizes", "8", "--rounds", "20", "--no-plain", "--baselines", "tanh",
        "--limit", "phase 1/tanh<=0.01@8", "--limit", "phase 2/tanh<=1000", "--json", "-",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    content = json.loads(result.stdout)
    assert content["baseline"] == "tanh"
    assert [row["name"] for row in content["results"]] == ["tanh", "phase 1", "phase 2", "phase 2, unsorted"]
    assert [verdict["exceeded"] for verdict in content["limits"]] == [True, False]


def test_bad_input(tmp_path: Path) -> None:
    all_refused(
        (("bench-train", *FEW, "--baselines", "relu,swoosh"), "unknown activation 'swoosh'; known are relu"),
        (("bench-train", *FEW, "--reference", "gelu"), "the reference 'gelu' is not among the candidates relu"),
        (("bench-train", *FEW, "--selection", "best"), "'best' is not one of 'paper', 'matched', 'recommended'"),
        (("bench-train", *FEW, "--pool", "tanh,elu", "--selection", "recommended"), "start must be one of random"),
        (("bench-train", *FEW, "--cuda-graphs"), "CUDA graphs need the device cuda, got cpu"),
        (("bench-train", "--limit", "phase 3/relu<=2"), "names phase 3, but the candidates are relu, sigmoid"),
        (("bench-train", *FEW, "--json", tmp_path / "none" / "steps.json"), "none for steps.json does not"),
    )
