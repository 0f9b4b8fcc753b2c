from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smx
from smx.activations import BUILT_IN
from smx.calling import Flat
from smx.errors import InputError, ParityError, SmxError
from smx.export import export_onnx, external_data
from smx.export.checks import samples
from smx.export.exporter import advice
from smx.runtime import Session
from smx.runtime.metadata import LayerInfo
from tests.export.networks import agree, mixed_net
from tests.smx.selected import Net, some


def test_scatter_is_eq_11_operator_by_operator(tmp_path: Path) -> None:
    """For each group one Gather, its activation, one ScatterElements; nothing moves into the weights."""
    net = mixed_net()
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5))
    proto = onnx.load(tmp_path / "m.onnx")
    kinds = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu")
    assert [node.name for node in proto.graph.node] == [
        "0/Gemm",
        *(
            f"1/{name}/{operator}"
            for name, kind in zip(smx.PAPER_POOL, kinds, strict=True)
            for operator in ("Gather", kind, "Shape", "Expand", "ScatterElements")
        ),
        "2/Gemm",
    ]
    written = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name, values in net.state_dict().items():
        if name != "1.choice":
            np.testing.assert_array_equal(written[name], values.numpy())
    assert report.operators_before == {"Gemm": 2, "MixedActivation": 1}
    assert sum(report.operators.values()) == len(proto.graph.node)
    for batch in (1, 2, 1000):
        agree(tmp_path / "m.onnx", net, torch.randn(batch, 5))


def test_the_advice_counts_what_scatter_has() -> None:
    layers = [
        LayerInfo(name=name, axis=1, groups=groups)
        for name, groups in (("a", {"relu": 3, "tanh": 1}), ("b", {"relu": 9}), ("c", {"elu": 1, "relu": 1, "tanh": 1}))
    ]
    line = advice("scatter", layers)
    assert line is not None
    assert "instead of 5 Gather and 5 ScatterElements" in line
    assert "\n" not in line
    assert advice("sorted", layers) is advice("scatter", layers[1:2]) is advice("scatter", []) is None


def test_a_script_without_a_main_guard_can_export(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import smx, torch\nfrom smx.export import export_onnx\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 2), smx.Mixed([0, 1]))\n"
        f"export_onnx(net, {str(tmp_path / 'm.onnx')!r}, example_input=torch.zeros(1, 2))\nprint('once')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert (tmp_path / "m.onnx").is_file()


