"""Studies whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from smx.paper import PAPER_POOL, TABLE_1
from smx.reporting.evidence import evidence
from smx.reporting.findings import NOT_MEASURED, Finding, findings
from smx.reporting.study import Study
from smx.study.grid import Cell
from smx.study.methods import CONTROLS, PAPER_METHODS
from tests.reporting.tables import accuracies, chosen, made
from tests.reporting.test_choices import drifting

SHARES = (
    "Do first layers prefer ReLU and Leaky ReLU to ELU and SELU?",
    "Do last layers prefer ELU and SELU to ReLU and Leaky ReLU?",
    "Do choices move with depth from ReLU and Leaky ReLU to ELU and SELU?",
    "Is Sigmoid avoided?",
)
ELU = "Are weights out of ELU neurons more positive?"
RANKING, FIRST_THREE = "Does the paper's ranking hold?", "Is SmartMixed among the first three methods?"
BETTER = "Is SmartMixed better than the best fixed activation?"
NEURON, MIXTURE = (
    "Does it matter which neuron of a layer has which activation?",
    "Do the learned shares of a layer matter?",
)
MAJORITY = "Is one activation for all neurons of a layer as good?"
PHASES, NOISE = (
    "Do the two phases themselves cost accuracy?",
    "Do the noise of choosing and the mixture cost accuracy beyond that?",
)
SURVIVES = "Does any of it survive the correction for many tests?"
ALL = {RANKING, FIRST_THREE, BETTER, *SHARES, ELU, NEURON, MIXTURE, MAJORITY, PHASES, NOISE, SURVIVES}


def answers(study: Study) -> dict[str, Finding]:
    """Return the findings of a study of one section by their questions."""
    found = findings(study)
    by_question = {finding.question: finding for finding in found}
    assert len(found) == len(by_question)
    assert set(by_question) == ALL
    for finding in found:
        assert "nan" not in finding.text
        assert finding.text.endswith(".")
    return by_question


def verdicts(study: Study) -> dict[str, str]:
    return {question: finding.verdict for question, finding in answers(study).items()}


METHODS = [*PAPER_METHODS, *CONTROLS]


def everything(accuracy: Mapping[str, float], turn: float = 1, elu: float = 0.01, seeds: Sequence[int] = (0,)) -> Study:
    """Return a study of all methods on the paper's architectures, with one difference that holds in all of them.

    Args:
        accuracy: of some methods; the others have 0.9, and by it their place after the third.
        turn: -1 lets shares drift the other way.
        elu: the mean weight out of ELU neurons; of all others it is 0.
    """

    def result(cell: Cell) -> dict[str, Any]:
        noise = float(np.random.default_rng(list(cell.id.encode())).normal(0, 1e-4))
        test = accuracy.get(cell.method, 0.9) + noise
        count = np.full((6, 6), 100.0)
        sums = count * np.where(np.array(PAPER_POOL) == "elu", elu + 0.1 * noise, 0)[:, None]
        weights = {"connections": {"sum": sums.tolist(), "count": count.tolist()}}
        return {**chosen(cell, lambda depth: drifting(depth if turn > 0 else 1 - depth), test), **weights}

    return made(result, hidden=list(TABLE_1), method=METHODS, seed=seeds, data=["mnist"])


def test_where_the_paper_is_right() -> None:
    better = {
        "smartmixed": 0.95,
        "random": 0.91,
        "shuffled": 0.93,
        "relu_two_phases": 0.97,
        "relu": 0.98,
        "majority": 0.92,
    }
    found = verdicts(everything({**better, "leaky_relu": 0.94}))
    assert found[FIRST_THREE] == "yes"
    assert [found[question] for question in SHARES] == ["yes"] * 4
    assert [found[question] for question in (ELU, NEURON, MIXTURE, PHASES, NOISE, SURVIVES)] == ["yes"] * 6
    assert (found[BETTER], found[MAJORITY]) == ("no", "no")


def test_where_the_paper_is_wrong() -> None:
    study = everything({"smartmixed": 0.8, "sigmoid": 0.95, "relu": 0.5}, turn=-1, elu=-0.01)
    found = verdicts(study)
    assert [found[question] for question in SHARES] == ["no", "no", "no", "yes"]
    assert [found[question] for question in (RANKING, FIRST_THREE, BETTER, ELU, NEURON)] == ["no"] * 5
    assert found[PHASES] == "no"
    assert found[MAJORITY] == "yes"


def test_differences_that_are_surely_small_count_as_none() -> None:
    found = answers(everything({}, seeds=[0, 1]))
    for question in (NEURON, MIXTURE, PHASES, NOISE, BETTER):
        assert found[question].verdict == "no", question
    assert found[MAJORITY].verdict == "yes"
    p, corrected = found[NEURON].p, found[NEURON].p_corrected
    assert p is not None
    assert corrected is not None
    assert 0 < p <= corrected


def test_the_papers_ranking_holds_where_it_is_copied() -> None:
    def result(cell: Cell) -> dict[str, Any]:
        places = TABLE_1[cell.config.hidden]
        return accuracies(0.9 - 0.1 * places.index(cell.method) if cell.method in places else 0.5)

    found = answers(made(result, hidden=list(TABLE_1), method=PAPER_METHODS, data=["mnist"]))
    assert found[RANKING].verdict == "yes"
    assert "in 18 of 18 architectures (by chance: 2.6)" in found[RANKING].text
    assert "Of its three best methods, 3.0 are among the three best here" in found[RANKING].text
    assert "one seed" in found[RANKING].text
    assert "In the paper: 13 of 18 of these." in found[FIRST_THREE].text


def test_other_data_and_another_pool() -> None:
    def result(cell: Cell) -> dict[str, Any]:
        return chosen(cell, lambda depth: {"gelu": 0.7, "sigmoid": 0.3})

    axes: dict[str, Any] = {"pool": [("gelu", "sigmoid")], "data": ["fashion-mnist"], "seed": [0, 1]}
    found = answers(made(result, hidden=[(8, 4, 4)], method=["smartmixed", "gelu"], **axes))
    assert found[RANKING].text == "The paper has no results on fashion-mnist."
    assert found[SHARES[0]].text == "The pool (gelu, sigmoid) lacks ReLU, Leaky ReLU, ELU, SELU."
    assert found[ELU].verdict == NOT_MEASURED
    assert found[SHARES[3]].verdict == "unclear"  # two cells decide nothing
    assert found[BETTER].text.startswith("SmartMixed minus the best fixed activation (gelu): +0.00 points")


def test_a_single_run_says_what_it_has_and_what_is_missing() -> None:
    def result(cell: Cell) -> dict[str, Any]:
        return {**chosen(cell, drifting), "connections": None}

    found = answers(made(result, hidden=[(8, 4, 4)], method=["smartmixed"]))
    assert [found[question].verdict for question in SHARES] == ["unclear"] * 4
    assert "no interval: there is one value, or all are equal" in found[SHARES[0]].text
    assert found[SHARES[0]].p is None
    for question in ALL - {*SHARES}:
        assert found[question].verdict == NOT_MEASURED, question
    assert (
        found[NEURON].text
        == "This needs cells of smartmixed and shuffled with the same seeds; there is none of shuffled."
    )


def test_the_order_of_the_rows_changes_nothing() -> None:
    study = everything({"smartmixed": 0.91})
    shuffled = replace(study, table=study.table.sample(frac=1, random_state=0))
    one, other = (evidence(each).set_index("what").sort_index() for each in (study, shuffled))
    for column in ("estimate", "p", "p_corrected", "n"):
        assert one[column].to_numpy() == pytest.approx(other[column].to_numpy()), column


def test_a_baseline_alone() -> None:
    found = answers(made(lambda cell: accuracies(0.5), hidden=[(8,)], method=["relu"]))
    assert {finding.verdict for finding in found.values()} == {NOT_MEASURED}
    assert found[SHARES[0]].text == "There is no cell of smartmixed that is done."


def test_each_section_is_answered_and_all_tests_are_corrected_together() -> None:
    def result(cell: Cell) -> dict[str, Any] | str:
        if cell.method == "selu":
            return "SmxError: the loss is no longer finite"
        noise = np.random.default_rng(list(cell.id.encode())).normal(0, 0.01)
        return accuracies(0.5 + float(noise))

    axes: dict[str, Any] = {"protocol": ["standard", "author"], "method": PAPER_METHODS, "hidden": list(TABLE_1)[:6]}
    study = made(result, data=["mnist"], **axes)
    found = findings(study)
    titles = ["protocol = standard", "protocol = author"]
    assert {finding.section for finding in found[:-1]} == set(titles)
    assert found[-1].question == SURVIVES
    assert found[-1].section == ""
    rankings = [finding for finding in found if finding.question == RANKING]
    needed = "The ranking needs all of the paper's methods; these have no cell that is done: selu."
    assert [finding.text for finding in rankings] == [needed] * 2
    table = evidence(study)
    assert table["section"].unique().tolist() == titles
    ordered = table.sort_values("p")
    assert ordered["p_corrected"].iloc[0] == pytest.approx(min(1, len(table) * ordered["p"].iloc[0]))
    assert all(one <= other for one, other in pairwise(ordered["p_corrected"]))
    assert f"{len(table)} tests were made." in found[-1].text


@pytest.mark.parametrize(("worse", "expected"), [(0.0, "yes"), (0.02, "no"), (-0.02, "yes")])
def test_another_rule_of_choosing_is_held_against_the_best_activation_and_its_controls(
    worse: float, expected: str
) -> None:
    def result(cell: Cell) -> dict[str, Any]:
        noise = float(np.random.default_rng(list(cell.id.encode())).normal(0, 1e-4))
        level = {"matched": 0.95 - worse, "matched_shuffled": 0.95 - worse, "matched_random": 0.9, "elu": 0.95}
        return accuracies(level.get(cell.method, 0.9) + noise)

    methods = ["relu", "elu", "matched", "matched_shuffled", "matched_random"]
    study = made(result, hidden=list(TABLE_1), method=methods, seed=[0], data=["mnist"])
    found = {finding.question: finding for finding in findings(study)}
    one = found["Is choosing by the rule matched as accurate as the best fixed activation?"]
    assert one.verdict == expected
    assert "matched minus the best fixed activation (elu)" in one.text
    questions = [f"Are the choices of the rule matched better than {words}?" for words in WORDS]
    assert [found[question].verdict for question in questions] == ["no", "yes"]
    assert study.sections[0].contenders == ["relu", "elu", "matched"]


WORDS = ("the same choices shuffled within each layer", "random choices")
