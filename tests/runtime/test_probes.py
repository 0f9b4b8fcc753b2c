from __future__ import annotations

import numpy as np

from smx.runtime.parity.probes import probes, raw_probes


def test_probes_are_seeded_and_extreme() -> None:
    inputs = probes((3, 2))
    assert all(x.dtype == np.float32 and x.shape[1:] == (3, 2) for x in inputs.values())
    assert all(np.array_equal(x, probes((3, 2))[name]) for name, x in inputs.items())
    assert not np.array_equal(inputs["random"], probes((3, 2), seed=1)["random"])
    assert np.abs(inputs["random"]).max() <= 1
    assert not inputs["zeros"].any()
    assert set(np.abs(inputs["large"]).flatten()) == {1e4}
    assert set(inputs["large mixed"].flatten()) == {-1e4, 1e4}
    assert 0 < np.abs(inputs["denormal"]).max() < np.finfo(np.float32).tiny
    assert len(probes((3,), examples=5)["random"]) == 5


def test_raw_probes_are_whole_numbers_up_to_the_maximum() -> None:
    inputs = raw_probes((4, 4), 16)
    assert all(x.dtype == np.uint8 and x.shape == (128, 4, 4) for x in inputs.values())
    assert (inputs["random"].min(), inputs["random"].max()) == (0, 16)
    assert not inputs["zeros"].any()
    assert set(inputs["largest"].flatten()) == {16}
