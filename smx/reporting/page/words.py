"""Numbers and names as the page writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from smx.reporting.charts.names import one_line, short
from smx.reporting.charts.svg import MINUS

SPACE = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
PARAGRAPH = 1500
LONGEST = 400
"""Characters of an error or a setting; the data for download have all of it."""


def name(value: Any) -> str:
    """Write the name of a method, an activation or an architecture; or several; see `short`."""
    if missing(value):
        return NOTHING
    return short(value, 80)


def text(value: Any) -> str:
    """Write anything on one line, cut where it is long."""
    if missing(value):
        return NOTHING
    return one_line(value, LONGEST)


def percent(value: Any, digits: int = 2) -> str:
    """Write a share or an accuracy, 0 to 1, in percent."""
    return NOTHING if missing(value) else f"{100 * value:.{digits}f} %".replace("-", MINUS)


def typeset(sentence: str) -> str:
    """Return a paragraph with true minus signs, in which no line ends inside `5 %` or `p = 0.03`."""
    sentence = one_line(sentence, PARAGRAPH)
    sentence = re.sub(r"(?<=\d) %", f"{SPACE}%", sentence)
    sentence = re.sub(r"\b(p|corrected) ([=<]) (?=\d)", rf"\1{SPACE}\2{SPACE}", sentence)
    return re.sub(r"(?<![\w.-])-(?=\d)", MINUS, sentence)


def points(value: Any) -> str:
    """Write a difference of accuracies with its sign."""
    return NOTHING if missing(value) else f"{value:+.2f}".replace("-", MINUS)


def decimal(value: Any, digits: int = 2) -> str:
    """Write a number with so many decimals."""
    return NOTHING if missing(value) else f"{value:.{digits}f}".replace("-", MINUS)


def fine(value: Any) -> str:
    """Write a number with four decimals."""
    return decimal(value, 4)


def significant(value: Any) -> str:
    """Write a number with three significant digits."""
    return NOTHING if missing(value) else f"{value:.3g}".replace("-", MINUS)


def count(value: Any) -> str:
    """Write a whole number."""
    return NOTHING if missing(value) else f"{int(value):,}"


def p(value: Any) -> str:
    """Write a p value."""
    if missing(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_of(value: Any) -> str:
    """Write a p value in a sentence: `p = 0.020`, `p < 0.001`."""
    written = p(value)
    return f"p {written}" if written.startswith("<") else f"p = {written}"


def duration(seconds: Any) -> str:
    """Write a time in the unit that suits it."""
    if missing(seconds):
        return NOTHING
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def plural(number: int, noun: str) -> str:
    """Write `1 cell`, `2 cells`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def interval(values: Mapping[str, Any], low: str = "low", high: str = "high", digits: int = 2) -> str:
    """Write the interval of a row: `0.10 to 0.32`."""
    if missing(values.get(low)) or missing(values.get(high)):
        return NOTHING
    return f"{decimal(values[low], digits)} to {decimal(values[high], digits)}"


def missing(value: Any) -> bool:
    """Say whether there is no value: None, NaN, pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and math.isnan(value)