def test_pytorchs_library_is_not_read_at_each_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the file is that of an export that reads it, which one does where the library has other names."""
    counts, files = [], []
    for absent in ((), ("onnxscript._internal.values",), ()):
        with monkeypatch.context() as patch:
            patch.setattr(inspect, "getsource", read := Mock(side_effect=inspect.getsource))
            for name in absent:
                patch.setitem(sys.modules, name, None)
            export_onnx(mixed_net(), tmp_path / "m.onnx", example_input=torch.zeros(1, 5))
        counts.append(read.call_count)
        files.append((tmp_path / "m.onnx").read_bytes())
    assert files[0] == files[1] == files[2]
    assert (counts[1] > 400, counts[2]) == (True, 0)


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_a_fixed_batch(layout: str, tmp_path: Path) -> None:
    net = mixed_net()
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5), layout=layout, batch=3)
    session = Session(tmp_path / "m.onnx")
    assert report.batch == session.batch == 3
    assert not {"Shape", "Expand"} & set(report.operators)
    agree(tmp_path / "m.onnx", net, torch.randn(3, 5))
    with pytest.raises(InputError, match=r"expects an input of shape \(3, 5\), got \(4, 5\)"):
        session.run(np.zeros((4, 5), np.float32))
    x = torch.randn(7, 5)
    with torch.no_grad():
        np.testing.assert_allclose(session.run(x.numpy(), batch_size=100), net(x).numpy(), atol=1e-6)


def test_the_report_says_what_each_pass_did(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 12, 3), smx.Mixed(torch.arange(12) % 6), nn.Conv2d(12, 2, 3, padding=1))
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 1, 5, 5), layout="sorted")
    names = [step.name for step in report.passes]
    assert names == ["NameByModule", "FoldAffine", "MergeGroups", "LowerToSorted", "LowerInPlace"]
    assert "the Conv after it pads with zeros" in report.refusals("MergeGroups")["1"]


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_weights_of_a_large_model_lie_beside_it(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "LARGE", 100)
    net, path = mixed_net(neurons=120), tmp_path / "m.onnx"
    for _ in range(2):  # the second export removes the weights of the first
        report = export_onnx(net, path, example_input=torch.zeros(1, 5), layout=layout)
        (beside,) = tmp_path.glob("m.onnx.*.data")
        assert len(list(tmp_path.iterdir())) == 2
        assert report.bytes == path.stat().st_size + beside.stat().st_size
        onnx.checker.check_model(path, full_check=True)
        agree(path, net, torch.randn(4, 5))
    (tmp_path / "m.onnx.train.data").write_text("somebody else's")
    (tmp_path / "m.onnx.01234567.data").write_text("somebody else's")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ParityError, match="was not written"):
        export_onnx(net, path, example_input=torch.randn(2, 5), layout=layout, atol=0, rtol=0)
    with pytest.raises(InputError, match=r"only .* in float32 and at opset 18 to 25, got float32 and opset 17"):
        export_onnx(net, path, example_input=torch.zeros(1, 5), opset=17)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.setattr(external_data, "LARGE", 2**31)
    export_onnx(net, path, example_input=torch.zeros(1, 5), layout=layout)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.01234567.data", "m.onnx.train.data"]


def test_where_shifts_cost_precision_they_stay(tmp_path: Path) -> None:
    """ELU of tiny values, made large again by BatchNorm: exp(z) is near 1, and taking the 1 back later is too late."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 64), smx.Mixed(torch.arange(64) % 3, ("elu", "selu", "relu")), nn.BatchNorm1d(64, momentum=1.0),
        nn.Linear(64, 4),
    )  # fmt: skip
    with torch.no_grad():
        net.get_parameter("0.weight").mul_(0.002)
        net.get_parameter("0.bias").zero_()
        net.train()(torch.randn(512, 16))
    report = export_onnx(net.eval(), tmp_path / "m.onnx", example_input=torch.randn(64, 16), layout="sorted")
    assert "Sub" in report.operators
    assert report.max_abs < 1e-5


def test_indices_of_a_fixed_batch_do_not_blow_the_file_up(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 1), smx.Mixed(torch.arange(32) % 6), nn.Conv2d(32, 4, 1))
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 3, 56, 56), batch=4)
    assert report.bytes < 30_000


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(2)))


V, L, C = weights, nn.Linear, nn.Conv1d
BROKEN: list[tuple[nn.Module, tuple[int, ...], int | None]] = [
    # A constant that makes its input larger is no map of channels.
    (Net(lambda s, x: s.o(torch.relu(s.l(x)) * s.v), l=L(4, 1), v=V(6), o=L(6, 2)), (4,), 3),
    (Net(lambda s, x: s.o(s.m(s.l(x)) * s.v), l=L(4, 6), m=some(6), v=V(1, 1, 6), o=L(6, 2)), (4,), None),
    # Channels that stand on the first axis of a Gemm or a Conv.
    (Net(lambda s, x: s.o(s.m(s.l(x)).view(12, 7)).view(1, 36), l=C(2, 12, 1), m=some(12), o=L(7, 3)), (2, 7), 1),
    (
        Net(lambda s, x: s.o(s.m(s.l(x)).transpose(0, 1)).view(1, -1), l=C(2, 12, 1), m=some(12), o=C(1, 3, 3)),
        (2, 7),
        1,
    ),
    (nn.Sequential(L(3, 5), some(4, dim=0), L(5, 2)), (3,), 4),
    # A second output that tells positions, and a bias for each row.
    (
        Net(lambda s, x: F.max_pool1d(s.m(s.l(x)), 2, 2, 0, 1, False, True)[1] / 9, l=C(2, 12, 1), m=some(12)),
        (2, 7),
        None,
    ),
    (Net(lambda s, x: torch.addmm(s.c, s.m(s.l(x)), s.v), l=L(4, 12), m=some(12), v=V(12, 3), c=V(3, 1)), (4,), 3),
]


