"""What a finding is, the rules that make a verdict of numbers, and how these are said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smx.reporting.evidence import POINTS, SHARES

YES, NO, UNCLEAR, NOT_MEASURED = "yes", "no", "unclear", "not measured"
MARGIN = 0.1
"""Points of accuracy; a difference that is surely smaller counts as none. 10 of MNIST's 10,000 test images."""

Row = Mapping[str, Any]
"""A row of `evidence`."""


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes:
        question: as a reader would ask it.
        verdict: yes, no, unclear or not measured.
        text: plain English: the numbers with their intervals, or what is missing.
        section: the title of the section whose cells it is about; "" if the study has one, or it is about all.
        p: of its test, before the correction; None without a test.
        p_corrected: after Holm's correction for all tests of the report.
    """

    question: str
    verdict: str
    text: str
    section: str = ""
    p: float | None = None
    p_corrected: float | None = None


def answer(question: str, verdict: str, text: str, row: Row | None = None) -> Finding:
    """Make a finding that rests on a test, or on none."""
    if row is None:
        return Finding(question, verdict, text)
    found = [None if math.isnan(row[name]) else float(row[name]) for name in ("p", "p_corrected")]
    return Finding(question, verdict, text, str(row["section"]), found[0], found[1])


def not_measured(question: str, missing: str) -> Finding:
    """Make a finding without numbers, with the reason."""
    return Finding(question, NOT_MEASURED, missing)


def sign(row: Row) -> int:
    """Return whether an estimate is surely above 0 (1) or below (-1), after the correction; 0 if neither."""
    if not row["survives"]:
        return 0
    return 1 if row["estimate"] > 0 else -1


def is_more(row: Row) -> str:
    """Answer whether a difference of accuracies is positive: a surely small one counts as none."""
    if sign(row) > 0:
        return YES
    return NO if sign(row) < 0 or row["high"] < MARGIN else UNCLEAR


def is_less(row: Row) -> str:
    """Answer whether a difference of accuracies is negative: a surely small one counts as none."""
    if sign(row) < 0:
        return YES
    return NO if sign(row) > 0 or row["low"] > -MARGIN else UNCLEAR


def opposite(verdict: str) -> str:
    """Turn yes into no and no into yes."""
    return {YES: NO, NO: YES}.get(verdict, verdict)


def numbers(row: Row, *, signed: bool = True) -> str:
    """Say an estimate with its interval and its test, as `+0.12 points (95 %: 0.05 to 0.19; ..., p = 0.004, ...)`."""
    unit = str(row["unit"])
    return f"{quantity(row['estimate'], unit, signed=signed)} ({within(row, unit)}{by_test(row)})"


def within(row: Row, unit: str) -> str:
    """Say the interval of an estimate."""
    if math.isnan(row["low"]):
        return "no interval: there is one value, or all are equal"
    ends = [quantity(row[name], unit).partition(" ")[0] for name in ("low", "high")]
    return f"95 %: {ends[0]} to {ends[1]}"


def by_test(row: Row) -> str:
    """Say what a test found."""
    if math.isnan(row["p"]):
        return ""
    return f"; {row['test']}, {probability('p', row['p'])}, {probability('corrected', row['p_corrected'])}"


def probability(name: str, p: float) -> str:
    """Say a p value: `p = 0.03`, `p < 0.001`."""
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.2g}"


def quantity(value: float, unit: str, *, signed: bool = False) -> str:
    """Say a number with its unit: points of accuracy, a share in percent, or a bare number."""
    plus = "+" if signed else ""
    if unit == POINTS:
        return f"{value:{plus}.2f} points"
    if unit == SHARES:
        return f"{100 * value:{plus}.1f} percentage points"
    if unit.startswith("share"):
        return f"{100 * value:{plus}.1f} %"
    return f"{value:{plus}.2f}" if unit == "correlation" else f"{value:{plus}.5f}"
