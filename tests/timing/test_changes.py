from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError
from smx.timing.bench import run_bench
from smx.timing.changes import FASTER, SAME, SLOWER, compare_reports, read_report
from tests.timing.fakes import Timed

SETTINGS = {"threads": 1, "spinning": True, "execution_mode": "sequential", "optimization": "all"}


def bench(*rows: tuple[str, int, float, float, float], **others: Any) -> dict[str, Any]:
    results = [
        {"name": name, "batch_size": size, "ratio": ratio, "ratio_low": low, "ratio_high": high, "p50": 1.0}
        for name, size, ratio, low, high in rows
    ]
    return {"baseline": "relu", "provider": "cpu", "settings": SETTINGS, "io_binding": False, "level": 0.99,
            "machine": {"processor": "p", "load": [0.1]}, "results": results, **others}  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.8, 1.09, FASTER), (0.8, 1.1, SAME), (0.8, 1.15, SAME), (1.12, 1.18, SAME), (0.8, 1.5, SAME),
        (1.15, 1.4, SAME), (1.2, 1.4, SAME), (1.21, 1.4, SLOWER),
    ],
)  # fmt: skip
def test_verdicts_by_the_intervals(low: float, high: float, verdict: str) -> None:
    old, new = (1.15, 1.1, 1.2), ((low + high) / 2, low, high)
    (row,) = compare_reports(bench(("sorted", 16, *old)), bench(("sorted", 16, *new))).rows
    assert (row.name, row.batch_size, row.old, row.new, row.verdict) == ("sorted", 16, old, new, verdict)


def test_what_only_one_of_them_has() -> None:
    one = (1.0, 1.0, 1.0)
    old = bench(("relu", 1, *one), ("scatter", 1, *one), ("relu", 16, *one))
    new = bench(("sorted", 1, *one), ("relu", 128, *one), ("relu", 1, *one))
    changes = compare_reports(old, new)
    assert [(row.name, row.batch_size) for row in changes.rows] == [("relu", 1)]
    assert changes.missing == ("scatter, batch 1", "relu, batch 16")
    assert changes.added == ("sorted, batch 1", "relu, batch 128")


def test_conditions_that_differ() -> None:
    old = bench(machine={"processor": "p", "cores": 2, "onnxruntime": "1.31.1", "load": [0.1], "torch": "2.10"})
    assert compare_reports(old, old).conditions == {}
    for key, value in (
        ("provider", "cuda"), ("settings", {**SETTINGS, "threads": 2}), ("io_binding", True),
        ("level", 0.95),
    ):  # fmt: skip
        assert compare_reports(old, {**old, key: value}).conditions == {key: (old[key], value)}
        assert compare_reports({**old, key: value}, old).conditions == {key: (value, old[key])}
    with pytest.raises(InputError, match="the old ratios refer to relu, the new ones to elu"):
        compare_reports(old, {**old, "baseline": "elu"})
    for key in ("processor", "cores", "system", "governor", "python", "numpy", "onnxruntime"):
        new = {**old, "machine": {**old["machine"], key: "another"}}
        assert compare_reports(old, new).conditions == {key: (old["machine"].get(key), "another")}
    # What another process did, or whether torch was there, says nothing of the figures.
    assert compare_reports(old, {**old, "machine": {**old["machine"], "load": [3], "torch": "3"}}).conditions == {}


def test_a_report_compares_with_itself_from_a_file(tmp_path: Path) -> None:
    runners = {"a": Timed(lambda: 1000), "b": Timed(lambda: 2000)}
    report = run_bench(runners, {1: [np.ones(1)], 2: [np.ones(2)]}, baseline="a", rounds=2)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"model": "m", **report.to_dict()}))
    changes = compare_reports(read_report(path), report.to_dict())
    assert (changes.conditions, changes.missing, changes.added) == ({}, (), ())
    assert [(row.name, row.batch_size, row.new) for row in changes.rows] == [
        (row.name, row.batch_size, (row.ratio, row.ratio_low, row.ratio_high)) for row in report.results
    ]
    assert {row.verdict for row in changes.rows} == {SAME}


ROW = {"name": "a", "batch_size": 1, "ratio": 1, "ratio_low": 1, "ratio_high": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"3", b"null", b"{}", b'{"results": 3, "machine": {}}',
        b'{"results": [1], "machine": {}}', b'{"results": [{"name": "a"}], "machine": {}}',
        json.dumps({"results": [{**ROW, "ratio": "much"}], "machine": {}}).encode(),
        json.dumps({"results": [{**ROW, "ratio": None}], "machine": {}}).encode(),
        json.dumps({"results": [ROW]}).encode(), json.dumps({"results": [ROW], "machine": []}).encode(),
    ],
)  # fmt: skip
def test_files_of_another_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bench\.json is no result of smx bench --json \(\w+: [^\n]*\)$"):
        read_report(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none.json", "does not exist"), (tmp_path, "is no file")):
        with pytest.raises(InputError, match=f"{what}; expected the JSON file of an earlier smx bench"):
            read_report(path)
    path = tmp_path / "least.json"
    path.write_text(json.dumps({"results": [ROW], "machine": {}, "baseline": "relu"}))
    assert read_report(path)["results"] == [ROW]
