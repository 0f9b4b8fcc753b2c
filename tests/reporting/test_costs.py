"""Costs, calibration and the accuracies of phases, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smx.paper import LARGEST
from smx.reporting import costs, phases
from smx.reporting.study import Section
from smx.study.grid import Cell
from tests.reporting.tables import accuracies, made

SECONDS = {"smartmixed": 3.0, "relu": 2.0, "tanh": 4.0}


def only(result: object, **axes: object) -> Section:
    defaults = {"hidden": [(8,), (8, 4)], "method": list(SECONDS), "seed": [0, 1]}
    (found,) = made(result, **{**defaults, **axes}).sections  # type: ignore[arg-type]
    return found


def test_the_processors_seconds_come_before_the_clocks() -> None:
    def result(cell: Cell) -> dict[str, float]:
        slower = {"smartmixed": 3.0, "relu": 2.0}[cell.method]
        return {**accuracies(0.5), "seconds": 100.0 * cell.config.seed + 1, "processor_seconds": slower, "threads": 1}

    table = costs.training(only(result, method=["smartmixed", "relu"])).set_index("method")
    assert table["seconds"].to_dict() == {"smartmixed": 3, "relu": 2}
    assert table.loc["smartmixed", "ratio"] == pytest.approx(1.5)


def test_training_is_compared_in_the_same_architecture_and_seed() -> None:
    def result(cell: Cell) -> dict[str, float] | None:
        if (cell.method, cell.config.seed) == ("relu", 1):
            return None
        slower = len(cell.config.hidden)
        return {**accuracies(0.5), "seconds": slower * SECONDS[cell.method], "threads": 1}

    table = costs.training(only(result)).set_index("method")
    assert table["ratio"].to_dict() == pytest.approx({"smartmixed": 1.5, "relu": 1, "tanh": 2})
    assert table.loc["tanh", ["low", "high"]].isna().all()  # two equal ratios have no spread to judge by
    assert table["pairs"].tolist() == [2, 2, 2]
    assert table["seconds"].to_dict() == pytest.approx({"smartmixed": 4.5, "relu": 3, "tanh": 6})


def test_other_threads_are_no_pair() -> None:
    def result(cell: Cell) -> dict[str, float]:
        return {**accuracies(0.5), "seconds": 1.0, "threads": 2 if cell.method == "tanh" else 1}

    table = costs.training(only(result)).set_index("method")
    assert np.isnan(table.loc["tanh", "ratio"])
    assert table.loc["tanh", "pairs"] == 0


def test_what_nothing_beats_in_accuracy_and_latency_is_the_front() -> None:
    found = {"smartmixed": (0.9, [2.0, 8.0]), "relu": (0.8, [1.0, 1.0]), "tanh": (0.7, [3.0]), "elu": (0.8, [0.5, 2.0])}

    def result(cell: Cell) -> dict[str, object]:
        accuracy, ratios = found[cell.method]
        latency = {str(batch): {"ratio": ratio} for batch, ratio in enumerate(ratios, 1)}
        return {**accuracies(accuracy + 0.01 * cell.config.seed), "latency": latency}

    table = costs.trade(only(result, method=[*found])).set_index("method")
    assert table["ratio"].to_dict() == pytest.approx({"smartmixed": 4, "relu": 1, "tanh": 3, "elu": 1})
    assert table["accuracy"].to_dict() == pytest.approx({name: a + 0.005 for name, (a, _) in found.items()})
    half = stats.t.ppf(0.975, 3) * 0.01 / np.sqrt(3) / 2  # four networks, whose deviation is 0.01 / sqrt(3)
    assert (table["high"] - table["accuracy"]).to_list() == pytest.approx([half] * len(found))
    assert (table["accuracy"] - table["low"]).to_list() == pytest.approx([half] * len(found))
    assert table["front"].to_dict() == {"smartmixed": True, "relu": True, "tanh": False, "elu": True}
    assert costs.trade(only(lambda cell: accuracies(0.5))).empty


def test_without_relu_there_is_no_ratio() -> None:
    table = costs.training(only(lambda cell: {**accuracies(0.5), "seconds": 2.0}, method=["smartmixed"]))
    assert table["ratio"].isna().all()
    assert table["seconds"].tolist() == [2]
    assert costs.training(only(lambda cell: accuracies(0.5))).empty


def test_latency_where_the_table_has_it() -> None:
    def result(cell: Cell) -> dict[str, object]:
        ratio = {"ratio": 1.0 + cell.config.seed, "low": 0.9, "high": 2.1}
        return {**accuracies(0.5), **({"latency": {"1": ratio, "16": ratio}} if cell.method == "smartmixed" else {})}

    table = costs.latency(only(result))
    assert table[["method", "batch_size"]].to_numpy().tolist() == [["smartmixed", 1], ["smartmixed", 16]]
    assert table["ratio"].tolist() == pytest.approx([2**0.5] * 2)
    assert (table["cells"] == 4).all()
    assert costs.latency(only(lambda cell: accuracies(0.5))).empty


def test_calibration_leaves_out_what_was_not_measured() -> None:
    def result(cell: Cell) -> dict[str, float]:
        measured = {"calibration_error": 0.1 * len(cell.config.hidden), "test_loss": 1.0}
        return {**accuracies(0.5), **(measured if cell.method == "relu" else {})}

    (row,) = costs.calibration(only(result)).to_dict("records")
    assert (row["method"], row["calibration_error"], row["test_loss"], row["cells"]) == (
        "relu",
        pytest.approx(0.15),
        1,
        4,
    )
    expected = stats.ttest_1samp([0.1, 0.1, 0.2, 0.2], 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
    assert costs.calibration(only(lambda cell: accuracies(0.5))).empty


def test_table_3_stands_beside_the_papers() -> None:
    def result(cell: Cell) -> dict[str, float]:
        first = 0.8 + 0.1 * cell.config.seed
        phase1 = {f"phase1_{part}_accuracy": first for part in ("validation", "test")}
        return {**accuracies(0.95), **phase1, **{f"{name}_sampled": 0.7 for name in phase1}}

    table = phases.table_3(only(result, hidden=[LARGEST[1:-1], (8,)], data=["mnist"]))
    assert table["phase"].tolist() == ["phase 1", "phase 1, sampled", "phase 2"] * 2
    assert table["test_accuracy"].to_numpy() == pytest.approx([0.85, 0.7, 0.95] * 2)
    assert table["validation_deviation"].to_numpy()[:2] == pytest.approx([0.1 / np.sqrt(2), 0])
    assert table["paper_test"].tolist()[:3] == [0.9573, 0.9573, 0.9803]
    assert table["paper_validation"][3:].isna().all()
    baseline = phases.table_3(only(result, data=["fashion-mnist"], method=["relu"]), "relu")
    assert baseline["paper_test"].isna().all()


def test_a_baseline_has_one_phase() -> None:
    assert phases.table_3(only(lambda cell: accuracies(0.5)), "relu")["phase"].tolist() == ["phase 2"] * 2


def test_curves_are_means_of_the_epochs_that_all_seeds_have() -> None:
    def result(cell: Cell) -> dict[str, object]:
        n = 3 + cell.config.seed
        columns = {name: [float(i + cell.config.seed) for i in range(n)] for name in phases.CURVES}
        return {**accuracies(0.5), "curves": {"phase": [1] + [2] * (n - 1), **columns}}

    table = phases.curves(only(result), "8")
    assert table[["phase", "epoch"]].to_numpy().tolist() == [[1, 1], [2, 1], [2, 2]]
    assert table["train_loss"].tolist() == [0.5, 1.5, 2.5]
    assert phases.curves(only(lambda cell: accuracies(0.5)), "8").empty
