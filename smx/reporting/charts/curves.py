"""Loss and accuracy, epoch by epoch (the paper's figures 1 and 2)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smx.figures.style import bare
from smx.reporting.charts.names import short
from smx.reporting.charts.svg import INK, colour, draw

WIDTH = 4.7
"""Inches: at 72 points an inch the figure is as wide as a phone's screen."""
LINES = {"train_loss": ("training", "#d55e00"), "validation_loss": ("validation", "#0072b2")}


def losses(curves: pd.DataFrame, name: str) -> str:
    """Draw the losses of one method on one architecture, a panel a phase.

    Args:
        curves: with `phase`, `epoch` (in the phase), `train_loss`, `validation_loss`.
        name: of the figure.
    """
    phases = sorted(curves["phase"].unique())

    def paint(figure: Figure) -> None:
        for panel, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
            rows = curves[curves["phase"] == phase]
            for column, (label, shade) in LINES.items():
                marker = "o" if len(rows) == 1 else None
                panel.plot(rows["epoch"], rows[column], color=shade, marker=marker, label=label)
            panel.set_title(f"phase {phase}" if len(phases) > 1 else "")
            panel.set_xlabel("epoch")
            _whole(panel)
        figure.axes[0].set_ylabel("cross-entropy")
        figure.axes[0].legend(frameon=False)

    return draw(name, "Loss by epoch, on the training and the validation examples", WIDTH, 2.6, paint)


def accuracies(curves: pd.DataFrame, name: str) -> str:
    """Draw the validation accuracy of each method on one architecture over all its epochs, both phases in a row.

    Args:
        curves: with `method`, `phase`, `epoch` (in the phase), `validation_accuracy`.
        name: of the figure.
    """
    rows = curves.copy()
    first = rows[rows["phase"] == 1].groupby("method")["epoch"].max()
    rows["epoch"] += rows["method"].map(first).fillna(0).where(rows["phase"] == 2, 0).astype(int)
    means = rows.pivot_table(index="epoch", columns="method", values="validation_accuracy")
    methods = list(dict.fromkeys(curves["method"]))

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        for method in (each for each in methods if each in means):
            values = means[method].dropna()
            bold: Any = {"linewidth": 2.8, "zorder": 3} if method == "smartmixed" else {}
            marker = "o" if len(values) == 1 else None
            panel.plot(values.index, values, marker=marker, color=colour(method, methods), label=short(method), **bold)
        for commit in sorted({*first}):
            panel.axvline(commit + 0.5, color=INK, linewidth=0.8, linestyle=":")
        # Without the first epochs, whose low accuracies would leave the curves no height.
        settled = means[means.index > len(means) // 4].min().min()
        room = 0.1 * (means.max().max() - settled) + 0.002
        panel.set_ylim(max(0.0, settled - room), min(1.0, means.max().max() + room))
        panel.set(xlabel="epoch, of both phases", ylabel="validation accuracy")
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        _whole(panel)
        figure.legend(loc="outside upper center", ncols=min(len(methods), 4), frameon=False)

    return draw(name, "Validation accuracy by epoch and method", WIDTH, 3.2, paint)


def _whole(panel: Any) -> None:
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bare(panel)
