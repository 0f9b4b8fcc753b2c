"""Methods beside each other: values with intervals, and how often each took each rank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smx.figures.style import bare
from smx.reporting.charts.labels import LINE, list_height, places, write_list
from smx.reporting.charts.names import short
from smx.reporting.charts.svg import INK, POINTS, colour, draw

WIDTH = 4.7
"""Inches: at 72 points an inch the figure is as wide as a phone's screen."""
SQUARE = 3.6
"""Inches: the height of a figure of points."""
DIRECT = 9
"""So many methods have their names at their points; more have numbers there and their names in a list below."""
MEDALS = ("#b8860b", "#8f979e", "#a0522d")
"""Of the first three ranks; the others fade into the page."""


def dots(
    values: pd.DataFrame,
    column: str,
    name: str,
    title: str,
    axis: str,
    *,
    line: float | None = None,
    text: Callable[[float], str] = "{:.2f}".format,
) -> str:
    """Draw a value with its interval for each method, the largest one on top.

    Args:
        values: with `method`, `low` and `high` where there are intervals, and `shade` where a row has the colour of
            another name.
        column: the one that holds the values.
        name: of the figure.
        title: what it shows.
        axis: the words at the axis of values.
        line: a value that is marked: no difference, for example.
        text: writes a value.
    """
    rows = values.dropna(subset=[column]).sort_values(column)
    methods = list(rows["method"])

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        for position, row in enumerate(rows.to_dict("records")):
            shade, value = colour(row.get("shade", row["method"]), methods), row[column]
            low, high = row.get("low", np.nan), row.get("high", np.nan)
            if np.isfinite([low, high]).all():
                panel.plot([low, high], [position, position], color=shade, linewidth=2, solid_capstyle="butt")
            panel.plot(value, position, "o", color=shade, markersize=6)
            panel.annotate(text(value), (value, position), (0, 6), textcoords="offset points", ha="center", fontsize=7)
        if line is not None:
            panel.axvline(line, color=INK, linewidth=0.8, linestyle=":", zorder=0)
        panel.set_yticks(range(len(methods)), [short(method, 34) for method in methods])
        panel.set_ylim(-0.5, len(methods) - 0.2)
        panel.set_xlabel(axis)
        panel.margins(x=0.1)
        bare(panel)
        panel.grid(False, axis="y")
        panel.tick_params(left=False)
        panel.spines["left"].set_visible(False)

    return draw(name, title, WIDTH, 0.7 + 0.3 * len(methods), paint)


def trade(rows: pd.DataFrame, name: str, title: str) -> str:
    """Draw each method's accuracy against its latency; a line joins those that no other beats in both.

    Args:
        rows: `method`, `ratio`, `accuracy`, its interval `low` and `high`, and `front`, the quickest first.
        name: of the figure.
        title: what it shows.
    """
    methods = list(rows["method"])
    names = [short(method, 24) for method in methods]
    crowded = len(names) > DIRECT
    labels = [str(number) for number in range(1, len(names) + 1)] if crowded else names

    def paint(figure: Figure) -> None:
        if crowded:
            panel, below = figure.subplots(2, height_ratios=(SQUARE, list_height(names)))
            write_list(below, [f"{label}  {name}" for label, name in zip(labels, names, strict=True)])
        else:
            panel = figure.subplots()
        front = rows[rows["front"]]
        panel.plot(front["ratio"], 100 * front["accuracy"], color=INK, linewidth=0.8, drawstyle="steps-post", zorder=0)
        points = list(zip(rows["ratio"], 100 * rows["accuracy"], strict=True))
        for point, row in zip(points, rows.to_dict("records"), strict=True):
            shade = colour(row["method"], methods)
            panel.plot(*point, "o" if row["front"] else "x", color=shade, markersize=5)
            if np.isfinite([row["low"], row["high"]]).all():
                ends = [100 * row["low"], 100 * row["high"]]
                panel.plot([point[0]] * 2, ends, color=shade, linewidth=0.8, alpha=0.6, zorder=0)
        panel.set_xlabel("latency, relative to ReLU's")
        panel.set_ylabel("test accuracy, %")
        panel.margins(x=0.1 if crowded else 0.3, y=0.12)
        bare(panel)
        figure.draw_without_rendering()  # now it is known where the points are
        at = [tuple(panel.transData.transform(point) * POINTS / figure.dpi) for point in points]
        for point, label, (side, up) in zip(points, labels, places(at, labels), strict=True):
            leader = {"arrowstyle": "-", "linewidth": 0.4, "color": INK} if abs(up) > LINE else None
            panel.annotate(label, point, (side, up - 3), textcoords="offset points", fontsize=7, arrowprops=leader)

    return draw(name, title, WIDTH, SQUARE + (list_height(names) if crowded else 0), paint)


def rank_frequencies(counts: pd.DataFrame, name: str) -> str:
    """Draw on how many architectures each method took each rank (the paper's figure 7).

    Args:
        counts: rows methods, columns the ranks 1, 2, ...
        name: of the figure.
    """
    table = counts.loc[(counts / counts.columns.to_numpy(dtype=float)).sum(axis=1).sort_values().index]
    last = max(4, *table.columns)

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        left = np.zeros(len(table))
        for rank in table.columns:
            shade = MEDALS[rank - 1] if rank <= len(MEDALS) else INK
            alpha = 1.0 if shade != INK else 0.34 - 0.28 * (rank - 1) / (last - 1)
            bars = panel.barh(range(len(table)), table[rank], left=left, color=shade, alpha=alpha, height=0.78)
            texts = [f"{rank}" if count else "" for count in table[rank]]
            panel.bar_label(bars, texts, label_type="center", fontsize=7, color="white" if shade != INK else INK)
            left += table[rank].to_numpy()
        panel.set_yticks(range(len(table)), [short(method) for method in table.index])
        panel.set_xlabel("architectures; the number in a bar is the rank")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)

    return draw(name, "On how many architectures each method took each rank", WIDTH, 0.7 + 0.3 * len(table), paint)
