"""Which runs a report compares with each other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from smx.reporting.page.render import parts_of
from smx.reporting.study import Study
from smx.study.grid import Cell
from tests.reporting.tables import accuracies, chosen, frame, study_of_frames


def even(cell: Cell) -> dict[str, Any]:
    return chosen(cell, lambda depth: {"relu": 0.5, "elu": 0.5})


def titles(*frames: pd.DataFrame) -> list[str]:
    return [section.title for section in study_of_frames(*frames).sections]


def test_a_rule_with_other_epochs_or_data_is_not_compared() -> None:
    paper = frame(even, method=["smartmixed", "relu"], seed=[0])
    assert titles(paper, frame(even, method=["matched"], seed=[0])) == [""]
    assert len(titles(paper, frame(even, method=["matched"], seed=[0], lr=[0.5]))) == 2
    own = {"mine": {"pool": ["relu", "elu"]}}
    mine = frame(even, own, method=["mine"], seed=[0])
    assert titles(paper, mine) == [""]
    assert titles(paper, frame(even, own, method=["mine"], seed=[0], data=["mnist"])) == [
        "data = digits",
        "data = mnist",
    ]


def test_a_title_says_no_more_than_tells_sections_apart() -> None:
    short, long = (frame(even, method=["relu"], seed=[0], phase1_epochs=[n], lr=[r]) for n, r in ((1, 0.1), (9, 0.2)))
    assert titles(short, long) == ["phase1_epochs = 1", "phase1_epochs = 9"]


def test_other_data_of_the_same_name_are_told_apart() -> None:
    before = frame(even, method=["relu"], seed=[0]).assign(data_fingerprint="a1")
    after = frame(even, method=["relu"], seed=[1]).assign(data_fingerprint="b2")
    unknown = frame(even, method=["relu"], seed=[2])
    assert titles(before, unknown) == [""]
    assert titles(before, after) == ["data = digits (a1)", "data = digits (b2)"]


def test_a_method_whose_activation_changed_is_two() -> None:
    tables = [
        frame(lambda cell: accuracies(0.5), {"mine": {"activation": name}}, method=["mine"], seed=[0])
        for name in ("gelu", "silu")
    ]
    (section,) = study_of_frames(*tables).sections
    assert section.methods == ["mine (gelu)", "mine (silu)"]


def test_every_part_and_figure_has_a_name_of_its_own() -> None:
    """Also where two sections have several methods that choose."""
    rules = ["smartmixed", "matched", "recommended"]
    made = study_of_frames(frame(even, method=rules, seed=[0]))
    two = study_of_frames(*(frame(even, method=rules, seed=[0], lr=[rate]) for rate in (0.1, 0.2)))
    for each, sections in ((made, 1), (two, 2)):
        assert len(each.sections) == sections
        ids = _names(each)
        assert len(ids) == len({*ids})
        assert sum(name.startswith("shares") for name in ids) == 3 * sections


def _names(made: Study) -> list[str]:
    found = []
    for part in parts_of(made):
        found += [part.id, *(block.name for block in part.blocks if hasattr(block, "name") and block.name != part.id)]
    return found


def test_rows_without_an_id_are_cells_each() -> None:
    rows = frame(lambda cell: accuracies(0.5), method=["relu"], seed=[0, 1]).assign(cell=None)
    assert len(study_of_frames(rows).cells) == 2
