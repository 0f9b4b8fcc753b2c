"""What is fastest, decided from ratios that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from smx.errors import InputError
from smx.runtime.tune import forms
from smx.runtime.tune.forms import Ratio, Ratios, beats, best_form, blocks_within, mean, ratios_of, time_files, unbeaten
from tests.runtime.fakes import save
from tests.timing.fakes import timings

FASTER, SLOWER, SAME = (0.9, 0.85, 0.95), (1.1, 1.05, 1.15), (1.0, 0.95, 1.05)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({1: FASTER}, True),
        ({1: FASTER, 16: SAME}, True),
        ({1: SAME, 16: SAME}, False),
        ({1: FASTER, 16: SLOWER}, False),
        ({1: FASTER, 16: (1.08, 0.99, 1.2)}, False),  # not surely slower, but it seems so
        ({1: FASTER, 16: (0.99, 1.001, 1.2)}, False),
        ({1: (0.98, 0.95, 1.001)}, False),
    ],
)
def test_to_beat_is_to_be_surely_faster_somewhere_and_slower_nowhere(ratios: Ratios, expected: bool) -> None:
    assert beats(ratios) is expected


def test_the_best_form_is_the_one_that_beats_the_usual_one_by_the_most() -> None:
    much: Ratio = (0.5, 0.4, 0.6)
    assert best_form({}) is None
    assert best_form({"a": {1: SAME}, "b": {1: SLOWER}}) is None
    assert best_form({"a": {1: FASTER, 2: SAME}, "b": {1: FASTER, 2: FASTER}}) == "b"
    assert best_form({"a": {1: much, 2: SLOWER}, "b": {1: FASTER, 2: SAME}}) == "b", "slower at one batch size"
    assert mean({1: (0.5, 0, 1), 2: (2.0, 0, 1)}) == pytest.approx(1)


def decided(table: dict[tuple[str, str], Ratios], *candidates: str) -> str:
    """`table` has the ratios of one direction; the others follow."""

    def ratios(name: str, other: str) -> Ratios:
        if (name, other) in table:
            return table[name, other]
        return {b: (1 / middle, 1 / high, 1 / low) for b, (middle, low, high) in table[other, name].items()}

    return unbeaten(candidates, [name for name in candidates if name != "forms"], ratios)


def test_the_first_file_stays_unless_another_is_surely_faster() -> None:
    files = ("forms", "sorted", "scatter")
    scatter: dict[tuple[str, str], Ratios] = {("scatter", "forms"): {1: SLOWER}, ("scatter", "sorted"): {1: SLOWER}}
    assert decided({("sorted", "forms"): {1: SAME}, **scatter}, *files) == "forms"
    assert decided({("sorted", "forms"): {1: SLOWER}, **scatter}, *files) == "forms"
    assert decided({("sorted", "forms"): {1: FASTER}, **scatter}, *files) == "sorted"
    both: dict[tuple[str, str], Ratios] = {("scatter", "forms"): {1: FASTER}, ("scatter", "sorted"): {1: FASTER}}
    assert decided({("sorted", "forms"): {1: FASTER}, **both}, *files) == "scatter"
    assert decided({("scatter", "sorted"): {1: SAME}}, "sorted", "scatter") == "sorted"
    assert decided({}, "sorted") == "sorted"


def test_a_file_that_is_slower_at_any_batch_size_gives_way() -> None:
    mixed: Ratios = {1: FASTER, 1024: (2.0, 1.9, 2.1)}
    table: dict[tuple[str, str], Ratios] = {
        ("sorted", "forms"): mixed,
        ("scatter", "forms"): {1: SAME, 1024: SLOWER},
        ("scatter", "sorted"): {1: SAME, 1024: SAME},
    }
    assert decided(table, "forms", "sorted", "scatter") == "sorted"


def test_where_none_is_best_at_all_batch_sizes_the_mean_decides() -> None:
    table: dict[tuple[str, str], Ratios] = {("scatter", "sorted"): {1: (0.5, 0.4, 0.6), 16: SLOWER}}
    assert decided(table, "sorted", "scatter") == "scatter"
    table = {("scatter", "sorted"): {1: FASTER, 16: (2.0, 1.9, 2.1)}}
    assert decided(table, "sorted", "scatter") == "sorted"


def test_ratios_are_of_the_same_rounds() -> None:
    made = timings({("a", 1): [[2.0, 4.0]] * 3, ("b", 1): [[4.0, 8.0]] * 3})
    assert ratios_of(made, "a", "b", (1,)) == {1: (0.5, 0.5, 0.5)}


def test_more_time_makes_more_blocks() -> None:
    assert [blocks_within(seconds, 2.0) for seconds in (1, 9, 1000)] == [forms.MIN_BLOCKS, 4, forms.MAX_BLOCKS]


def test_files_with_different_inputs_are_timed_in_turn(tmp_path: Path) -> None:
    head = '<ir_version: 10, opset_import: ["" : 21]> g '
    paths = {
        name: save(
            tmp_path / f"{name}.onnx", f"{head}(float[batch,{name}] x) => (float[batch,{name}] y) {{ y = Exp(x) }}"
        )
        for name in ("2", "3")
    }
    found = time_files(paths, (1, 4), provider="cpu", threads=1, seconds=0)
    assert {key: len(blocks) for key, blocks in found.bursts.items()} == {
        (name, size): forms.MIN_BLOCKS for name in paths for size in (1, 4)
    }
    fixed = save(tmp_path / "fixed.onnx", f"{head}(float[2,3] x) => (float[2,3] y) {{ y = Exp(x) }}")
    with pytest.raises(InputError, match="made for batch size 2, got 1"):
        time_files({"fixed": fixed}, (1,), provider="cpu", threads=1, seconds=0)
