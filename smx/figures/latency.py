"""The figure of a bench: the distribution of every candidate's times, and the ratios with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smx.figures.style import COLOURS, bare, colour, new_figure, save
from smx.timing.report import Latency, TimingReport

MIXED = "#b3004b"
"""The colour of candidates that are no fixed baseline."""

SHOWN = (0.01, 0.95)
"""Quantiles of the single runs between which their distribution is drawn."""
CUT = 2.5
"""Distributions end at this multiple of their median: on a busy machine single runs take many times as long."""


def draw_latency(report: TimingReport, path: Path) -> Path:
    """Draw every candidate's times and its ratio with the interval, one panel for each batch size; return the path.

    Times are multiples of the baseline's median.
    """
    batches = report.batch_sizes
    names = list(dict.fromkeys(row.name for row in report.results))
    figure = new_figure(max(9.0, 2.0 + 2.2 * len(batches)), 1.4 + 0.42 * len(names))
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False).flatten()
    for panel, batch in zip(panels, batches, strict=True):
        rows = {row.name: row for row in report.results if row.batch_size == batch}
        for position, name in enumerate(names):
            shade = colour(name, position) if name in COLOURS else MIXED
            _draw(panel, position, rows[name], report, shade)
        panel.axvline(1.0, color="black", linewidth=0.8, linestyle="--", zorder=0)
        panel.set_title(f"batch {batch}", fontsize=10)
        panel.margins(x=0.15)
        panel.set_xlim(right=min(panel.get_xlim()[1], max(CUT, 1.1 * max(row.ratio_high for row in rows.values()))))
        bare(panel)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(
        f"time of a run, as a multiple of {report.baseline}'s median; shape: single runs, 1 % to 95 %;"
        f" dot and bar: ratio and its {report.level:.0%} interval",
        fontsize=9,
    )
    return save(figure, path)


def _draw(panel: Any, position: int, row: Latency, report: TimingReport, shade: Any) -> None:
    runs = report.timings.runs(row.name, row.batch_size)
    baseline = np.median(report.timings.runs(report.baseline, row.batch_size))
    low, high = np.quantile(runs, SHOWN)
    shown = runs[(runs >= low) & (runs <= min(high, CUT * np.median(runs)))] / baseline
    if len(np.unique(shown)) > 1:
        parts = panel.violinplot(shown, [position], orientation="horizontal", widths=0.8, showextrema=False)
        for body in parts["bodies"]:
            body.set(facecolor=shade, alpha=0.3, edgecolor="none")
    spread = [[max(0.0, row.ratio - row.ratio_low)], [max(0.0, row.ratio_high - row.ratio)]]
    panel.errorbar(row.ratio, position, xerr=spread, fmt="o", markersize=4, color=shade, capsize=3)
    panel.annotate(
        f"{row.ratio:.2f}", (row.ratio, position), (0, 6), textcoords="offset points", ha="center", fontsize=7
    )
