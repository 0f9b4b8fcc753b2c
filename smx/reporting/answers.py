"""The questions about accuracy, each answered for one section from its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from smx.reporting import verdicts
from smx.reporting.evidence import (
    FIRST_THREE,
    MAJORITY,
    RANDOM,
    RANKING,
    RELU,
    SHARE,
    SHUFFLED,
    TWO_PHASES,
    minus,
    name_of_best,
    of_rule,
)
from smx.reporting.ranks import PAPER_DATA, PLACES, best_fixed, between_seeds, mrr, paper_places, table_1
from smx.reporting.resampling import FEWEST
from smx.reporting.study import Section
from smx.reporting.verdicts import NO, UNCLEAR, YES, Finding, Row, answer, not_measured, numbers, quantity, within
from smx.study.methods import PAPER_METHODS, RULES
from smx.training.config import SMARTMIXED

Facts = Mapping[str, Row]
"""The rows of a section's evidence, by what they estimate."""


def ranking(section: Section, facts: Facts) -> Finding:
    """Does the order of the methods agree with the paper's table 1?"""
    question = "Does the paper's ranking hold?"
    table = table_1(section).dropna(subset=["correlation"])
    if RANKING not in facts:
        return not_measured(question, _no_ranking(section))
    row, n, methods = facts[RANKING], len(table), len(PAPER_METHODS)
    first = sum(paper in here.split(" = ") for paper, here in zip(table["paper_first"], table["first"], strict=True))
    common = sum(_common(row) for row in table.to_dict("records")) / n
    chance = len(PLACES) ** 2 / methods
    text = (
        f"The paper's first place is also the first place here in {first} of {n} architectures (by chance:"
        f" {n / methods:.1f}). Of its three best methods, {common:.1f} are among the three best here (by chance:"
        f" {chance:.1f}). The rank correlation between the two is {numbers(row)}, where 1 is the same order."
    )
    seeds = between_seeds(section)
    if len(seeds):
        text += f" Two seeds of this study agree with each other by {seeds['correlation'].mean():.2f}."
    else:
        text += " Each architecture has one seed here, so how much of the order is chance can't be said."
    verdict = UNCLEAR
    if n < FEWEST:
        text += f" Fewer than {FEWEST} architectures decide nothing."
    elif first > n / 2 and row["low"] > 0:
        verdict = YES
    elif first <= n / 3:
        verdict = NO
    return answer(question, verdict, text, row)


def _no_ranking(section: Section) -> str:
    if set(section.cells["data"]) != {PAPER_DATA}:
        return f"The paper has no results on {', '.join(sorted(set(section.cells['data'])))}."
    if not paper_places(section):
        return "None of the architectures is one of the paper's."
    lacking = [method for method in PAPER_METHODS if method not in section.methods]
    if lacking:
        return f"The ranking needs all of the paper's methods; these have no cell that is done: {', '.join(lacking)}."
    return "In no architecture of the paper is every method done with the same seed."


def _common(row: Mapping[str, object]) -> int:
    here = {name for place in PLACES for name in str(row[place] or "").split(" = ")}
    return len(here & {row[f"paper_{place}"] for place in PLACES})


def first_three(section: Section, facts: Facts) -> Finding:
    """Is SmartMixed among the first three?"""
    question = "Is SmartMixed among the first three methods?"
    if FIRST_THREE not in facts:
        return not_measured(question, "This needs smartmixed and three or more other methods with the same seeds.")
    row, table = facts[FIRST_THREE], mrr(section).set_index("method")
    n, own, best = row["n"], table.loc[SMARTMIXED], table["mrr"].idxmax()
    paper = {name: three for name, three in paper_places(section).items() if name in section.complete}
    text = (
        f"It is in {round(row['estimate'] * n)} of {n} architectures:"
        f" {numbers(row, signed=False)}; any method would be by chance in {quantity(len(PLACES) / len(table), SHARE)}."
    )
    if paper:
        text += f" In the paper: {sum(SMARTMIXED in three for three in paper.values())} of {len(paper)} of these."
    interval = {"low": own["low"], "high": own["high"]}
    text += f" Its mean reciprocal rank is {own['mrr']:.2f} ({within(interval, 'correlation')})"
    text += "." if best == SMARTMIXED else f"; the best has {table['mrr'].max():.2f}: {best}."
    verdict = YES if row["low"] > 0.5 else NO if row["high"] < 0.5 else UNCLEAR
    return answer(question, verdict, text, row)


