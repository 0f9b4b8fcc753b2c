"""README.md and docs/ are true: what they show runs as written, and their numbers are those of docs/results."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from smx.cli import main
from smx.paper import PAPER_POOL
from smx.reporting import costs
from smx.reporting.evidence import evidence
from smx.reporting.source import TABLE, study
from smx.study import table
from smx.study.grid import read_grid
from tests.conftest import python
from tests.faults import KINDS
from tests.test_house import ROOT

README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def result(name: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def test_the_length_is_bounded() -> None:
    assert len(README.split()) <= 900
    assert max(len(snippet.splitlines()) for snippet in SNIPPETS) <= 15


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda code: f"{len(code.splitlines())}-lines")
def test_the_snippets_run_as_written(snippet: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(snippet)  # a script needs no main guard
    done = python("script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if "smx.classify" in snippet:
        assert "parity: True" in done.stdout
        assert float(done.stdout.rsplit(maxsplit=1)[1]) > 0.85


def test_every_command_and_option_shown_exists() -> None:
    assert set(re.findall(r"^\| `smx ([\w-]+)` \|", README, re.MULTILINE)) == set(main.commands) - {"completion"}
    lines = re.findall(r"^smx ([\w-]+) (.*)$", README, re.MULTILINE)
    assert lines
    for command, arguments in lines:
        known = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", arguments)) <= known


@pytest.mark.parametrize("name", TABLES["TEXTS"])
def test_the_tables_are_those_of_the_results(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "<!-- table: " in text
    assert TABLES["filled"](text) == text, "run python benchmarks/tables.py"


def test_links_lead_somewhere() -> None:
    texts = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
    links = [(text, link) for text in texts for link in re.findall(r"\]\((?!https?:)([^)#]+)", text.read_text())]
    assert links
    assert [str(text.parent / link) for text, link in links if not (text.parent / link).exists()] == []


def test_the_accuracies_are_the_runs() -> None:
    mnist = result("mnist-train")["metrics"]
    digits, images = (result(f"{name}-train")["metrics"]["phase2"]["test_accuracy"] for name in ("digits", "mnist-cnn"))
    phase1, phase2 = (mnist[phase]["test_accuracy"] for phase in ("phase1", "phase2"))
    assert f"accuracy {phase1:.4f} with the choices committed after phase 1, **{phase2:.4f}** after phase 2" in RESULTS
    (relu,) = result("mnist-relu-train")["metrics"].values()
    assert f"ReLU alone has {relu['test_accuracy']:.4f}" in RESULTS
    assert f"50 + 350 epochs: test accuracy **{digits:.4f}**" in RESULTS
    assert f"test accuracy **{images:.4f}**" in RESULTS
    assert digits >= 0.96
    assert images >= 0.985


def test_the_parity_is_the_verifications() -> None:
    largest, errors = [], []
    for layout in ("scatter", "sorted"):
        report = result(f"mnist-verify-{layout}")
        rows = [row for row in report["comparisons"] if row["inputs"] == "mnist test"]
        assert rows
        assert report["passed"]
        assert all(row["examples"] == 10_000 and row["agreement"] == 1 for row in rows)
        largest.append(max(row["max_abs"] for row in rows))
        errors.append(max(row["arbitration"]["error_rms"] for row in rows))
    reference = max(row["arbitration"]["reference_error_rms"] for row in rows)
    assert f"at most {largest[0]:.1e} in `scatter` and {largest[1]:.1e} in `sorted`" in RESULTS
    assert (
        f"{errors[0]:.1e} (`scatter`), {errors[1]:.1e} (`sorted`) and {reference:.1e} (PyTorch in float32)" in RESULTS
    )
    assert f"at most {max(largest):.1e} from PyTorch" in README


def test_the_other_lines_of_the_readme_are_measured() -> None:
    changed = {name: result(f"mnist-export-{name}")["changed"] for name in ("float16", "int8")}
    assert f"float16 changes {changed['float16']} of 10,000 predictions, int8 {changed['int8']}" in README
    step = {(row["name"], row["batch_size"]): f"{row['ratio']:.2f}" for row in result("train-step")["results"]}
    assert f"phase 1 takes {step['phase 1', 128]} times ReLU's, of phase 2 {step['phase 2', 128]} times" in README
    assert f"with `--compile` {step['phase 1, compiled', 128]} and {step['phase 2, compiled', 128]}" in README


def test_what_choosing_gains_is_measured() -> None:
    report = result("rules")
    (row,) = (row for row in report["methods"] if row["method"] == "recommended")
    assert row["seeds"] == 5
    gain, low, high = (100 * (row["to_best"] + part * row["half_width"]) for part in (0, -1, 1))
    for text in (README, RESULTS):
        assert f"{gain:.2f} points above the best fixed activation (95 %: {low:.2f} to {high:.2f})" in " ".join(
            text.split()
        )


def test_fastest_is_held_against_the_other_layouts() -> None:
    report = result("fastest")
    count = len(report["networks"]) * len(report["batch_sizes"])
    slower = {other: len(found) for other, found in report["slower"].items()}
    said = f"`sorted` in {slower['sorted']} of {count} measurements, than `scatter` in {slower['scatter']}"
    assert said in " ".join((ROOT / "docs" / "layouts.md").read_text().split())


def test_the_largest_network_is_level_with_relu() -> None:
    report = result("rules-largest")
    methods = {each["method"]: each for each in report["methods"]}
    row, without = methods["recommended"], methods["from relu per layer"]
    assert (row["seeds"], row["best_fixed"]) == (5, "relu")
    gain, low, high = (100 * (row["to_best"] + part * row["half_width"]) for part in (0, -1, 1))
    assert f"level with ReLU ({gain:+.2f} points, 95 %: {low:.2f} to {high:.2f})" in RESULTS
    assert without["deviation"] > 1.5 * row["deviation"]
    times = {(each["name"], each["batch_size"]): each["ratio"] for each in report["latency"]["results"]}
    assert max(times["recommended_fastest", size] for size in (1, 16, 128, 1024)) <= 1.05, "it takes ReLU's time"


def test_what_choosing_gains_on_unseen_networks_is_measured() -> None:
    (row,) = (row for row in result("choosing")["methods"] if row["method"] == "recommended")
    assert (row["architectures"], row["networks"]) == (15, 75)
    mean, half = (100 * row["to_best"][key] for key in ("mean", "half_width"))
    low, high = -mean - half, -mean + half
    assert f"{-mean:.2f} below the best of six trainings ({low:.2f} to {high:.2f})" in " ".join(README.split())
    assert f"{-mean:.2f} points below it (95 %: {low:.2f} to {high:.2f})" in " ".join(RESULTS.split())
    assert f"mean rank among itself and the six is {row['rank']:.2f}" in " ".join(RESULTS.split())


def test_the_worst_runs_on_unseen_networks_are_said() -> None:
    runs = table.read(ROOT / "docs" / "results" / "mnist-choosing.parquet")
    runs = runs[runs["status"] == "done"].assign(layers=runs["hidden"].str.count(",") + 1)
    found = runs.pivot_table(index=["layers", "hidden", "seed"], columns="method", values="test_accuracy")
    regret = 100 * (found[list(PAPER_POOL)].max(axis=1) - found["recommended"]).dropna()
    assert len(regret) == 75
    said = " ".join(RESULTS.split())
    assert f"above it in {(regret < 0).sum()} of the 75 runs" in said
    worst = [f"{value:.2f}" for value in sorted(regret[11])[-3:]]
    assert f"three of five seeds are {worst[0]}, {worst[1]} and {worst[2]} below" in said
    assert f"one run of five was {worst[2]} below" in " ".join(README.split())
    assert f"one is {regret[10].max():.2f} below" in said
    assert f"more than {regret.drop([10, 11]).max():.2f} below the best of six" in said


def test_what_learning_is_worth_on_unseen_networks_is_measured() -> None:
    (row,) = (row for row in result("choosing")["controls"] if row["method"] == "recommended")
    said = f"{row['above']} of {row['networks']}, by {100 * row['median']:.2f} points (median; at least"
    assert f"{said} {100 * row['lowest']:.2f}; Wilcoxon's p = {row['p']:.0e})" in " ".join(RESULTS.split())


def test_steps_on_another_machine_are_measured() -> None:
    found = {(row["name"], row["batch_size"]): f"{row['ratio']:.2f}" for row in result("train-step-epyc")["results"]}
    first, second = ([found[phase, size] for size in (128, 1024)] for phase in ("phase 1", "phase 2"))
    said = f"took {first[0]} and {first[1]} in phase 1, {second[0]} and {second[1]} in phase 2"
    assert said in " ".join(RESULTS.split())
    assert f"AMD EPYC, uncompiled: {first[0]}, {second[0]}" in README


def test_what_the_study_says_of_choosing() -> None:
    whole = study(Path(), TABLE, table.read(ROOT / "docs" / "results" / "mnist-study.parquet"))
    facts = evidence(whole).set_index(["section", "what"])

    def said(what: str) -> list[str]:
        row = facts.loc[("protocol = standard, phase1_epochs = 3", what)]
        return [f"{row[name]:.2f}" for name in ("estimate", "low", "high")]

    words = " ".join(RESULTS.split())
    less, low, high = said("smartmixed - best fixed activation")
    assert f"{less[1:]} points below the best fixed activation (95 %: {high[1:]} to {low[1:]})" in words
    less, low, high = said("smartmixed - shuffled")
    assert f"{less[1:]} points below the same ones in a random order within their layers ({low} to {high})" in words
    more, low, high = said("shuffled - random")
    assert f"drawn at random (+{more}, {low} to {high})" in words


def test_the_representative_network_is_measured() -> None:
    cells = table.read(ROOT / "docs" / "results" / "mnist-study.parquet")
    cells = cells[cells["phase2_epochs"].eq(100) & cells["protocol"].eq("standard") & cells["status"].eq("done")]
    mixed, relu = (cells[cells["method"] == name].iloc[0] for name in ("smartmixed", "relu"))
    words = " ".join(RESULTS.split())
    for said in (
        f"SmartMixed has {100 * mixed['phase1_test_accuracy']:.2f} % of the test set right after phase 1",
        f"and {100 * mixed['test_accuracy']:.2f} % after phase 2",
        f"ReLU in 150 epochs {100 * relu['test_accuracy']:.2f} %",
        f"as which ours has {100 * mixed['phase1_test_accuracy_sampled']:.2f} %",
    ):
        assert said in words
    curve = mixed["curves"]["validation_accuracy"]
    means = [f"{4 * sum(curve[start : start + 25]):.2f}" for start in (75, 100, 125)]
    assert f"over 25 epochs end with {means[0]}, {means[1]} and {means[2]} %" in words
    assert f"lowest in the {mixed['best_epoch']:.0f}th epoch of phase 2" in words
    first, *_, end = mixed["shares"].values()
    assert f"neurons {100 * first['relu']:.0f} % chose ReLU and {100 * first['leaky_relu']:.0f} % Leaky ReLU" in words
    assert f"of the last one's {100 * end['elu']:.0f} % ELU and {100 * end['selu']:.0f} % SELU" in words
    assert end["sigmoid"] == first["sigmoid"] == 0


def test_the_study_is_whole() -> None:
    """What `make study` would train is in its table already."""
    known = table.known_results(table.read(ROOT / "docs" / "results" / "mnist-study.parquet"))
    short = read_grid("short")
    cells = short.with_values([0, 3, 4]).cells()
    cells += [cell for cell in short.with_values([0], {"protocol": "author"}).cells() if cell.method == "smartmixed"]
    cells += read_grid("controls").cells()
    long = read_grid("representative").with_values([0], {"protocol": "standard"}).cells()
    cells += [cell for cell in long if cell.method in ("smartmixed", "relu")]
    assert not [str(cell) for cell in cells if cell.id not in known]


def test_the_cost_of_the_study_is_measured() -> None:
    cost, text = result("study-cost"), " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert f"one seed, took {cost['processor_hours']:.1f} hours of the processor" in text
    assert f"{cost['measured']} of the {cost['cells']} cells" in text


def test_what_accuracy_costs_is_measured() -> None:
    (section,) = study(Path(), TABLE, table.read(ROOT / "docs" / "results" / "mnist-prices.parquet")).sections
    ratios = costs.trade(section).set_index("method")["ratio"]
    paper = [ratios[name] for name in ("smartmixed", *(f"paper {each}" for each in ("price 0.1", "price 1")))]
    paper += [ratios[f"paper min_share {share}"] for share in ("0.05", "0.2")]
    words = " ".join(RESULTS.split())
    assert f"by the paper's rule takes {min(paper):.2f} to {max(paper):.2f} of ReLU's time" in words
    assert f"one by `matched` takes {ratios['matched']:.2f}." in words
    assert max(ratios["matched price 1"], ratios["recommended"]) < 1.005


def test_the_gain_of_batching_is_measured() -> None:
    rates = {
        row["server"]: row["requests_a_second"] for row in result("serving-load")["servers"] if row["connections"] == 64
    }
    assert f"batching gives {rates['smx serve'] / rates['smx serve --max-batch 1']:.1f} times the requests" in README


def test_the_size_of_a_server_is_measured() -> None:
    serve = result("install-size")["results"]["smartmixed[serve]"]
    assert f"{serve['megabytes']} MB, {serve['packages']} packages, no torch" in README
    assert "starlette" in serve["versions"]
    assert "torch" not in serve["versions"]


def test_the_planted_faults_are_counted() -> None:
    assert f"All {len(KINDS)} kinds are caught" in RESULTS


def test_the_rules_of_choosing_are_compared_as_the_study_found() -> None:
    cells = table.read(ROOT / "docs" / "results" / "mnist-study.parquet")
    cells = cells[(cells["hidden"] == "512,256,128") & (cells["status"] == "done") & cells["seed"].isin([0, 1, 2])]
    cells = cells[cells["protocol"] == "standard"]
    accuracy = cells.pivot(index="seed", columns="method", values="test_accuracy")
    assert len(accuracy) == 3
    training = " ".join((ROOT / "docs" / "training.md").read_text().split())
    said = {
        "ReLU": "relu",
        "ReLU in two phases": "relu_two_phases",
        "the paper's rule": "smartmixed",
        "`matched`": "matched",
    }
    assert ", ".join(f"{name} {accuracy[method].mean():.4f}" for name, method in said.items()) in training
    gain = 100 * (accuracy["matched"] - accuracy["relu"])
    interval = stats.ttest_1samp(gain, 0).confidence_interval()
    assert f"{gain.mean():.2f} points above ReLU (95 %: {interval.low:.2f} to {interval.high:.2f}" in training


def test_the_cost_of_a_cell_is_measured() -> None:
    study, measured = " ".join((ROOT / "docs" / "study.md").read_text().split()), result("cells")
    mixed, relu = measured["cells"]
    assert f"`smartmixed` takes {mixed['seconds']:.1f} s, of `relu` {relu['seconds']:.1f} s" in study
    assert f"same takes {mixed['command_seconds']:.1f} s and {relu['command_seconds']:.1f} s" in study
    assert f"they take {mixed['bfloat16_seconds']:.1f} s and {relu['bfloat16_seconds']:.1f} s" in study
    assert f"{mixed['bfloat16_test_accuracy']:.4f} instead of {mixed['test_accuracy']:.4f}" in study
    ratios: dict[tuple[int, ...], list[float]] = {tuple(row["hidden"]): [] for row in measured["stacking"]}
    for row in measured["stacking"]:
        ratios[tuple(row["hidden"])].append(row["ratio"])
    *papers, small = ratios.values()
    assert f"take {min(map(min, papers)):.2f} to {max(map(max, papers)):.2f} of their time" in study
    assert f"and {min(small):.2f} on a network of small layers" in study


def test_what_the_machine_does_to_the_load_is_measured() -> None:
    load = result("serving-load")
    uneven = load["machine_stalls"]
    (row,) = (row for row in load["servers"] if (row["server"], row["connections"]) == ("smx serve", 64))
    said = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    assert f"The p99 at 64 connections is {row['p99_ms']:.1f} ms" in said
    assert f"(p99 {row['p99_ms']:.0f} ms)" in README
    assert f"as long as usual in {100 * uneven['stalled']:.2f} % of the time" in said
    waits = result("serving-wait")["servers"]
    rates = {(each["server"], each["connections"]): each["requests_a_second"] for each in waits}
    of_64, of_8 = (rates["--max-wait 5", count] / rates["--max-wait 0", count] for count in (64, 8))
    assert f"won {100 * of_64 - 100:.0f} % with 5 ms at 64 connections, and lost {100 - 100 * of_8:.0f} % at 8" in said
