from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smx.errors import InputError
from smx.runtime.metadata import LayerInfo, ModelInfo

words = st.text(max_size=8)
infos = st.builds(
    ModelInfo,
    smx_version=words,
    architecture=words,
    layout=words,
    pool=st.lists(words).map(tuple),
    layers=st.lists(
        st.builds(LayerInfo, name=words, axis=st.integers(0, 4), groups=st.dictionaries(words, st.integers(1, 999)))
    ).map(tuple),
    tolerance=st.dictionaries(words, st.floats(0, 1)),
    class_names=st.lists(words).map(tuple),
    sample_shape=st.lists(st.integers(1, 99)).map(tuple),
    maximum=st.floats(0.1, 1e6),
)


@given(info=infos)
def test_metadata_survives_the_way_through_the_file(info: ModelInfo) -> None:
    properties = info.to_properties()
    assert all(key.startswith("smx.") and isinstance(value, str) for key, value in properties.items())
    assert ModelInfo.from_properties(properties) == info


def test_other_tools_models_and_damaged_ones() -> None:
    assert ModelInfo.from_properties({"author": "x"}) is None
    with pytest.raises(InputError, match=r"metadata is damaged \(smx\.architecture: it is missing\); export it again"):
        ModelInfo.from_properties({"smx.smx_version": "1"})
