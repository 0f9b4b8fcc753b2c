"""Texts beside points, none upon another, and lists of texts below a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from smx.reporting.charts.svg import POINTS

LETTER, LINE = 3.9, 8.0
"""Points that a letter of 7 points is wide, and a line of them high."""
ASIDE = 6.0
"""Points between a point and its text."""
LIFTS = [sign * LINE * i for i in range(40) for sign in (1, -1)]
"""How far a text may move up or down, in points, the nearest first."""
COLUMNS = 2
"""Of a list."""


def places(points: Sequence[tuple[float, float]], texts: Sequence[str]) -> list[tuple[float, float]]:
    """Return where each text begins, from its point, in points: right or left of it, and as near as others let it.

    Args:
        points: where they are, in points of the figure.
        texts: one for each.
    """
    taken = [(x - LETTER / 2, y, LETTER) for x, y in points]
    found = []
    for (x, y), text in zip(points, texts, strict=True):
        width = LETTER * len(text)
        tried = [(side, up) for up in LIFTS for side in (ASIDE, -ASIDE - width)]
        side, up = next((each for each in tried if _free((x + each[0], y + each[1], width), taken)), tried[0])
        taken.append((x + side, y + up, width))
        found.append((side, up))
    return found


def _free(line: tuple[float, float, float], taken: Sequence[tuple[float, float, float]]) -> bool:
    """Say whether a line of text, given by left end, height and width in points, touches no other."""
    x, y, width = line
    return not any(abs(y - other) < LINE and x < left + wide and left < x + width for left, other, wide in taken)


def write_list(panel: Axes, texts: Sequence[str]) -> None:
    """Fill a panel with texts below each other, in columns."""
    panel.axis("off")
    lines = -(-len(texts) // COLUMNS)
    for position, text in enumerate(texts):
        column, line = divmod(position, lines)
        panel.text(column / COLUMNS, 1 - line / lines, text, va="top", fontsize=7, transform=panel.transAxes)


def list_height(texts: Sequence[str]) -> float:
    """Return the inches that `write_list` needs."""
    return 1.25 * LINE / POINTS * -(-len(texts) // COLUMNS)
