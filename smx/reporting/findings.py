"""Answers to the questions that a study asks, in words with their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from smx.reporting.study import Study

YES, NO, UNCLEAR, NOT_MEASURED = "yes", "no", "unclear", "not measured"


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes:
        question: as a reader would ask it.
        verdict: yes, no, unclear or not measured.
        text: plain English: the numbers with their intervals, or what is missing.
        section: the title of the section whose cells it is about; "" if the study has one.
        p: of its test, before the correction; None without a test.
        p_corrected: after Holm's correction for all tests of the report.
    """

    question: str
    verdict: str
    text: str
    section: str = ""
    p: float | None = None
    p_corrected: float | None = None


def findings(study: Study) -> list[Finding]:
    """Answer all questions in all sections of a study, section by section."""
    raise NotImplementedError


def tests(study: Study) -> pd.DataFrame:
    """Return every test that the verdicts rest on, all sections together.

    Columns: section, what (as "smartmixed - relu"), unit (of the numbers), estimate, low, high, test, n, p, p_corrected
    (Holm, over this table), survives (p_corrected < 0.05).
    """
    raise NotImplementedError
