"""What can't be exported is told early, in one line that names the place and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic as quantized

import smx
from smx.activations import BUILT_IN, Activation, get, op
from smx.errors import InputError, ParityError, SmxError
from smx.export import export_onnx, exporter, precision
from smx.export.forms import check_form, grid
from smx.runtime import Session
from tests.export.networks import agree, mixed_net, operators
from tests.smx.selected import Net, some
from tests.smx.sorting_cases import attention


def block(function: Any) -> nn.Module:
    """A network of which a part, `1`, is given; (B, 5, 4) to (B, 5, 8)."""
    return nn.Sequential(nn.Linear(4, 8), Net(function, mixed=some(8, dim=-1)))


def branching(net: Any, x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = -x
    return net.mixed(x)  # type: ignore[no-any-return]


def squeezed(net: Any, x: Tensor) -> Tensor:
    return net.mixed(x).mean(1).squeeze()  # type: ignore[no-any-return]


def one_number(net: Any, x: Tensor) -> Tensor:
    return net.mixed(x).mean((1, 2), keepdim=True).squeeze()  # type: ignore[no-any-return]


def attention3(net: Any, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, net.mixed(x), x)


def failing(net: Any, x: Tensor) -> Tensor:
    return net.mixed(x[..., 1:])  # type: ignore[no-any-return]


HERE = r"in 1 \(test_early.py, line \d+: "


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (branching, rf"{HERE}if x.sum\(\) > 0:\) it branches on values, which no file can do; use torch.where"),
        (squeezed, rf"returns fewer axes for a batch of 1 .*: squeeze\(\) {HERE}.* takes the batch away; give it the"),
        (one_number, rf"returns one number as its output for .* \(1, 5, 4\): squeeze\(\) {HERE}return .* takes the"),
        (
            attention3,
            rf"scaled_dot_product_attention {HERE}.* gets values that have not 4 axes; .*unsqueeze\(1\)",
        ),
        (
            failing,
            r"can't run an input of shape \(1, 5, 4\): .* in 1.mixed \(test_early.py, line \d+: return net.mixed",
        ),
    ],
)
def test_the_place_is_named(function: Any, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SmxError, match=message) as caught:
        export_onnx(block(function), tmp_path / "m.onnx", example_input=torch.ones(2, 5, 4))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_buffers_that_are_not_finite(tmp_path: Path) -> None:
    for number in (torch.nan, torch.inf):
        net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), some(3))
        net.get_buffer("1.running_var")[1] = number
        with pytest.raises(InputError, match=r"1\.running_var has values that are not finite; such a model can't be"):
            export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_wrappers(tmp_path: Path) -> None:
    """They are left away, or refused in one line, by everything that takes a network."""
    net, x = mixed_net(), torch.randn(2, 5)
    compiled: Any = torch.compile(net, backend="eager")
    last: Any = torch.compile(net[2])
    for given in (compiled, nn.DataParallel(net), nn.Sequential(nn.DataParallel(net[:2]), last)):
        if given is compiled:
            with pytest.warns(UserWarning, match="torch.compile's module is left away"):
                export_onnx(given, tmp_path / "m.onnx", example_input=x)
            with pytest.warns(UserWarning, match="torch.compile's module is left away"):
                ordered = smx.sort(given, example_input=x)
        else:
            export_onnx(given, tmp_path / "m.onnx", example_input=x, layout="sorted")
            ordered = smx.sort(given, example_input=x)
        agree(tmp_path / "m.onnx", net, torch.randn(3, 5))
        assert not any("_orig_mod" in key or "module" in key for key in ordered.state_dict())
        torch.testing.assert_close(ordered.eval()(x), net.eval()(x))
    scripted = torch.jit.trace(nn.Linear(5, 3), x)  # type: ignore[no-untyped-call]
    dynamic = nn.Sequential(quantized.Linear(5, 3), some(3))  # type: ignore[no-untyped-call]
    for given, message in (
        (scripted, "it is a ScriptModule, .* give the module"),
        (dynamic, "'0' is quantized, .* give"),
    ):
        for call in (smx.commit, smx.sort, lambda net: export_onnx(net, tmp_path / "n.onnx", example_input=x)):
            with pytest.raises(ValueError, match=message) as caught:
                call(given)
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "n.onnx").exists()


def test_half_precision_modules(tmp_path: Path) -> None:
    """A network in float16 computes in it; one unit of that is no fault of the file."""
    net = mixed_net(neurons=64).half()
    with pytest.raises(
        SmxError, match=r"its weights are float16: give an example_input of float16, or export module\."
    ):
        export_onnx(net, tmp_path / "m.onnx", example_input=torch.randn(8, 5))
    x = torch.randn(8, 5).half()
    export_onnx(net, tmp_path / "m.onnx", example_input=x)
    got = Session(tmp_path / "m.onnx").run(x.numpy())
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, net.eval()(x).detach().numpy(), atol=4e-3)
    weight = net.get_parameter("0.weight")
    weight.data = weight.data.bfloat16()
    with pytest.raises(InputError, match=r"0\.weight is bfloat16, .* module\.float\(\)"):
        export_onnx(net, tmp_path / "m.onnx", example_input=x)


def resized(net: Any, x: Tensor) -> Tensor:
    h = F.interpolate(net.mixed(net.first(x)), scale_factor=2.0, mode="bilinear")
    return net.last(F.interpolate(h, size=(5, 5)))  # type: ignore[no-any-return]


def test_float16_of_networks_that_resize_and_attend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    net = Net(resized, first=nn.Conv2d(1, 6, 3), mixed=some(6), last=nn.Conv2d(6, 2, 1))
    for module, x in ((net, torch.randn(2, 1, 6, 6)), (attention(), torch.randn(2, 5, 12))):
        export_onnx(module, path, example_input=x, precision="float16")
        onnx.checker.check_model(onnx.load(path), full_check=True)
        np.testing.assert_allclose(Session(path).run(x.numpy()), module.eval()(x).detach().numpy(), atol=5e-3)
    assert "Resize" not in operators(path)
    before = path.read_bytes()
    monkeypatch.setattr(precision, "FLOAT16_KEEPS", ((),))  # without the form that ONNX Runtime 1.31 does not abort for
    with pytest.raises(
        InputError, match=r"m\.onnx was not written: ONNX Runtime aborts, .*; export it in float32"
    ) as no:
        export_onnx(attention(), path, example_input=torch.randn(1, 5, 12), precision="float16")
    assert "\n" not in str(no.value)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_bytes() == before


def test_forms_are_held_against_their_functions_on_a_wide_grid(tmp_path: Path) -> None:
    z, neighbours = grid()
    assert np.isinf(z).sum() == 2
    assert {1.0, -1e4, np.float32(1e-45), 0.0, 6.0, -0.5} <= {float(value) for value in z}
    assert all(len(near) == len(z) for near in neighbours)
    for name in BUILT_IN:
        check_form(get(name))
    x_squared = op("Mul", "x", "x")
    steps = op("Floor", op("Div", "x", 0.1))
    for activation in (
        Activation("cube", lambda z: z**3, op("Mul", "x", x_squared)),
        Activation("steps", lambda z: (z * 10).floor(), steps),  # its jumps lie where rounding decides
        Activation("later", torch.relu, op("Relu", alpha=1.0)),  # told when it is exported
        Activation("none", torch.relu),
    ):
        check_form(activation)
    sigmoid = op("Div", op("Exp"), op("Add", op("Exp"), 1.0))
    for activation, where, values in (
        (Activation("clip", F.relu6, op("Relu")), r"6\.01", "6 and the form 6.01"),
        (Activation("low", lambda z: z.clamp(-70, 70), op("Identity")), r"-?70.*", "70.* and the form"),
        (Activation("soft", F.softplus, op("Log", op("Add", op("Exp"), 1.0))), r"8[89]\.\d+", r"8.* and the form inf"),
        (Activation("sigma", torch.sigmoid, sigmoid), r"8[89]\.\d+", "1 and the form nan"),
        (Activation("step", lambda z: (z >= 0).float(), op("Sign", op("Relu"))), "0", "1 and the form 0"),
        (Activation("tail", lambda z: torch.atan(z), op("Max", op("Min", op("Atan"), 1.5), -1.5)), ".*", "1.50.* 1.5"),
        (Activation("end", lambda z: (-z).exp() * 0, op("Mul", "x", 0.0)), "inf", "0 and the form nan"),
    ):  # fmt: skip
        with pytest.raises(ParityError, match=rf"'{activation.name}' .* at z = {where} the function is {values}"):
            check_form(activation)
    broken = Activation("broken", lambda z: z.view(7), op("Relu"))  # as a GPU's kernel, it can't be asked beforehand
    with pytest.raises(InputError, match=r"the activation 'broken' fails: shape .* is invalid for input"):
        check_form(broken)
    clip = Activation("clip", F.relu6, op("Relu"))
    with pytest.raises(ParityError, match="'clip' and its ONNX form are two functions"):
        export_onnx(smx.Mixed([0, 0], pool=("relu", clip)), tmp_path / "m.onnx", example_input=torch.zeros(1, 2))
    assert not list(tmp_path.iterdir())


def test_a_plan_tells_what_an_export_will_meet() -> None:
    x = torch.randn(2, 5, 4)
    bad = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Net(lambda _, x: x if x.sum() > 0 else -x), nn.Linear(8, 2))
    plan = smx.plan(bad, example_input=x, export=True)
    assert plan.selected
    assert plan.export is not None
    assert "it branches on values" in plan.export
    assert str(plan).splitlines()[-1] == f"can't be exported: {plan.export}"
    assert smx.plan(bad, example_input=x).export is None
    good = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    plan = smx.plan(good, export={"layout": "sorted", "dynamic": {"input": {2: "height", 3: "width"}}})
    assert (plan.export, str(plan).splitlines()[-1]) == ("", "can be exported")
    cube = Activation("cube", lambda z: z**3)
    refused = smx.plan(good, export=True, pool=(cube,)).export
    assert refused == "the activation 'cube' has no ONNX form; make it with smx.Activation(..., onnx=smx.op(...))"
    assert exporter.BATCHES[0] == 1  # what a squeeze() without axes breaks at
