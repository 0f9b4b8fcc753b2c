"""Answers to the questions that a study asks, in words with their numbers."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from smx.reporting import answers, answers_choices
from smx.reporting.evidence import SIGNIFICANT, evidence
from smx.reporting.study import Section, Study
from smx.reporting.verdicts import NO, YES, Row, answer, not_measured, probability
from smx.reporting.verdicts import NOT_MEASURED as NOT_MEASURED
from smx.reporting.verdicts import Finding as Finding
from smx.training.config import SMARTMIXED

NAMED = 10
"""Tests that an answer names."""


def findings(study: Study) -> list[Finding]:
    """Answer all questions section by section, and last what all tests together leave.

    A question that a section's cells can't answer is "not measured", with what is missing.
    """
    table = evidence(study)
    found = [finding for section in study.sections for finding in _of_section(section, table)]
    return [*found, survivors(table)]


def _of_section(section: Section, table: pd.DataFrame) -> list[Finding]:
    own = table[table["section"] == section.title]
    facts = {row["what"]: row for row in own.to_dict("records")}
    found = [
        answers.ranking(section, facts),
        answers.first_three(section, facts),
        answers.better_than_fixed(section, facts),
        *answers.other_rules(section, facts),
        *answers_choices.by_depth(section, facts),
        answers_choices.sigmoid(section, facts),
        answers_choices.elu_weights(section, facts),
        *answers.differences(section, facts),
    ]
    return [replace(finding, section=section.title) for finding in found]


def survivors(table: pd.DataFrame) -> Finding:
    """Does any of it survive the correction?"""
    question = "Does any of it survive the correction for many tests?"
    known = table.dropna(subset=["p"])
    if known.empty:
        return not_measured(question, "Nothing could be tested: there is no pair of cells to compare.")
    left = known[known["survives"]].sort_values("p_corrected", kind="stable")
    raw = int((known["p"] < SIGNIFICANT).sum())
    text = (
        f"{len(known)} tests were made. {raw} have p < {SIGNIFICANT} by themselves, and {len(left)} after Holm's"
        f" correction for all of them."
    )
    if len(left):
        named = [f"{_name(row)}, {probability('p', row['p_corrected'])}" for row in left.head(NAMED).to_dict("records")]
        more = f"; and {len(left) - NAMED} more, which the table of all tests has" if len(left) > NAMED else ""
        text += f" Those: {'; '.join(named)}{more}."
    about = [what for what in left["what"] if str(what).startswith(f"{SMARTMIXED} - ")]
    if len(left) and not about:
        text += f" No difference of accuracy between {SMARTMIXED} and another method is among them."
    return answer(question, YES if len(left) else NO, text)


def _name(row: Row) -> str:
    return f"{row['what']} ({row['section']})" if row["section"] else str(row["what"])
