"""What is kept of a tensor until it changes."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import smx
from smx.fused.kept import OfTensor


class Doubling:
    """Counts how often it doubles."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return 2 * x


def test_it_is_computed_again_for_other_values_and_for_another_tensor() -> None:
    double, kept = Doubling(), OfTensor()
    x = torch.ones(2)
    assert kept(x, double) is kept(x, double)
    assert double.calls == 1
    x.add_(1)
    assert kept(x, double).tolist() == [4, 4]
    assert kept(x.clone(), double).tolist() == [4, 4]
    assert double.calls == 3


def test_copies_begin_empty() -> None:
    double, kept, x = Doubling(), OfTensor(), torch.ones(2)
    kept(x, double)
    pickled = pickle.loads(pickle.dumps(kept))
    for other in (copy.deepcopy(kept), copy.copy(kept), pickled):
        assert other(x, double).tolist() == [2, 2]
    assert double.calls == 4


def test_what_would_not_last_is_not_kept() -> None:
    double, kept, x = Doubling(), OfTensor(), torch.ones(2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        kept(x, double)
    with torch.inference_mode():
        kept(x, double)
    assert not kept(x, double).is_inference()
    assert double.calls == 3


def test_a_matched_layer_follows_its_moments() -> None:
    """Also between evaluation in inference mode and training, after a copy, and after other moments are loaded."""
    layer = smx.Selective(3, selection="matched")
    z = torch.randn(20, 3)
    layer(z)
    layer.observes = False
    with torch.inference_mode():
        layer.eval()(z)
    layer.train()(z).sum().backward()
    before, other = layer.matching, copy.deepcopy(layer)
    assert before is layer.matching
    assert before is not None
    other.observes = True
    other(5 * z + 1)
    assert other.matching is not None
    assert not torch.equal(other.matching, before)
    assert layer.matching is before
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer.matching, other.matching)
    torch.testing.assert_close(nn.Module.double(layer).matching, other.matching, check_dtype=False)


def test_averages_of_a_network_may_be_written_without_a_trace() -> None:
    """As `ema.data.copy_(...)` does, which raises no version."""
    layer = smx.Selective(3, selection="matched")
    average, z = copy.deepcopy(layer).eval(), torch.randn(20, 3)
    average(z)
    layer(3 * z)
    for own, other in zip(average.buffers(), layer.buffers(), strict=True):
        own.data.copy_(other.data)
    assert torch.equal(average(z), layer.eval()(z))
