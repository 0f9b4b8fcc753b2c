"""The parts about differences: SmartMixed against each method, and the accuracies of the phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from smx.reporting import comparisons, phases
from smx.reporting.charts import methods as charts
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Chart, Column, Part, Table, Text
from smx.reporting.study import Section
from smx.study.methods import CONTROLS
from smx.training.config import SMARTMIXED

ASKED = {
    (SMARTMIXED, "shuffled"): "Does it matter which neuron has which activation?",
    ("shuffled", "random"): "Do the shares in each layer matter?",
    (SMARTMIXED, "random"): "Is learning better than drawing from the pool?",
    (SMARTMIXED, "majority"): "Is a mixture better than one activation a layer?",
    (SMARTMIXED, "relu_two_phases"): "Is it better than ReLU, both in two phases?",
    ("relu_two_phases", "relu"): "Is ReLU better in two phases than in one?",
}
"""What the difference between two methods answers."""
UNCORRECTED = "These p values are not corrected; the table of all tests has those that are."
PAIRS = (
    "Means over the pairs of runs with the same architecture and seed; every architecture counts the same. The 95 %"
    " intervals are a bootstrap's that draws architectures, and pairs within each; of fewer than six values Student's."
)


def methods(section: Section, tag: str) -> Part | None:
    """Return the differences between SmartMixed and the other methods."""
    rows = comparisons.comparisons(section)
    rows = rows[~rows["other"].isin([*CONTROLS])]
    if rows.empty:
        return None
    svg = charts.dots(
        rows.assign(method=rows["other"]),
        "difference",
        f"differences{tag}",
        "SmartMixed's test accuracy minus that of each other method, in points",
        "points of accuracy; right of 0 SmartMixed is better",
        line=0.0,
        text=words.points,
    )
    columns = [
        Column("other", "other method", words.name, numeric=False),
        Column("difference", "points", words.points, interval=("low", "high")),
        Column("pairs", "pairs", words.count),
        Column("wins", "architectures where better", words.count),
        Column("architectures", "of", words.count),
        Column("p", "p", words.p),
        Column("test", "test", numeric=False),
    ]
    blocks: list[Block] = [
        Text(_sure(rows), strong=True),
        Chart(f"differences{tag}", "SmartMixed minus each other method", svg, rows, PAIRS),
        Table(f"comparisons{tag}", "The differences in numbers", rows, columns, UNCORRECTED),
    ]
    within = comparisons.within_architectures(section)
    if len(within):
        columns = [
            Column("architecture", "hidden layers", words.name, numeric=False),
            Column("other", "other method", words.name, numeric=False),
            Column("difference", "points", words.points, interval=("low", "high")),
            Column("pairs", "seeds", words.count),
            Column("p", "p", words.p),
            Column("p_corrected", "corrected p", words.p),
        ]
        note = "Paired t tests over the seeds. Holm's correction counts all of this table."
        blocks.append(Table(f"within{tag}", "The differences in each architecture", within, columns, note, closed=True))
    return Part(f"compared{tag}", "SmartMixed against each method", blocks)


def controls(section: Section, tag: str) -> Part | None:
    """Return what learning the choices is worth: differences between the controls, and what they ask."""
    found = [(comparisons.compare(section, *pair), pair, asked) for pair, asked in ASKED.items()]
    rows = pd.DataFrame(
        [{"what": " - ".join(pair), "asked": asked, **row, "shade": pair[0]} for row, pair, asked in found if row]
    )
    if rows.empty:
        return None
    svg = charts.dots(
        rows.assign(method=rows["what"]),
        "difference",
        f"controls{tag}",
        "Differences of test accuracy between SmartMixed and its controls, in points",
        "points of test accuracy",
        line=0.0,
        text=words.points,
    )
    columns = [
        Column("asked", "question", numeric=False),
        Column("what", "difference of", words.name, numeric=False),
        Column("difference", "points", words.points, interval=("low", "high")),
        Column("pairs", "pairs", words.count),
        Column("architectures", "architectures", words.count),
        Column("p", "p", words.p),
    ]
    answers = [f"{words.name(row['what'])}: {_difference(row)}" for row in rows.head(2).to_dict("records")]
    blocks: list[Block] = [
        Text(f"{'; '.join(answers)}.", strong=True),
        Text(
            "Three controls have SmartMixed's phase 1 with the same seed. Shuffled: the learned choices in a random"
            " order in each layer. Random: choices drawn from the pool. Majority: each layer's most chosen activation"
            " for all its neurons. And ReLU in two phases: ReLU alone, through the same schedule."
        ),
        Chart(f"controls{tag}", "What learning the choices is worth", svg, rows.drop(columns="shade"), PAIRS),
        Table(f"controls-table{tag}", "The controls in numbers", rows.drop(columns="shade"), columns, UNCORRECTED),
    ]
    return Part(f"controls{tag}", "Controls", blocks)


def _difference(row: Mapping[str, Any]) -> str:
    bounds = words.interval(row)
    return f"{words.points(row['difference'])} points" + (f" ({bounds})" if bounds != words.NOTHING else "")


def _sure(rows: pd.DataFrame) -> str:
    """Say on which side of zero the intervals lie."""

    def named(some: pd.DataFrame) -> str:
        return ", ".join(
            f"{words.name(row['other'])} ({words.points(row['difference'])})" for _, row in some.iterrows()
        )

    known = rows.dropna(subset=["low", "high"])
    better, worse = known[known["low"] > 0], known[known["high"] < 0]
    parts = []
    if len(better):
        parts.append(f"SmartMixed is better than {named(better)}")
    if len(worse):
        parts.append(f"{'it' if parts else 'SmartMixed'} is worse than {named(worse)}")
    rest = rows.drop([*better.index, *worse.index])
    if len(rest):
        whose = "its" if parts else "SmartMixed's"
        parts.append(f"{whose} difference to {named(rest)} is not sure")
    return f"{'; '.join(parts)}. In points of test accuracy, by 95 % intervals, before any correction."


def by_phase(section: Section, tag: str) -> Part | None:
    """Return Table 3."""
    rows = phases.table_3(section)
    if rows.empty:
        return None
    columns = [
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("phase", "phase", numeric=False),
        Column("validation_accuracy", "validation", words.percent),
        Column("validation_deviation", "deviation", words.percent),
        Column("test_accuracy", "test", words.percent),
        Column("test_deviation", "deviation", words.percent),
        Column("n", "seeds", words.count),
        Column("paper_validation", "paper: validation", words.percent),
        Column("paper_test", "paper: test", words.percent),
    ]
    note = (
        "Accuracies of SmartMixed in the best epoch of each phase, means over the seeds. Sampled: the noise of phase 1"
        " stays on in the evaluation, as in the author's code."
    )
    table = Table(f"table-3{tag}", "Accuracy after each phase (the paper's Table 3)", rows, columns, note)
    return Part(f"phases{tag}", "Accuracy after each phase", [*_gain(rows), table])


def _gain(rows: pd.DataFrame) -> list[Block]:
    means = rows.pivot_table(index="architecture", columns="phase", values="test_accuracy")
    gain = 100 * means.reindex(columns=["phase 1", "phase 2"]).diff(axis=1)["phase 2"].dropna()
    if gain.empty:
        return []
    text = (
        f"From the best epoch of phase 1 to that of phase 2 test accuracy changes by {words.points(gain.mean())} points"
    )
    if len(gain) > 1:
        text += f" on average over {len(gain)} architectures ({words.points(gain.min())} to {words.points(gain.max())})"
    return [Text(f"{text}.", strong=True)]
