"""Probabilities and best classes, against formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray
from scipy import special

from smx.runtime.classes import probabilities, softmax
from smx.runtime.serving.classes import best, classification, further_outputs
from smx.runtime.serving.protocol import Cause, InferRequest, Refusal, Tensor

SCORES = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: hn.arrays(
        dtype,
        hn.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6).filter(lambda shape: shape[1] > 0),
        elements=st.floats(-60000, 60000, width=16),
    )
)


@given(SCORES)
def test_softmax(scores: NDArray[Any]) -> None:
    found = softmax(scores)
    assert found.dtype == np.float64
    expected = special.softmax(scores.astype(np.float64), axis=1) if scores.size else scores
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(SCORES, st.integers(0, 8))
def test_the_best_are_the_largest_in_order_and_of_equals_the_first(scores: NDArray[Any], k: int) -> None:
    expected = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores.astype(np.float64).tolist()]
    found = best(scores, k)
    assert found.shape == (len(scores), min(k, scores.shape[1]))
    assert found.tolist() == expected


def test_scores_that_are_not_finite_give_no_warning() -> None:
    scores = np.array([[np.inf, 0], [np.nan, 0], [-np.inf, -np.inf], [-np.inf, 0]], np.float32)
    np.testing.assert_array_equal(softmax(scores), [[np.nan] * 2, [np.nan] * 2, [np.nan] * 2, [0, 1]])


Y = Tensor("y", np.array([[0.5, 2.25, 1], [3, -1, 3]], np.float32))
NAMES = ("cat", "dog", "owl")


def test_classification_as_triton_writes_it() -> None:
    assert classification(Y, 2, NAMES).array.tolist() == [
        ["2.250000:1:dog", "1.000000:2:owl"],
        ["3.000000:0:cat", "3.000000:2:owl"],
    ]
    assert classification(Y, 9, ()).array.tolist()[1] == ["3.000000:0", "3.000000:2", "-1.000000:1"]
    assert classification(Y, 0, NAMES).array.shape == (2, 0)


def asked(**parameters: Any) -> list[Tensor]:
    return further_outputs(InferRequest(inputs=[], parameters=parameters), Y, NAMES)


@pytest.mark.parametrize("row", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_scores_that_name_no_class_are_refused(row: list[float]) -> None:
    with pytest.raises(Refusal, match=r"y names no classes: its scores of example 1 are .*, which name no class"):
        classification(Tensor("y", np.array([[0.0, 1.0], row], np.float32)), 1, ())


def test_further_outputs() -> None:
    assert asked() == asked(probabilities=False) == asked(top_k=0) == []
    p = np.exp(Y.array.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    (probabilities,) = asked(probabilities=True)
    np.testing.assert_allclose(probabilities.array, p, rtol=1e-6)
    found = {tensor.name: tensor for tensor in asked(probabilities=True, top_k=2)}
    assert {name: tensor.datatype for name, tensor in found.items()} == {
        "probabilities": "FP32",
        "class_indices": "INT64",
        "class_probabilities": "FP32",
        "class_names": "BYTES",
    }
    assert found["class_indices"].array.tolist() == [[1, 2], [0, 2]]
    assert found["class_names"].array.tolist() == [["dog", "owl"], ["cat", "owl"]]
    np.testing.assert_allclose(found["class_probabilities"].array, [p[0, [1, 2]], p[1, [0, 2]]], rtol=1e-6)
    unnamed = further_outputs(InferRequest(inputs=[], parameters={"top_k": 1}), Y, ())
    assert unnamed[-1].array.tolist() == [["1"], ["0"]]


@pytest.mark.parametrize("count", [-1, True, 1.0, "3", None])
def test_counts_are_whole_numbers(count: object) -> None:
    with pytest.raises(Refusal, match="top_k must be a whole number, at least 0, got"):
        asked(top_k=count)
    with pytest.raises(Refusal, match="classification must be a whole number") as caught:
        classification(Y, count, NAMES)
    assert caught.value.cause is Cause.INVALID


@pytest.mark.parametrize("array", [np.zeros(3, np.float32), np.zeros((2, 3), np.int64), np.zeros((1, 2, 3))])
def test_other_outputs_have_no_classes(array: NDArray[Any]) -> None:
    for ask in (
        lambda: classification(Tensor("y", array), 1, ()),
        lambda: further_outputs(InferRequest(inputs=[], parameters={"probabilities": True}), Tensor("y", array), ()),
    ):
        with pytest.raises(Refusal, match=r"classes need an output \(batch, classes\) of floating numbers; 'y' is"):
            ask()


def test_the_number_of_texts_is_bounded() -> None:
    """Each takes a microsecond, in which no other request is looked at."""
    scores = Tensor("y", np.zeros((4097, 100), np.float32))
    assert classification(scores, 15, ()).array.shape == (4097, 15)
    for ask in (
        lambda: classification(scores, 16, ()),
        lambda: further_outputs(InferRequest(inputs=[], parameters={"top_k": 16}), scores, ()),
    ):
        with pytest.raises(Refusal, match="an answer may have 65536 texts, got 4097 rows of 16 classes") as caught:
            ask()
        assert caught.value.cause is Cause.TOO_LARGE


def test_probabilities_is_true_or_false() -> None:
    with pytest.raises(Refusal, match="probabilities must be true or false, got 'yes'"):
        asked(probabilities="yes")


def test_scores_of_very_many_classes_are_no_probabilities() -> None:
    scores = np.zeros((2, 1000), np.float32)
    scores[1, 7] = 2.5
    found = probabilities(scores[:1])
    np.testing.assert_allclose(found, np.full((1, 1000), 0.001), rtol=1e-12)
    np.testing.assert_allclose(probabilities(scores[1:]), special.softmax(scores[1:].astype(np.float64), 1), rtol=1e-12)


@pytest.mark.parametrize(("classes", "total"), [(2, 1.003), (10, 0.985), (1000, 1.1), (1000, 0.9)])
def test_probabilities_stay_whose_sum_is_rounded(classes: int, total: float) -> None:
    exact = special.softmax(np.random.default_rng(0).standard_normal((5, classes)), 1)
    np.testing.assert_allclose(probabilities(exact * total), exact, rtol=1e-12)
    beyond = exact * 1.2
    np.testing.assert_allclose(probabilities(beyond), special.softmax(beyond, 1), rtol=1e-12)