@pytest.mark.parametrize(("net", "shape", "batch"), BROKEN)
@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_what_a_review_broke(
    net: nn.Module, shape: tuple[int, ...], batch: int | None, layout: str, tmp_path: Path
) -> None:
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.randn(3, *shape), layout=layout, batch=batch)
    assert report.max_abs < 1e-4


@pytest.mark.parametrize(("precision", "error"), [("float16", 0.02), ("int8", 0.3)])
def test_lower_precision_counts_the_predictions_that_change(precision: str, error: float, tmp_path: Path) -> None:
    net, x = mixed_net(), torch.randn(200, 5)
    data: dict[str, Any] = {"calibration": x.numpy(), "evaluation": x.numpy()}
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5), precision=precision, **data)
    session = Session(tmp_path / "m.onnx")
    with torch.no_grad():
        expected = net(x).numpy()
    got = session.run(x.numpy())
    np.testing.assert_allclose(got, expected, atol=error)
    assert not np.allclose(got, expected, atol=1e-6)
    assert report.predictions == 200
    assert report.changed == np.count_nonzero(got.argmax(1) != expected.argmax(1))
    assert session.info is not None
    assert session.info.precision == precision


@pytest.mark.parametrize("opset", [13, 17, 26])
def test_opsets(opset: int, tmp_path: Path) -> None:
    net = mixed_net(BUILT_IN, 2 * len(BUILT_IN))
    export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5), opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset
    agree(tmp_path / "m.onnx", net, torch.randn(4, 5))


