"""Figures of a run: its curves, and what the neurons chose."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator, PercentFormatter

from smx.figures.style import bare, colour, new_figure, save
from smx.training.metrics import EpochMetrics


def draw_run(rows: Sequence[EpochMetrics], folder: Path) -> list[Path]:
    """Draw all figures of a run into `folder` and return their paths.

    A run without phase 1 (a baseline) has no choices to show, and gets the curves alone.
    """
    paths = [draw_curves(rows, folder / "curves.png")]
    phase1 = [row for row in rows if row.phase == 1]
    if phase1:
        paths.append(draw_shares(rows[-1], folder / "shares.png"))
        paths.append(draw_shares_by_epoch(phase1, folder / "shares_by_epoch.png"))
    return paths


def draw_curves(rows: Sequence[EpochMetrics], path: Path) -> Path:
    """Draw loss and accuracy over the epochs of both phases, with the commit marked (the paper's figures 1 and 2)."""
    figure = new_figure(10, 4)
    losses, accuracies = figure.subplots(1, 2)
    epochs = list(range(1, len(rows) + 1))
    committed = sum(row.phase == 1 for row in rows)
    losses.plot(epochs, [row.train_loss for row in rows], label="training")
    losses.plot(epochs, [row.validation_loss for row in rows], label="validation")
    losses.set(xlabel="epoch", ylabel="loss", yscale="log")
    accuracies.plot(epochs, [row.train_accuracy for row in rows], label="training")
    accuracies.plot(epochs, [row.validation_accuracy for row in rows], label="validation, committed choice")
    if committed:
        sampled = [row.validation_accuracy_sampled for row in rows[:committed]]
        accuracies.plot(epochs[:committed], sampled, "." if committed == 1 else ":", label="validation, sampled choice")
    # Without the first epochs, whose low accuracies would leave the curves no height.
    settled = [row.validation_accuracy for row in rows[len(rows) // 10 :]]
    accuracies.set(xlabel="epoch", ylabel="accuracy", ylim=(max(0.0, 1 - 2.5 * (1 - min(settled)) - 0.01), 1.003))
    for axes in (losses, accuracies):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if 0 < committed < len(rows):
            axes.axvline(committed + 0.5, color="black", linewidth=1, linestyle="--", label="commit")
        bare(axes)
        axes.legend(edgecolor="none", framealpha=0.9)
    return save(figure, path)


def draw_shares(row: EpochMetrics, path: Path) -> Path:
    """Draw the share of each activation in each layer (the paper's figure 3)."""
    layers = list(row.shares)
    figure = new_figure(8, 1.3 + 0.5 * len(layers))
    axes = figure.subplots()
    left = [0.0] * len(layers)
    for position, name in enumerate(next(iter(row.shares.values()))):
        widths = [row.shares[layer][name] for layer in layers]
        bars = axes.barh(range(len(layers)), widths, left=left, color=colour(name, position), label=name)
        texts = [f"{width:.0%}" if width >= 0.05 else "" for width in widths]
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=9)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(layers)), [_title(layer) for layer in layers])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the layer's neurons")
    axes.xaxis.set_major_formatter(_percent())
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    return save(figure, path)


def draw_shares_by_epoch(rows: Sequence[EpochMetrics], path: Path) -> Path:
    """Draw the shares epoch by epoch through phase 1, a panel for each layer (the paper's figures 4 and 5)."""
    layers = list(rows[0].shares)
    columns = min(3, len(layers))
    lines = math.ceil(len(layers) / columns)
    figure = new_figure(3.6 * columns + 0.4, 2.6 * lines + 0.7)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    epochs = [row.epoch for row in rows]
    for panel, layer in zip(panels, layers, strict=False):
        for position, name in enumerate(rows[0].shares[layer]):
            shares = [row.shares[layer][name] for row in rows]
            marker = "o" if len(rows) == 1 else None
            panel.plot(epochs, shares, marker=marker, color=colour(name, position), label=name, linewidth=1.8)
        panel.set_title(_title(layer), fontsize=10)
        panel.set_ylim(-0.02, 1.02)
        panel.yaxis.set_major_formatter(_percent())
        bare(panel)
    for panel in panels[len(layers) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch of phase 1", fontsize=10)
    figure.supylabel("share of the layer's neurons", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
    return save(figure, path)


def _title(layer: str) -> str:
    return re.sub(r"^layer(\d+)$", r"layer \1", layer.removesuffix(".activation"))


def _percent() -> PercentFormatter:
    return PercentFormatter(1.0, decimals=0)