def better_than_fixed(section: Section, facts: Facts) -> Finding:
    """Is SmartMixed better than the best fixed activation?"""
    question = "Is SmartMixed better than the best fixed activation?"
    row = facts.get(minus(SMARTMIXED, name_of_best(section)))
    if row is None:
        return not_measured(question, "This needs cells of smartmixed and of a fixed activation with the same seeds.")
    text = f"SmartMixed minus the best fixed activation ({_how_best(section, SMARTMIXED)}): {numbers(row)}."
    return answer(question, verdicts.is_more(row), text, row)


def _how_best(section: Section, method: str) -> str:
    """Say which activations are the best ones, of the architectures that a method has cells of."""
    own = {*section.cells[section.cells["method"] == method]["architecture"]}
    chosen = sorted({best for architecture, best in best_fixed(section).items() if architecture in own})
    return f"one of {', '.join(chosen)}, by validation accuracy in each architecture" if len(chosen) > 1 else chosen[0]


def other_rules(section: Section, facts: Facts) -> list[Finding]:
    """Is a rule of choosing other than the paper's as accurate as the best fixed activation, and what is it worth?

    There is nothing for a rule that the section has no cells of.
    """
    found = []
    for rule in [name for name in section.methods if name in RULES]:
        question = f"Is choosing by the rule {rule} as accurate as the best fixed activation?"
        row, place = facts.get(minus(rule, name_of_best(section))), mrr(section).set_index("method")
        if row is None:
            found.append(not_measured(question, f"This needs cells of {rule} and of a fixed activation with one seed."))
            continue
        text = f"{rule} minus the best fixed activation ({_how_best(section, rule)}): {numbers(row)}."
        if rule in place.index:
            text += f" Its mean reciprocal rank is {place.loc[rule, 'mrr']:.2f}, the best one {place['mrr'].max():.2f}."
        found.append(answer(question, verdicts.opposite(verdicts.is_less(row)), text, row))
        for control, words in ((SHUFFLED, "the same choices shuffled within each layer"), (RANDOM, "random choices")):
            if compared := facts.get(minus(rule, of_rule(rule, control))):
                text = f"The choices of the rule {rule} minus {words}: {numbers(compared)}."
                question = f"Are the choices of the rule {rule} better than {words}?"
                found.append(answer(question, verdicts.is_more(compared), text, compared))
    return found


Rule = Callable[[Row], str]


def _is_as_good(row: Row) -> str:
    """Answer whether the second method of a difference is as good as the first."""
    return verdicts.opposite(verdicts.is_more(row))


DIFFERENCES: tuple[tuple[str, str, str, Rule, str], ...] = (
    (
        "Does it matter which neuron of a layer has which activation?",
        SMARTMIXED,
        SHUFFLED,
        verdicts.is_more,
        "The learned choices minus the same choices in a random order within each layer",
    ),
    (
        "Do the learned shares of a layer matter?",
        SHUFFLED,
        RANDOM,
        verdicts.is_more,
        "The learned shares in a random order minus choices drawn at random from the pool",
    ),
    (
        "Is one activation for all neurons of a layer as good?",
        SMARTMIXED,
        MAJORITY,
        _is_as_good,
        "The learned choices minus the most chosen activation of each layer for all its neurons",
    ),
    (
        "Do the two phases themselves cost accuracy?",
        TWO_PHASES,
        RELU,
        verdicts.is_less,
        "ReLU through both phases, with nothing to choose, minus ReLU trained in one go",
    ),
    (
        "Do the noise of choosing and the mixture cost accuracy beyond that?",
        SMARTMIXED,
        TWO_PHASES,
        verdicts.is_less,
        "SmartMixed minus ReLU through both phases",
    ),
)
"""Question, the two methods, the rule for the verdict of their difference, and what the difference is."""


def differences(section: Section, facts: Facts) -> list[Finding]:
    """Answer the questions that the difference of two methods answers: what the controls are for."""
    found = []
    for question, method, other, rule, what in DIFFERENCES:
        row = facts.get(minus(method, other))
        if row is None:
            lacking = [name for name in (method, other) if name not in section.methods]
            needed = f"; there is none of {' and of '.join(lacking)}" if lacking else ""
            found.append(
                not_measured(question, f"This needs cells of {method} and {other} with the same seeds{needed}.")
            )
            continue
        text = f"{what}: {numbers(row)}."
        if rule(row) == UNCLEAR and not math.isnan(row["low"]):
            text += f" A difference of less than {quantity(verdicts.MARGIN, row['unit'])} would count as none."
        found.append(answer(question, rule(row), text, row))
    return found