class Branches(nn.Module):
    """Channels on axis 1 and on the last axis, a layer used twice, two inputs, an activation at the very end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = smx.Mixed([0, 5, 5, 2])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.side = nn.Sequential(nn.Linear(3, 6), smx.Mixed([1, 4, 4, 0, 1, 1], dim=-1), nn.Linear(6, 4))
        self.last = smx.Mixed([3, 3, 1, 0])

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(image)))
        x = self.act(x + image.mean(1, keepdim=True))
        return self.last(self.pool(x).flatten(1) + self.side(tokens).mean(1))  # type: ignore[no-any-return]


def test_any_network_of_mixed_layers_exports(tmp_path: Path) -> None:
    net = Branches().eval()
    example = (torch.randn(1, 2, 5, 5), torch.randn(1, 7, 3))
    report = export_onnx(net, tmp_path / "m.onnx", example_input=example)
    assert [(layer.name, layer.axis) for layer in report.layers] == [
        ("act", 1), ("act", 1), ("side.1", 2), ("last", 1),
    ]  # fmt: skip
    names = [node.name for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert len(set(names)) == len(names)
    assert any(name.startswith("act/") for name in names)
    assert any(name.startswith("act_2/") for name in names)
    assert "side/0/MatMul" in names or "side/0/Gemm" in names
    agree(tmp_path / "m.onnx", net, torch.randn(3, 2, 5, 5), torch.randn(3, 7, 3), atol=3e-6)


def test_selected_and_committed_module_of_a_user(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    selective = smx.select(plain, example_input=torch.zeros(1, 3, 8))
    with pytest.raises(InputError, match=r"still in phase 1: 1 is a Selective layer; .* smx\.commit"):
        export_onnx(selective, tmp_path / "m.onnx", example_input=torch.zeros(1, 3, 8))
    assert not list(tmp_path.iterdir())
    net = smx.commit(selective)
    export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 3, 8))
    agree(tmp_path / "m.onnx", net, torch.randn(2, 3, 8))


def sampled(net: nn.Module, *example: Tensor) -> None:
    samples(Flat(net, example), [("example", example)])


def test_a_network_that_is_random_in_eval_is_named() -> None:
    block = Net(lambda net, x: F.dropout(net.act(x), 0.5), act=some(8, dim=-1))
    net = nn.Sequential(nn.Linear(4, 8), block, nn.Linear(8, 2))
    with pytest.raises(
        SmxError, match=r"Sequential gives two answers to one input in eval\(\), .* \(in 1\); F.dropout"
    ):
        sampled(net, torch.randn(2, 4))
    with pytest.raises(SmxError, match=r"in its own forward"):
        sampled(block, torch.randn(2, 8))


def test_float64(tmp_path: Path) -> None:
    net = mixed_net().double()
    export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5, dtype=torch.float64))
    agree(tmp_path / "m.onnx", net, torch.randn(3, 5, dtype=torch.float64), atol=1e-12)


def test_metadata_and_validity(tmp_path: Path) -> None:
    export_onnx(
        mixed_net(),
        tmp_path / "m.onnx",
        example_input=torch.zeros(1, 5),
        describe={"architecture": "5-12-3", "class_names": ("a", "b", "ç"), "sample_shape": (5,), "maximum": 255.0},
    )
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.producer_name, proto.producer_version) == ("smartmixed", smx.__version__)
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.graph.output[0].name == "output"
    assert all(not node.doc_string and not node.metadata_props for node in proto.graph.node)
    info = Session(tmp_path / "m.onnx").info
    assert info is not None
    assert info.class_names == ("a", "b", "ç")
    assert info.layers[0].groups == dict.fromkeys(smx.PAPER_POOL, 2)
    assert info.tolerance["max_abs"] < 1e-5 == info.tolerance["atol"]


def test_exporting_does_not_change_the_module(tmp_path: Path) -> None:
    net = mixed_net().train()
    before = copy.deepcopy(net.state_dict())
    export_onnx(net, tmp_path / "m.onnx", example_input=torch.zeros(1, 5))
    assert net.training
    assert isinstance(net[1], smx.Mixed)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Masked(nn.Module):
    """Infinite in a buffer, defined for positive inputs only, and with a layer called twice beside one named act_2."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))
        self.act = smx.Mixed([0, 1, 2])
        self.act_2 = smx.Mixed([2, 1, 0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        masked = torch.softmax(torch.log(x) + self.mask, 1)
        return self.act(self.act(self.act_2(x))), masked


def test_modules_that_are_not_defined_everywhere(tmp_path: Path) -> None:
    report = export_onnx(Masked(), tmp_path / "m.onnx", example_input=torch.tensor([[0.5, 1.0, 2.0]]))
    assert report.max_abs < 1e-6
    names = {node.name for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"act", "act_2", "act_3"} <= {name.split("/")[0] for name in names}


class SameCall(nn.Module):
    """Runs one layer twice on one value, which PyTorch's optimizer would run once."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(4, 6), smx.Mixed([0, 1, 2, 0, 1, 2])
        self.a, self.b = nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(self.act(self.linear(x))), self.b(self.act(self.linear(x)))


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_one_layer_may_be_called_twice_on_one_value(layout: str, tmp_path: Path) -> None:
    net, x = SameCall(), torch.randn(2, 4)
    report = export_onnx(net, tmp_path / "m.onnx", example_input=x, layout=layout)
    assert [layer.name for layer in report.layers] == ["act", "act"]
    assert smx.verify(net, tmp_path / "m.onnx", example_input=x).passed


def test_whole_numbers_of_a_form_become_what_the_operator_takes(tmp_path: Path) -> None:
    steep = smx.Activation("steep", lambda z: nn.functional.elu(z, 2.0), smx.op("Elu", alpha=2))
    net = nn.Sequential(nn.Linear(4, 3), smx.Mixed([0, 1, 0], (steep, "relu")), nn.Linear(3, 2))
    for layout in ("scatter", "sorted"):
        export_onnx(net, tmp_path / f"{layout}.onnx", example_input=torch.randn(2, 4), layout=layout)


def test_tolerances_and_names_of_axes_that_contradict(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(1, 4, 3), smx.Mixed([0, 1, 0, 1]), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    for given, said in (
        ({"atol": float("inf")}, "atol must be a number from 0 on, got inf"),
        ({"rtol": -1.0}, r"rtol must be a number from 0 on, got -1\.0"),
        ({"dynamic": {"input": {2: "time", -1: "width"}}}, "axis 2 of input has two names, time and width"),
    ):
        with pytest.raises(InputError, match=said):
            export_onnx(net, tmp_path / "m.onnx", example_input=torch.randn(2, 1, 9), **given)
    assert not any(tmp_path.iterdir())
