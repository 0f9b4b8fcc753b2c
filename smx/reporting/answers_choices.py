"""The questions about what neurons chose, each answered for one section from its evidence."""

from __future__ import annotations

from typing import Any

from smx import paper
from smx.reporting.answers import Facts
from smx.reporting.choices import EARLY, FEWEST_LAYERS, LATE, avoided, preferences, shares, trends
from smx.reporting.connections import out_of
from smx.reporting.evidence import ELU, SHARE, SIGMOID, in_layer, with_depth
from smx.reporting.study import Section
from smx.reporting.verdicts import NO, UNCLEAR, YES, Finding, Row, answer, not_measured, numbers, quantity, sign
from smx.training.config import SMARTMIXED

PAPER_SHARES = paper.shares(0), paper.shares(1)
"""Of the first and of the last hidden layer."""
TITLES = {
    "relu": "ReLU",
    "leaky_relu": "Leaky ReLU",
    "elu": "ELU",
    "selu": "SELU",
}


def by_depth(section: Section, facts: Facts) -> list[Finding]:
    """Do early layers prefer ReLU and Leaky ReLU, deep ones ELU and SELU, and do the shares move between them?"""
    questions = (
        f"Do first layers prefer {_titles(EARLY)} to {_titles(LATE)}?",
        f"Do last layers prefer {_titles(LATE)} to {_titles(EARLY)}?",
        f"Do choices move with depth from {_titles(EARLY)} to {_titles(LATE)}?",
    )
    if in_layer("first") not in facts:
        missing = _no_depth(section)
        return [not_measured(question, missing) for question in questions]
    first, last = preferences(section).to_dict("records")
    early, late = facts[in_layer("first")], facts[in_layer("last")]
    return [
        answer(questions[0], _claimed(early, 1), _preference(first, early), early),
        answer(questions[1], _claimed(late, -1), _preference(last, late), late),
        _movement(section, facts, questions[2]),
    ]


def _titles(names: tuple[str, ...]) -> str:
    return " and ".join(TITLES[name] for name in names)


def _claimed(row: Row, direction: int) -> str:
    """Answer whether an estimate has a direction, 1 or -1."""
    return {direction: YES, -direction: NO}.get(sign(row), UNCLEAR)


def _preference(shares: dict[Any, Any], row: Row) -> str:
    text = (
        f"{_titles(EARLY)} together have {quantity(shares['early'], SHARE)} of the {shares['layer']} hidden layer's"
        f" neurons, {_titles(LATE)} {quantity(shares['late'], SHARE)}. Difference: {numbers(row)}."
    )
    names, depth = (EARLY, 0) if shares["layer"] == "first" else (LATE, 1)
    theirs = sum(PAPER_SHARES[depth][name] for name in names)
    return f"{text} In the paper's network {_titles(names)} had {quantity(theirs, SHARE)} there."


def _movement(section: Section, facts: Facts, question: str) -> Finding:
    found = trends(section).to_dict("records")
    rows = [facts[with_depth(each["activations"])] for each in found]
    verdicts = {_claimed(rows[0], -1), _claimed(rows[1], 1)}
    parts = [
        f"{_titles(names)} go from {quantity(each['first'], SHARE)} in the first hidden layer to"
        f" {quantity(each['last'], SHARE)} in the last: {numbers(row)}; correlation with depth"
        f" {each['correlation']:+.2f}."
        for names, each, row in zip((EARLY, LATE), found, rows, strict=True)
    ]
    text = f"{' '.join(parts)} Networks with {FEWEST_LAYERS} or more hidden layers, {found[0]['cells']} cells."
    weaker = max(rows, key=lambda row: row["p"] if row["p"] == row["p"] else 2)
    return answer(question, verdicts.pop() if len(verdicts) == 1 else NO if NO in verdicts else UNCLEAR, text, weaker)


def _no_depth(section: Section) -> str:
    pool = {*shares(section)["activation"]}
    if not pool:
        return f"There is no cell of {SMARTMIXED} that is done."
    if lacking := [TITLES[name] for name in (*EARLY, *LATE) if name not in pool]:
        return f"The pool ({', '.join(sorted(pool))}) lacks {', '.join(lacking)}."
    return f"No network has {FEWEST_LAYERS} or more hidden layers."


def sigmoid(section: Section, facts: Facts) -> Finding:
    """Is Sigmoid avoided?"""
    question, found = "Is Sigmoid avoided?", avoided(section)
    if found is None:
        return not_measured(question, f"No pool of {SMARTMIXED} has Sigmoid beside others.")
    row = facts[SIGMOID]
    expected = found["expected"]
    verdict = UNCLEAR if not row["survives"] else YES if row["estimate"] < expected else NO
    text = (
        f"Sigmoid's mean share of a layer is {numbers(row, signed=False)}; an equal part of the pool would be"
        f" {quantity(expected, SHARE)}."
        f" Its largest share in any layer of any network is {quantity(found['largest'], SHARE)}."
    )
    return answer(question, verdict, text, row)


def elu_weights(section: Section, facts: Facts) -> Finding:
    """Are weights out of ELU neurons more positive?"""
    question, found = "Are weights out of ELU neurons more positive?", out_of(section)
    if found is None:
        needed = f"a network of {SMARTMIXED} with two hidden layers, and with ELU and another activation in the first"
        return not_measured(question, f"This needs {needed}.")
    row = facts[ELU]
    text = (
        f"Between hidden layers, weights out of ELU neurons have the mean {found['mean']:+.5f}, those out of all"
        f" others {found['rest']:+.5f}. Difference: {numbers(row)}. Among the {found['senders']} activations that send,"
        f" ELU has place {found['rank']}, where 1 is the most positive."
    )
    return answer(question, _claimed(row, 1), text, row)
