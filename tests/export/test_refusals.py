"""What can't be exported: the message says why, and nothing is written."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import smx
from smx.errors import InputError, ParityError, SmxError
from smx.export import compiler, export_onnx, sort
from tests.export.networks import mixed_net
from tests.smx.selected import Net


def test_what_can_not_be_exported(tmp_path: Path) -> None:
    net = mixed_net()

    def refuse(message: str, module: nn.Module = net, error: type[SmxError] = InputError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            export_onnx(module, tmp_path / "m.onnx", **{"example_input": torch.zeros(1, 5), **options})
        assert not list(tmp_path.iterdir())

    refuse("unknown layout 'sideways'; known are scatter", layout="sideways")
    refuse("opset must be between 13 and 26, got 12", opset=12)
    refuse("the batch size must be a whole number from 1, got -1", batch=-1)
    refuse("must be a whole number from 1, got 2.0", batch=2.0)
    refuse(r"must be a tensor \(B, \*\) .* got \(0, 5\)", example_input=torch.zeros(0, 5))
    refuse(r"must be a tensor \(B, \*\) .* got list", example_input=[1.0])
    refuse(r"0\.weight is bfloat16, which can't be exported", copy.deepcopy(net).bfloat16())
    refuse("unknown precision 'int4'; known are float32, float16, int8", precision="int4")
    refuse("int8 needs examples to calibrate on", precision="int8")
    empty = np.zeros((0, 5), np.float32)
    refuse(r"calibration must be an array \(B, \*\), .* got shape \(0, 5\)", calibration=empty)
    refuse(r"evaluation must be an array \(B, \*\), .* got shape \(0, 5\)", evaluation=empty)
    no_onnx = smx.Activation("cube", lambda z: z**3)
    refuse("the activation 'cube' has no ONNX form", nn.Sequential(smx.Mixed([0], pool=(no_onnx,))))
    other_relu = smx.Activation("relu", torch.abs, smx.op("Abs"))
    refuse("two different activations are named 'relu'", nn.Sequential(net, smx.Mixed([0] * 3, pool=(other_relu,))))
    refuse(
        r"can't be exported: it returns a str; it must return tensors \(B, \*\), in", Net(lambda _, x: "y"), SmxError
    )
    undecidable = Net(lambda _, x: x if x.sum() > 0 else -x)
    refuse(r"PyTorch's exporter can't convert Net: .+", undecidable, SmxError)
    broken = copy.deepcopy(net)
    with torch.no_grad():
        broken.get_parameter("0.bias")[2] = torch.inf
    refuse(r"0\.bias has values that are not finite", broken)
    wrong = smx.Activation("wrong", torch.relu, smx.op("Elu", alpha=1.0))
    refuse(
        r"'wrong' and its ONNX form are two functions: at z = .* the function is 0 and the form",
        nn.Sequential(nn.Linear(5, 3), smx.Mixed([0] * 3, pool=(wrong,))),
        ParityError,
    )
    invalid = smx.Activation("invalid", torch.relu, smx.op("Relu", alpha=1.0))
    refuse("graph is not valid: .*alpha", nn.Sequential(smx.Mixed([0] * 5, pool=(invalid,))), SmxError)


class Broken(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        raise ValueError("broken")


@pytest.mark.parametrize("part", [sort, compiler])
def test_a_pass_that_fails_is_reported_on_one_line(
    part: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "known_shapes", lambda: [Broken()])
    with pytest.raises(SmxError, match="Sequential can't be compiled: broken"):
        export_onnx(mixed_net(), tmp_path / "m.onnx", layout="sorted")
    assert not list(tmp_path.iterdir())
