"""Grids: what their cells are, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smx.errors import InputError
from smx.paper import LARGEST, PAPER_POOL, TABLE_1
from smx.study.grid import SHIPPED, Cell, cell_of, read_grid
from smx.training.config import FIELDS, TrainConfig
from tests.study.grids import SMALL, with_grid


def test_every_combination_is_a_cell() -> None:
    cells = read_grid(SMALL).cells()
    found = [(cell.config.hidden, cell.method, cell.config.activation, cell.config.seed) for cell in cells]
    expected = [(h, m, m, seed) for h in ((8,), (8, 6)) for m in ("smartmixed", "relu") for seed in (0, 1)]
    assert found == expected
    assert all(cell.config.lr == 1e-3 and cell.config.phase2_epochs == 2 for cell in cells)
    assert len({cell.id for cell in cells}) == len(cells)


def test_the_papers_grid_has_its_architectures_and_methods() -> None:
    assert len(TABLE_1) == 18
    assert LARGEST[1:-1] in TABLE_1
    cells = read_grid("paper").with_values(seeds=[0]).cells()
    assert len(cells) == 18 * 7
    assert {cell.config.hidden for cell in cells} == {*TABLE_1}
    assert {cell.method for cell in cells} == {"smartmixed", *PAPER_POOL}
    for cell in cells:  # the paper's table 2, which are the defaults
        expected = TrainConfig(data="mnist", hidden=cell.config.hidden, activation=cell.config.activation)
        assert cell.config == expected


def test_a_folder_with_the_name_of_a_shipped_grid_hides_it_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").mkdir()
    assert len(read_grid("rules").cells()) == 60
    (tmp_path / "prices").write_text("[grid]\nseed = [1]")
    assert len(read_grid("prices").cells()) == 1


def test_every_shipped_grid_can_be_read() -> None:
    assert {*SHIPPED} == {
        "paper",
        "short",
        "controls",
        "digits",
        "representative",
        "choosing",
        "prices",
        "rules",
        "largest",
    }
    assert all(read_grid(name).cells() for name in SHIPPED)


def test_an_id_counts_what_differs_from_the_defaults_and_nothing_else() -> None:
    """This id must stay, also when settings are added: committed tables are found again by it."""
    cell = Cell("smartmixed", TrainConfig(hidden=(8,), lr=1e-3))
    assert cell.id == "f5284116c2c9"
    assert Cell("another name", cell.config).id == cell.id
    others: dict[str, Any] = {"seed": 1, "lr": 1e-4, "hidden": (9,), "phase2_choices": "random", "device": "cpu"}
    for name, value in others.items():
        assert Cell("smartmixed", replace(cell.config, **{name: value})).id != cell.id


@given(
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 2**63 - 1),
    lr=st.floats(1e-6, 10),
    epochs=st.one_of(st.just("auto"), st.integers(1, 500)),
    pool=st.lists(st.sampled_from(PAPER_POOL), min_size=1, unique=True),
)
def test_a_cell_comes_back_from_its_settings(
    hidden: list[int], seed: int, lr: float, epochs: Any, pool: list[str]
) -> None:
    config = TrainConfig(hidden=tuple(hidden), seed=seed, lr=lr, phase1_epochs=epochs, pool=tuple(pool))
    cell = Cell("mine", config)
    assert cell_of(cell.settings) == cell
    texts = {name: str(value) for name, value in cell.settings.items() if not isinstance(value, bool)}
    assert cell_of(texts) == cell


def test_methods_of_ones_own_and_controls_are_settings() -> None:
    grid = with_grid(method=["two", "shuffled", "relu_two_phases", "gelu"])
    grid["methods"] = {"two": {"activation": "smartmixed", "pool": ["relu", "elu"]}}
    two, shuffled, phases, gelu = read_grid(grid).cells()
    assert two.config.pool == ("relu", "elu")
    assert shuffled.config.phase2_choices == "shuffled"
    assert (phases.config.activation, phases.config.pool) == ("smartmixed", ("relu",))
    assert gelu.config.activation == "gelu"


def test_an_activation_is_one_method_however_it_is_spelled() -> None:
    grid = with_grid(method=["relu", "RELU", "ReLU", "leaky-relu"])
    assert [cell.method for cell in read_grid(grid).cells()] == ["relu", "leaky_relu"]
    mixed = {"activation": "smartmixed", "start": "ELU"}
    grid["methods"] = {"a": {**mixed, "pool": ["ReLU", "elu"]}, "b": {**mixed, "pool": ["relu", "Elu"]}}
    grid["grid"]["method"] = ["a", "b"]
    with pytest.raises(InputError, match="the methods a and b are the same settings"):
        read_grid(grid).cells()


def test_values_win_over_the_grids() -> None:
    grid = read_grid(SMALL).with_values([7], {"lr": "0.5", "method": "elu", "hidden": "3,2"})
    (cell,) = grid.cells()
    assert (cell.method, cell.config.seed, cell.config.lr, cell.config.hidden) == ("elu", 7, 0.5, (3, 2))
    with pytest.raises(InputError, match="the grid's methods set the activation; choose methods with --set method"):
        read_grid(SMALL).with_values(settings={"activation": "elu"})


def test_values_and_what_else_says_the_same() -> None:
    grid = read_grid(SMALL)
    assert all(
        cell.config.rewind
        for cell in grid.with_values(settings={"rewind": "true"}).cells()
        if not cell.config.is_baseline
    )
    rules = read_grid(with_grid(method=["recommended", "relu"]))
    with pytest.raises(InputError, match=r"per is set by .grid. or --set, and by the method recommended"):
        rules.with_values(settings={"per": "4"}).cells()
    with pytest.raises(InputError, match="seeds and a setting of the seed are both given"):
        grid.with_values([1], {"seed": "2"})
    with pytest.raises(InputError, match="seeds must be one or more whole numbers, got none"):
        grid.with_values([])


def test_a_word_for_several_settings_wins_over_the_base() -> None:
    """As `recommended`, which stands for a start, a price and more."""
    base = {**SMALL["base"], "start": "random", "per": 1, "price_weight": 0.0}
    (by_rule,) = read_grid({"base": base, "grid": {"method": ["recommended"]}}).cells()
    own = {"mine": {"activation": "smartmixed", "selection": "recommended"}}
    (by_method,) = read_grid({"base": base, "grid": {"method": ["mine"]}, "methods": own}).cells()
    (by_axis,) = read_grid({"base": base, "grid": {"selection": ["recommended"]}}).cells()
    assert (by_rule.config.start, by_rule.config.per) == ("relu", "layer")
    assert by_rule.config == by_method.config == by_axis.config


def test_a_method_may_say_nothing_of_its_own_and_an_axis_may_be_an_array() -> None:
    grid = with_grid(method=["plain"], seed=np.arange(2))
    grid["methods"] = {"plain": {}}
    assert [(cell.method, cell.config.activation, cell.config.seed) for cell in read_grid(grid).cells()] == [
        ("plain", "smartmixed", 0),
        ("plain", "smartmixed", 1),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"grid": {"method": [""]}}, "method must be a name, got ''"),
        ({"cells": {}}, "'cells'; a grid has the tables"),
        ({"base": 3}, "'base'; a grid has the tables"),
        ({"base": {"learning": 1}}, "unknown setting 'learning'"),
        ({"grid": {"lr": 0.1}}, "lr in .grid. must be a list of values, got 0.1"),
        ({"grid": {"lr": []}}, "must be a list of values"),
        ({"grid": {"seed": ["one"]}}, "seed must be a whole number, got 'one'"),
        ({"grid": {"method": ["sofplus"]}}, "sofplus"),
        ({"methods": {"a": 3}}, "methods.a must be a table of settings, got 3"),
        ({"methods": {"a": {"activaton": "relu"}}}, "unknown setting 'activaton'"),
        (
            {"methods": {"a": {"lr": 1.0}}, "grid": {"lr": [1.0], "method": ["a"]}},
            "lr is set by .grid. or --set, and by the method a",
        ),
        ({"methods": {"a": {"activation": "relu"}}, "grid": {"method": ["a", "relu"]}}, "are the same settings"),
        (
            {"grid": {"activation": ["elu"], "method": ["relu"]}},
            "activation is set by .grid. or --set, and by the m",
        ),
        ({"base": {"method": "relu"}}, "the grid: method must be a list in .grid."),
        ({"methods": {"a": {"method": "relu"}}}, "the grid: method must be a list in .grid."),
        ({"grid": {"lr": [float("nan")]}}, "lr must be positive and finite, got nan"),
        ({"grid": {"seed": [*range(400)], "lr": [0.1] * 300}}, "the grid has 120,000 cells, more than 100,000"),
        *(
            ({"methods": {name: {}}}, "a method's name must be")
            for name in ("", "<b>", "=1+1", "a\nb", "a/b", "x" * 61)
        ),
    ],
)
def test_a_bad_grid_is_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_grid(content).cells()


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    for content in (b"[grid", b"\xff\xfe", b"a = " + b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no TOML file"):
            read_grid(path)
    with pytest.raises(InputError, match="there is no grid absent; give a TOML file, or one of choosing, controls"):
        read_grid("absent")
    with pytest.raises(InputError, match="can't be read"):
        read_grid(tmp_path)


def test_every_setting_has_a_value_in_a_row() -> None:
    assert {*Cell("relu", TrainConfig()).settings} == {"method", *FIELDS}
