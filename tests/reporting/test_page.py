"""The page of a report: complete, closed in itself, and right whatever a table holds or lacks."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from typing import Any

import pytest

from smx.reporting.findings import findings
from smx.reporting.page import words
from smx.reporting.page.blocks import Column, Table, as_link
from smx.reporting.page.render import parts_of, render
from smx.reporting.study import Study
from smx.reporting.verdicts import Finding
from tests.reporting.made import MACHINE, rows, study_of, undone
from tests.reporting.parsed import Parsed

FIGURES = {"differences", "mrr", "ranks", "losses", "accuracies", "shares", "epochs", "depth", "weights", "calibration"}
FIGURES |= {"controls", "training"}
HOSTILE = "</script></svg><script>alert(1)</script><img src=x onerror=alert(1)> \" ' & $\\frac$ {{ 7 * 7 }}\u202e"


def page(study: Study) -> str:
    return render(study, findings(study), parts_of(study))


@pytest.fixture(scope="module")
def study() -> Study:
    """A study in which one cell failed and one is missing."""
    made = rows()
    made[3] = undone(made[3], "the loss is no longer finite")
    made[5] = undone(made[5])
    return study_of(made)


@pytest.fixture(scope="module")
def found(study: Study) -> list[Finding]:
    return findings(study)


@pytest.fixture(scope="module")
def usual(study: Study, found: list[Finding]) -> str:
    return render(study, found, parts_of(study))


@pytest.fixture(scope="module")
def parsed(usual: str) -> Parsed:
    return Parsed(usual)


def test_every_figure_is_there_with_its_name_and_data(parsed: Parsed) -> None:
    shown = parsed.figures
    assert {name for name in shown if "-of-" not in name} == FIGURES
    assert len(shown) == len(FIGURES) + 2  # the shares of the other architectures
    drawings = parsed.all("svg")
    assert len(drawings) == len(shown)
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert shown <= set(parsed.data)


def test_it_asks_for_nothing(usual: str, parsed: Parsed) -> None:
    assert re.findall(r"https?://|//[a-z]|@import|@font-face", re.sub(r"base64,[\w+/=]+", "", usual)) == []
    for name, attributes in parsed.elements:
        for attribute in ("src", "href"):
            assert attributes.get(attribute, "#").startswith(("#", "data:")), (name, attributes)
    assert {name for name, _ in parsed.elements} & {"img", "iframe", "object", "embed", "form", "image"} == set()
    (policy,) = (each["content"] for each in parsed.all("meta") if "http-equiv" in each)
    (script,) = re.findall(r"<script>(.*?)</script>", usual, re.DOTALL)
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_ids_are_unique_and_links_lead_to_them(parsed: Parsed) -> None:
    assert len(set(parsed.ids)) == len(parsed.ids)
    places = [each["href"][1:] for each in (*parsed.all("a"), *parsed.all("use")) if each["href"].startswith("#")]
    assert len(places) > len(FIGURES)
    assert set(places) <= set(parsed.ids)
    clips = {clip for _, each in parsed.elements for clip in re.findall(r"url\(#(.+?)\)", each.get("clip-path", ""))}
    assert clips
    assert clips <= set(parsed.ids)


def test_the_numbers_are_those_of_the_table(parsed: Parsed) -> None:
    made = rows()
    own = [each["test_accuracy"] for each in made if each["method"] == "relu" and each["hidden"] == "24,16"]
    assert len(own) == 2
    assert f"{50 * sum(own):.2f} %" in parsed.text
    data = parsed.data["accuracy"].set_index("architecture")
    assert data.loc["24-16", "relu: mean"] == pytest.approx(sum(own) / 2)
    assert data.loc["24-16", "relu: seeds"] == 2
    table = parsed.data["shares"]
    own_shares = [
        each["shares"]["layer1"]["tanh"]
        for each in made
        if (each["method"], each["hidden"]) == ("smartmixed", "24,16,8")
    ]
    mean = table[(table["layer"] == 1) & (table["activation"] == "tanh")]["share"].item()
    assert mean == pytest.approx(sum(own_shares) / 2)


def test_verdicts_stand_in_words(usual: str, parsed: Parsed, found: list[Finding]) -> None:
    assert len(found) > 10
    for finding in found:
        assert " ".join(words.typeset(finding.text).split()) in parsed.text
        assert finding.question in parsed.text
    answered = [each for each in found if each.verdict != "not measured"]
    assert usual.count('<article class="finding"') == len(answered) > 3


def test_failed_and_missing_cells_are_named(parsed: Parsed) -> None:
    assert "22 done, 1 failed, 1 missing" in parsed.text
    assert "Of 24 runs 1 failed and 1 are missing" in parsed.text
    assert "the loss is no longer finite" in parsed.text
    assert list(parsed.data["not-done"]["status"]) == ["failed", "missing"]


def test_other_data_another_pool_and_methods_of_ones_own() -> None:
    grid = {"hidden": [[12, 8]], "method": ["gentle", "gelu", "mish"], "seed": [0]}
    gentle = {"activation": "smartmixed", "pool": ["gelu", "silu", "identity"], "temperature": 0.5}
    shown = Parsed(page(study_of(rows(grid, {"data": "mine.npz"}, gentle=gentle))))
    assert "on mine.npz" in shown.text
    assert "paper: first" not in shown.text
    assert "What the neurons chose by gentle" in shown.text
    assert set(shown.data["shares"]["activation"]) == {"gelu", "silu", "identity"}
    assert "differences" not in shown.figures  # nobody is SmartMixed


@pytest.mark.parametrize("method", ["smartmixed", "relu"])
def test_one_run_of_one_epoch(method: str) -> None:
    made = rows({"hidden": [[24]], "method": [method]}, {"phase1_epochs": 1, "phase2_epochs": 1})
    study = study_of(made)
    shown = Parsed(page(Study(study.source, "run", study.table)))
    assert {"losses", "accuracies"} <= shown.figures
    assert ("shares" in shown.figures) == (method == "smartmixed")
    assert "Test accuracy" in shown.text
    assert "nan" not in re.findall(r"\w+", shown.text)


def test_settings_that_differ_make_sections_of_their_own() -> None:
    grid = {"hidden": [[24]], "method": ["smartmixed", "relu"], "protocol": ["standard", "author"], "seed": [0]}
    shown = Parsed(page(study_of(rows(grid))))
    assert {"losses", "losses-s2", "shares", "shares-s2"} <= shown.figures
    assert "protocol = author" in shown.text
    assert "All runs" in shown.text
    assert len(set(shown.ids)) == len(shown.ids)


def test_what_others_wrote_stays_text() -> None:
    long = HOSTILE * 200
    assert len(long) > 10_000
    made = rows({"hidden": [[8, 4]], "method": ["smartmixed", "relu", "selu"], "seed": [0]})
    own = HOSTILE.replace(",", "")
    for row in made:
        row |= {"data": long, "machine": {**MACHINE, "processor": long}, "pool": f"relu,{own}"}
        if row["method"] == "smartmixed":
            for column in ("shares", "shares_by_epoch"):
                row[column] = {
                    layer: {own if name == "elu" else name: value for name, value in each.items()}
                    for layer, each in row[column].items()
                }
    made[1]["method"] = long
    made[2] = undone(made[2], long)
    text = page(study_of(made))
    shown = Parsed(text)
    names = [name for name, _ in shown.elements]
    assert names.count("script") == 1
    assert "img" not in names
    assert not any(name.startswith("on") for _, attributes in shown.elements for name in attributes)
    assert "{{ 7 * 7 }}" in shown.text
    assert "\u202e" not in shown.text
    assert max(map(len, shown.texts)) < 2000
    text.encode()


def test_a_table_shows_what_it_holds() -> None:
    import pandas as pd

    data = pd.DataFrame(
        {"name": ["b", "a"], "x": [0.5, None], "low": [0.4, None], "high": [0.6, None], "none": [None, None]}
    )
    columns = [
        Column("name", "name", words.name, numeric=False),
        Column("x", "x", words.percent, interval=("low", "high")),
        Column("none", "none"),
    ]
    table = Table("t", "a table", data, columns)
    assert [column.name for column in table.shown] == ["name", "x"]
    (first, second) = table.rows
    assert [entry.text for entry in first] == ["b", "50.00 %"]
    assert first[1].small == "40.00 % to 60.00 %"
    assert (first[1].key, second[1].key) == ("0.5", "")
    assert second[1].text == "\N{EN DASH}"


def test_a_spreadsheet_runs_no_formula() -> None:
    import pandas as pd

    link = as_link(pd.DataFrame({"error": ["=1+1", "fine"], "x": [-1.0, 2.0]}))
    data: Any = Parsed(f'<a download="d.csv" href="{link}"></a>').data["d"]
    assert list(data["error"]) == ["'=1+1", "fine"]
    assert list(data["x"]) == [-1.0, 2.0]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.percent, 0.98765, "98.77 %"),
        (words.points, -0.126, "\N{MINUS SIGN}0.13"),
        (words.p, 0.0004, "< 0.001"),
        (words.p_of, 0.03, "p = 0.030"),
        (words.duration, 7200, "2.0 hours"),
        (words.duration, 90, "90.0 seconds"),
        (words.name, "leaky_relu = elu", "Leaky ReLU = ELU"),
        (words.name, float("nan"), "\N{EN DASH}"),
        (words.text, "a\n b\x00", "a b\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_numbers_and_names_in_words(write: Any, value: Any, text: str) -> None:
    assert write(value) == text


def test_latency_is_shown_where_it_was_measured() -> None:
    made = rows({"hidden": [[8]], "method": ["smartmixed", "relu"], "seed": [0, 1]})
    for row in made:
        if row["method"] == "smartmixed":
            row["latency"] = {
                "1": {"ratio": 1.2, "low": 1.1, "high": 1.3},
                "128": {"ratio": 1.5, "low": 1.4, "high": 1.6},
            }
    shown = Parsed(page(study_of(made)))
    assert "latency" in shown.figures
    assert "1.20 times for batches of 1, 1.50 times for batches of 128" in shown.text
    assert shown.data["latency"]["ratio"].tolist() == pytest.approx([1.2, 1.5])


def test_a_table_of_accuracies_alone_is_a_study() -> None:
    """Whoever trained elsewhere has no more; what is not there is left out."""
    kept = ("cell", "status", "method", "hidden", "seed", "data", "test_accuracy", "validation_accuracy")
    shown = Parsed(page(study_of([{name: row[name] for name in kept} for row in rows()])))
    assert shown.figures == {"differences", "mrr", "ranks", "controls"}
    assert "Training time" not in shown.text
