"""Texts beside points."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smx.reporting.charts import methods
from smx.reporting.charts.labels import LETTER, LINE, places

POINTS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 250)), min_size=1, max_size=20)


@given(POINTS, st.integers(1, 24))
def test_no_text_lies_upon_another_or_on_a_point(points: list[tuple[float, float]], letters: int) -> None:
    texts = ["x" * letters] * len(points)
    found = places(points, texts)
    ends = [(x + side, y + up, x + side + LETTER * letters) for (x, y), (side, up) in zip(points, found, strict=True)]
    for (left, height, right), (other, there, end) in combinations(ends, 2):
        assert abs(height - there) >= LINE or right <= other or end <= left
    for left, height, right in ends:
        assert not any(left < x < right and abs(y - height) < LINE for x, y in points)


def test_a_text_alone_stands_right_of_its_point() -> None:
    ((side, up),) = places([(10.0, 20.0)], ["alone"])
    assert (side > 0, up) == (True, 0)


@pytest.mark.parametrize(("count", "numbered"), [(9, False), (10, True)])
def test_many_methods_have_numbers_and_a_list(count: int, numbered: bool) -> None:
    rows = pd.DataFrame(
        {
            "method": [f"method {i}" for i in range(count)],
            "ratio": np.linspace(1, 1.3, count),
            "accuracy": np.linspace(0.9, 0.95, count),
            "low": np.nan,
            "high": np.nan,
            "front": True,
        }
    )
    drawn = methods.trade(rows, "trade", "many")
    assert drawn.count(">method 0<") == (0 if numbered else 1)
    assert [f">{i + 1}  method {i}<" in drawn for i in range(count)] == [numbered] * count
