"""The figure of a bench: ratios to the baseline, with their spread."""

from __future__ import annotations

from pathlib import Path

from smx.figures.style import COLOURS, bare, colour, new_figure, save
from smx.runtime.latency import LatencyReport

MIXED = "#b3004b"
"""The mixed model's colour, in whatever layout."""


def draw_latency(report: LatencyReport, path: Path) -> Path:
    """Draw for each batch size every candidate's ratio to the baseline, the quartiles over the rounds as a bar."""
    batches = list(dict.fromkeys(row.batch_size for row in report.results))
    names = list(dict.fromkeys(row.name for row in report.results))
    figure = new_figure(2.0 + 2.2 * len(batches), 1.2 + 0.34 * len(names))
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False).flatten()
    for panel, batch in zip(panels, batches, strict=True):
        rows = {row.name: row for row in report.results if row.batch_size == batch}
        for position, name in enumerate(names):
            row = rows[name]
            spread = [[row.ratio - row.ratio_low], [row.ratio_high - row.ratio]]
            shade = colour(name, position) if name in COLOURS else MIXED
            panel.errorbar(row.ratio, position, xerr=spread, fmt="o", color=shade, capsize=3)
            panel.annotate(
                f"{row.ratio:.2f}",
                (row.ratio_high, position),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
        panel.set_title(f"batch {batch}", fontsize=10)
        panel.margins(x=0.28)
        bare(panel)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"median time of a run, as a multiple of {report.baseline}'s", fontsize=10)
    return save(figure, path)
