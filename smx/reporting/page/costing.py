"""The parts about calibration, training time and latency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from smx.reporting import costs
from smx.reporting.charts import methods as charts
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Chart, Column, Part, Table, Text
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED


def calibration(section: Section, tag: str) -> Part | None:
    """Return how sure the networks are of what they say."""
    rows = costs.calibration(section)
    if rows.empty:
        return None
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("calibration_error", "calibration error", words.fine, interval=("low", "high")),
        Column("test_loss", "test loss", words.fine),
        Column("cells", "networks", words.count),
    ]
    note = (
        "The expected calibration error on the test examples, in 15 bins: how far a network's confidence is from how"
        " often it is right, on average. 0 is best."
    )
    least = rows.loc[rows["calibration_error"].idxmin()]
    blocks: list[Block] = (
        [
            Text(
                f"{words.name(least['method'])} has the lowest calibration error,"
                f" {_value(least, 'calibration_error', words.fine)}.",
                strong=True,
            )
        ]
        if len(rows) > 1
        else []
    )
    if len(rows) > 1:
        title = "Calibration error of each method, with 95 % intervals; lower is better"
        svg = charts.dots(rows, "calibration_error", f"calibration{tag}", title, "calibration error", text=words.fine)
        blocks.append(Chart(f"calibration{tag}", "Calibration error", svg, rows))
    blocks.append(Table(f"calibration-table{tag}", "Calibration", rows, columns, note))
    return Part(f"calibration{tag}", "Calibration", blocks)


def training(section: Section, tag: str) -> Part | None:
    """Return what training costs."""
    rows = costs.training(section)
    if len(rows) < 2:
        return None
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("seconds", "seconds of a run", words.decimal),
        Column("ratio", "relative to ReLU", words.decimal, interval=("low", "high")),
        Column("pairs", "pairs", words.count),
    ]
    note = (
        "Seconds of all epochs of a run, relative to ReLU's with the same architecture and seed (geometric mean). Runs"
        " that shared a machine slow each other down, so small differences mean nothing."
    )
    blocks: list[Block] = [
        Text(
            f"Training SmartMixed takes {_value(row, 'ratio', words.decimal)} times as long as training ReLU.",
            strong=True,
        )
        for _, row in rows[rows["method"] == SMARTMIXED].dropna(subset=["ratio"]).iterrows()
    ]
    if rows["ratio"].notna().any():
        title = "Training time of each method relative to ReLU"
        svg = charts.dots(rows, "ratio", f"training{tag}", title, "training time, relative to ReLU's", line=1.0)
        blocks.append(Chart(f"training{tag}", "Training time, relative to ReLU's", svg, rows))
    blocks.append(Table(f"training-table{tag}", "Training time", rows, columns, note))
    return Part(f"cost{tag}", "Cost of training", blocks)


def latency(section: Section, tag: str) -> Part | None:
    """Return what the exported models cost, where that was measured."""
    rows = costs.latency(section)
    if rows.empty:
        return None
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("batch_size", "batch size", words.count),
        Column("ratio", "relative to ReLU", words.decimal, interval=("low", "high")),
        Column("cells", "networks", words.count),
    ]
    note = (
        "The time of the exported file in the sorted layout, relative to that of the same architecture with ReLU,"
        " which ran side by side on one thread (geometric mean)."
    )
    answers = [
        f"{_value(row, 'ratio', words.decimal)} times for batches of {row['batch_size']}"
        for _, row in rows[rows["method"] == SMARTMIXED].iterrows()
    ]
    blocks: list[Block] = []
    if answers:
        text = f"SmartMixed's exported networks take ReLU's time {', '.join(answers)}."
        blocks.append(Text(text, strong=True))
    named = rows.assign(
        shade=rows["method"],
        method=[f"{words.name(row['method'])}, batch {row['batch_size']}" for _, row in rows.iterrows()],
    )
    title = "Latency of the exported networks, relative to ReLU's"
    svg = charts.dots(named, "ratio", f"latency{tag}", title, "latency, relative to ReLU's", line=1.0)
    blocks.append(Chart(f"latency{tag}", title, svg, rows, note))
    blocks.append(Table(f"latency-table{tag}", "Latency in numbers", rows, columns))
    both = costs.trade(section)
    if len(both) > 1:
        title = "Accuracy against latency; the line joins what nothing beats in both"
        caption = "Latency is the geometric mean over batch sizes. A cross is beaten by another method in both."
        blocks.append(Chart(f"trade{tag}", title, charts.trade(both, f"trade{tag}", title), both, caption))
    return Part(f"speed{tag}", "Latency of exported networks", blocks)


def _value(row: pd.Series, name: str, write: Callable[[Any], str]) -> str:
    """Write a value with its interval."""
    bounds = "" if words.missing(row["low"]) else f" ({write(row['low'])} to {write(row['high'])})"
    return f"{write(row[name])}{bounds}"
