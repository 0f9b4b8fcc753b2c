"""What a file takes and returns: axes of any length, arguments in every form, results in whatever holds them."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm

import smx
from smx.calling import Flat, tensors_by_name
from smx.errors import InputError, SmxError
from smx.export import export_onnx
from smx.export.capture import capture
from smx.export.checks import flattened
from smx.runtime import Session
from tests.export.networks import agree
from tests.smx.selected import Net, some


def words(**parts: Any) -> nn.Module:
    """Tokens (B, T, 4) to (B, 3), by positions of which a table has 9."""
    layers = {"first": nn.Linear(4, 12), "mixed": some(12, dim=-1), "last": nn.Linear(12, 3), **parts}
    return Net(
        lambda net, x: net.last(net.mixed(net.first(x + net.table[:, : x.shape[1]]))).mean(1),
        table=nn.Parameter(torch.randn(1, 9, 4)),
        **layers,
    )


def pictures() -> nn.Module:
    """Images (B, 2, H, W) to (B, 3, H, W), of even height and width."""
    torch.manual_seed(0)
    down = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), some(12), nn.AvgPool2d(2))
    return nn.Sequential(down, nn.Conv2d(12, 12, 1), some(12, seed=1), nn.ConvTranspose2d(12, 3, 2, stride=2))


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_other_lengths_and_sizes_run(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, net = tmp_path / "m.onnx", words()
    report = export_onnx(net, path, example_input=torch.randn(1, 7, 4), layout=layout, dynamic={"x": {1: "time"}})
    assert not onnx.load(path).graph.value_info  # which may hold the example's sizes
    (shape,) = (value.shape for value in Session(path).inputs)
    assert shape == ["batch", "time", 4]
    assert layout == "scatter" or report.refusals("LowerToSorted") == {}
    for batch, time in ((1, 1), (3, 9), (2, 4)):
        agree(path, net, torch.randn(batch, time, 4), atol=3e-6)
    net = pictures()
    axes = {"input": {2: "height", -1: "width"}}
    export_onnx(net, path, example_input=torch.randn(2, 2, 6, 8), layout=layout, dynamic=axes)
    for height, width in ((6, 8), (10, 4), (2, 16)):
        agree(path, net, torch.randn(2, 2, height, width), atol=1e-5)


def test_a_fixed_batch_and_a_dynamic_length_of_one(tmp_path: Path) -> None:
    path, net = tmp_path / "m.onnx", words()
    export_onnx(net, path, example_input=torch.randn(2, 1, 4), batch=1, dynamic={"x": {1: "time"}})
    assert Session(path).inputs[0].shape == [1, "time", 4]
    agree(path, net, torch.randn(1, 5, 4), atol=3e-6)


def test_axes_that_can_not_be_dynamic(tmp_path: Path) -> None:
    x = torch.randn(2, 7, 4)

    def refuse(message: str, net: nn.Module, error: type[SmxError] = InputError, **options: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            export_onnx(net, tmp_path / "m.onnx", **{"example_input": x, "dynamic": {"x": {1: "time"}}, **options})
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    flat = nn.Sequential(nn.Flatten(), nn.Linear(28, 6), some(6), nn.Linear(6, 2))
    refuse(
        r"Sequential takes time, axis 1 of input, in the length 7 alone: .* in 1; leave it out of dynamic, or let",
        flat,
        dynamic={"input": {1: "time"}},
    )
    fixed = Net(lambda net, x: net.mixed(x + net.table), table=nn.Parameter(torch.randn(7, 4)), mixed=some(4, -1))
    refuse(
        r"takes time, axis 1 of input, .* in its own forward \(test_interfaces.py, line \d+: .*x \+ net.table", fixed
    )
    steps = Net(lambda net, x: torch.stack([net.mixed(x[:, t]) for t in range(x.shape[1])], 1), mixed=some(4, -1))
    refuse("forward takes time, axis 1 of input, for the constant 7; compute it with tensors", steps, SmxError)
    refuse("dynamic names an unknown input 'y'; known are input, x", words(), dynamic={"y": {1: "time"}})
    refuse(r"dynamic names axis 3 of x, whose shape is \(2, 7, 4\)", words(), dynamic={"x": {3: "time"}})
    refuse("an axis needs a plain name such as 'time', got 'a b'", words(), dynamic={"x": {1: "a b"}})
    refuse("axis 0 is the batch, and no other axis is; got 'time'", words(), dynamic={"x": {0: "time"}})
    refuse("axes of one name have one length; time is 7 and 4", words(), dynamic={"x": {1: "time", 2: "time"}})
    refuse("the batch is fixed to 2; leave out", words(), dynamic={"x": {0: "batch"}}, batch=2)
    refuse("fastest is searched at fixed sizes; leave out dynamic", words(), layout="fastest")
    refuse("the model has 1 inputs, input, got 2 input names", words(), input_names=["a", "b"])
    refuse(
        "each output needs a name that nothing else in the model has, got 'last.bias'",
        words(),
        output_names=["last.bias"],
    )
    refuse("each output needs a name that nothing else in the model has, got ''", words(), output_names=[""])


class Wide(nn.Module):
    """Arguments in every form; what it returns is made by a function."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.first, self.mixed, self.result = nn.Linear(4, 6), some(6, dim=-1), result

    def forward(self, *xs: Tensor, scale: Tensor, mask: Tensor | None = None, double: bool = False) -> Any:
        z = self.first(sum(xs)) * scale
        h = self.mixed(z if mask is None else z.masked_fill(mask.unsqueeze(-1), 0.0))
        return self.result(2 * h if double else h, xs[0])


