"""Loss and accuracy, epoch by epoch (the paper's figures 1 and 2)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smx.figures.style import bare
from smx.reporting.charts.names import short
from smx.reporting.charts.svg import INK, colour, draw

WIDTH = 5.4
LINES = {"train_loss": ("training", "#d55e00"), "validation_loss": ("validation", "#0072b2")}


def losses(epochs: pd.DataFrame, name: str) -> str:
    """Draw the losses of one method on one architecture, a panel a phase: each seed thin, their mean bold.

    Args:
        epochs: with `seed`, `phase`, `epoch`, `train_loss`, `validation_loss`.
        name: of the figure.
    """
    phases = sorted(epochs["phase"].unique())

    def paint(figure: Figure) -> None:
        for panel, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
            rows = epochs[epochs["phase"] == phase]
            for column, (label, shade) in LINES.items():
                _seeds(panel, rows, column, label, shade)
            panel.set(title=f"phase {phase}" if len(phases) > 1 else None, xlabel="epoch")
            _whole(panel)
        figure.axes[0].set_ylabel("cross-entropy")
        figure.axes[0].legend(frameon=False)

    return draw(name, "Loss by epoch, on the training and the validation examples", WIDTH, 2.6, paint)


def accuracies(epochs: pd.DataFrame, name: str) -> str:
    """Draw the mean validation accuracy of each method on one architecture over all its epochs, both phases in a row.

    Args:
        epochs: with `method`, `seed`, `phase`, `epoch`, `validation_accuracy`.
        name: of the figure.
    """
    rows = epochs.copy()
    first = rows[rows["phase"] == 1].groupby(["method", "seed"])["epoch"].max().rename("before").reset_index()
    rows = rows.merge(first, how="left", on=["method", "seed"])
    rows["epoch"] += rows["before"].fillna(0).where(rows["phase"] == 2, 0).astype(int)
    means = rows.groupby(["method", "epoch"])["validation_accuracy"].mean().unstack("method")
    methods = list(dict.fromkeys(epochs["method"]))

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        for method in methods:
            values = means[method].dropna()
            bold = {"linewidth": 2.6, "zorder": 3} if method == "smartmixed" else {}
            marker = "o" if len(values) == 1 else None
            panel.plot(values.index, values, marker=marker, color=colour(method, methods), label=short(method), **bold)
        for commit in sorted({*first["before"]}):
            panel.axvline(commit + 0.5, color=INK, linewidth=0.8, linestyle=":")
        settled = means[means.index > len(means) // 4].min().min()
        top = means.max().max()
        panel.set_ylim(max(0.0, settled - 0.15 * (top - settled) - 0.002), min(1.0, top + 0.1 * (top - settled) + 0.002))
        panel.set(xlabel="epoch, of both phases", ylabel="validation accuracy")
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        _whole(panel)
        figure.legend(loc="outside right upper", frameon=False)

    return draw(name, "Validation accuracy by epoch and method", WIDTH, 3.0, paint)


def _seeds(panel: Any, rows: pd.DataFrame, column: str, label: str, shade: str) -> None:
    by_seed = rows.pivot_table(index="epoch", columns="seed", values=column)
    if by_seed.empty:
        return
    marker = "o" if len(by_seed) == 1 else None
    if by_seed.shape[1] > 1:
        panel.plot(by_seed.index, by_seed, color=shade, linewidth=0.6, alpha=0.5)
    panel.plot(by_seed.index, by_seed.mean(axis=1), color=shade, marker=marker, label=label)


def _whole(panel: Any) -> None:
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bare(panel)