@dataclasses.dataclass
class Output(OrderedDict[str, Any]):
    """As transformers' `ModelOutput`: a dataclass that is a dict of what is not None."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        self.update({key: value for key in ("loss", "logits", "hidden") if (value := getattr(self, key)) is not None})


@dataclasses.dataclass
class Plain:
    """A dataclass and nothing else."""

    logits: Tensor
    other: Tensor | None


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def test_arguments_and_results_in_every_form(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, net = tmp_path / "m.onnx", Wide(lambda h, x: Output(logits=h, hidden=(x, h.sin())))
    x = (torch.randn(2, 5, 4), torch.randn(2, 5, 4))
    names = {"scale": torch.rand(2, 1, 6), "mask": torch.rand(2, 5) > 0.5, "double": True}
    export_onnx(net, path, example_input=(*x, names), layout="sorted", dynamic={"mask": {1: "time"}, **{
        f"input{i}": {1: "time"} for i in range(2)
    }})  # fmt: skip
    session = Session(path)
    assert [value.name for value in session.inputs] == ["input0", "input1", "scale", "mask"]
    assert [value.name for value in session.outputs] == ["logits", "hidden_0", "hidden_1"]
    others = (torch.randn(3, 8, 4), torch.randn(3, 8, 4)), torch.rand(3, 1, 6), torch.rand(3, 8) > 0.5
    expected = net.eval()(*others[0], scale=others[1], mask=others[2], double=True)
    got = session.run_all(*(value.numpy() for value in (*others[0], *others[1:])))
    for output, wanted in zip(got, (expected.logits, *expected.hidden), strict=True):
        np.testing.assert_allclose(output, wanted.detach().numpy(), atol=1e-5)


def test_outputs_have_their_names(tmp_path: Path) -> None:
    h, x = torch.ones(2, 4), torch.zeros(2, 4)
    for result, names in (
        (Plain(h, None), ["logits"]),
        ([h, (h, x)], ["output0", "output1_0", "output1_1"]),
        (Pair(h, x), ["first", "second"]),
        (([h],), ["output"]),
        (h, ["output"]),
        ({"": h, "a": {"b": [h, None]}}, ["output", "a_b_0"]),
        ({"a_0": h, "a": [x], 1: h}, ["a_0", "a_0_2", "output1"]),
    ):
        found = tensors_by_name(result)
        assert list(found) == names
        assert all(tensor is h or tensor is x for tensor in found.values())
    net = Net(lambda net, x: {"input": net.mixed(x), 3: [x, x]}, mixed=some(4, dim=-1))  # names and values twice
    x = torch.randn(2, 4)
    export_onnx(net, tmp_path / "m.onnx", example_input=x)
    session = Session(tmp_path / "m.onnx")
    assert [value.name for value in session.outputs] == ["input_output", "output3_0", "output3_1"]
    for output, tensor in zip(session.run_all(x.numpy()), (net.eval()(x)["input"], x, x), strict=True):
        np.testing.assert_allclose(output, tensor.numpy(), atol=1e-6)


def test_names_of_ones_own(tmp_path: Path) -> None:
    """Also such as other values of the graph have."""
    net = nn.Sequential(nn.Linear(4, 6), some(6), nn.Linear(6, 2))
    how: dict[str, Any] = {"input_names": ["linear"], "output_names": ["0/Gemm"], "dynamic": {"linear": {0: "batch"}}}
    export_onnx(net, tmp_path / "m.onnx", example_input={"input": torch.randn(1, 4)}, **how)
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
    session = Session(tmp_path / "m.onnx")
    assert ([value.name for value in session.inputs], session.outputs[0].name) == (["linear"], "0/Gemm")
    agree(tmp_path / "m.onnx", net, torch.randn(3, 4), atol=3e-6)


def test_what_is_no_result_for_a_file(tmp_path: Path) -> None:
    for result, message in (
        (lambda h, x: {"logits": h, "cache": {"a": iter([])}}, r"Wide can't be exported: it returns a list_iterator in"
         r" cache.a; it must return tensors \(B, \*\), in lists, dicts or dataclasses"),
        (lambda h, x: [None], "Wide returns no tensor"),
        (lambda h, x: h.sum(), r"Wide returns one number as its output .*, not \(B, \*\)"),
    ):  # fmt: skip
        with pytest.raises(SmxError, match=message):
            export_onnx(
                Wide(result), tmp_path / "m.onnx", example_input=(torch.randn(2, 4), {"scale": torch.ones(2, 1)})
            )
    assert not list(tmp_path.iterdir())


def test_a_dict_is_an_argument_where_the_forward_has_no_such_names(tmp_path: Path) -> None:
    def forward(net: Any, x: Any) -> Any:
        return net.mixed(x["a"]) + x["b"]

    net = Net(forward, mixed=some(4))
    export_onnx(net, tmp_path / "m.onnx", example_input={"a": torch.randn(2, 4), "b": torch.randn(2, 4)})
    assert [value.name for value in Session(tmp_path / "m.onnx").inputs] == ["input0", "input1"]


def test_select_and_sort_take_arguments_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)

        def forward(self, x: Tensor, *, scale: float, mask: Tensor | None = None) -> Output:
            return Output(logits=self.last(self.act(self.first(x) * scale)))

    example = {"x": torch.randn(2, 5, 4), "scale": 2.0}
    net = smx.select(Named(), example_input=example)
    for layer in net.modules():
        if isinstance(layer, smx.Selective):
            nn.init.normal_(layer.logits)
    committed = smx.commit(net)
    ordered = smx.sort(committed, example_input=example)
    assert smx.sorting.refusals(ordered, example_input=example) == {}
    a, b = (part.eval()(torch.ones(1, 5, 4), scale=0.5).logits for part in (committed, ordered))
    torch.testing.assert_close(a, b)


def test_recurrent_layers_take_any_length_in_every_export_of_a_process() -> None:
    net, x = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)
    with warnings.catch_warnings(action="ignore"):
        torch.export.export(net, (x,))  # leaves a cache of PyTorch's behind, as any export does
    model = capture(Flat(net, (x,)), (x,), 18, axes=[{1: "time"}])
    assert str(model.graph.inputs[0].shape) == "[batch,time,3]"
    with pytest.raises(SmxError, match=r"RNN: its forward takes batch, axis 0 of input, for the constant 2; .*batch=2"):
        capture(Flat(nn.RNN(3, 4), (x,)), (x,), 18)


def test_computed_weights_are_plain_ones_in_a_file() -> None:
    net = nn.Sequential(orthogonal(nn.Linear(4, 4)), nn.ReLU(), spectral_norm(nn.Linear(4, 2)))
    x, before = torch.randn(3, 4), copy.deepcopy(net.state_dict())
    flat = flattened(net, x)
    assert set(flat.module.state_dict()) == {f"{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
    torch.testing.assert_close(flat.module.eval()(x), net.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
