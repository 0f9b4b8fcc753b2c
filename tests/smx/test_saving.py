"""`smx.save` and `smx.load`: networks of any class as files, and what such a file can't do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import smx
from smx.errors import InputError
from smx.modelfile import load_model, save_model
from smx.program import Program
from tests.conftest import smx as command
from tests.smx.selected import Net


class Every(nn.Module):
    """What a file has to keep: convolution, norms, attention, views, constants, in-place arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.linear, self.layer_norm = nn.Linear(96, 8), nn.LayerNorm(8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.output = nn.Linear(8, 3)
        self.register_buffer("scale", torch.rand(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1)
        h = F.gelu(self.layer_norm(self.linear(h)))
        h = self.encoder(h[:, None].expand(-1, 4, -1)).mean(1)
        h += 1
        scaled: Tensor = self.output(F.dropout(h, training=self.training)) * self.scale
        return scaled + torch.tensor([1.0, 2, 3])


@pytest.fixture(scope="module")
def selected() -> nn.Module:
    torch.manual_seed(0)
    net = smx.select(Every(), example_input=torch.rand(2, 1, 8, 8))
    for layer in net.modules():
        if isinstance(layer, smx.Selective):
            nn.init.normal_(layer.logits)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]
    return net


X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_committed_network_of_any_class(selected: nn.Module, tmp_path: Path) -> None:
    net, path = smx.commit(selected), tmp_path / "model.pt"
    before = copy.deepcopy(net.state_dict())
    smx.save(net, path, example_input=X[:1], maximum=255, sample_shape=(8, 8), class_names=[*"abc"])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    loaded = smx.load(path)
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(X), net.eval()(X))
        saved = load_model(path)
        exact = copy.deepcopy(net).double()(X.double())
        torch.testing.assert_close(saved.build(dtype=torch.float64)(X.double()), exact, rtol=1e-12, atol=1e-12)
        raw = torch.randint(256, (5, 8, 8), dtype=torch.uint8)
        torch.testing.assert_close(saved.build(raw=True)(raw), net(raw[:, None] / 255))
    layers = {name: part for name, part in net.named_modules() if isinstance(part, smx.Mixed)}
    assert saved.choices.keys() == layers.keys()
    assert all(torch.equal(saved.choices[name], layer.choice) for name, layer in layers.items())
    assert (str(saved.architecture), saved.data["name"], saved.data["class_names"]) == ("Every 1x8x8-3", "", (*"abc",))
    reports = [
        smx.export.export_onnx(each, tmp_path / "m.onnx", example_input=X, layout="sorted") for each in (net, loaded)
    ]
    assert reports[0].operators == reports[1].operators


def test_a_selected_network_can_be_committed(selected: nn.Module, tmp_path: Path) -> None:
    smx.save(selected, tmp_path / "model.pt", example_input=X)
    with torch.no_grad():
        committed = smx.commit(smx.load(tmp_path / "model.pt"))
        torch.testing.assert_close(committed(X), smx.commit(selected).eval()(X))


@pytest.mark.parametrize(
    ("layers", "x"),
    [
        (
            (nn.Linear(4, 3), smx.Mixed([1, 0, 1], ("tanh", "gelu")), nn.Linear(3, 2), smx.Mixed([0, 1])),
            torch.randn(6, 4),
        ),
        ((nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3), smx.Mixed([0, 1, 2])), torch.randint(9, (5, 2))),
    ],
)
def test_layers_have_pools_of_their_own_and_whole_numbers_go_in(
    layers: tuple[nn.Module, ...], x: Tensor, tmp_path: Path
) -> None:
    net = nn.Sequential(*layers).eval()
    smx.save(net, tmp_path / "model.pt", example_input=x[:1])
    assert torch.equal(smx.load(tmp_path / "model.pt")(x), net(x))
    assert load_model(tmp_path / "model.pt").example_input().dtype == x.dtype


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), "Sequential has no Selective or Mixed layers in it"),
        (smx.Mixed([0] * 4), "Mixed has no Selective or Mixed layers in it"),
        (
            nn.Sequential(smx.Mixed([0] * 4), Net(lambda net, x: x if x.sum() > 0 else -x)),
            "Sequential can't be traced by torch.export: ",
        ),
        (
            nn.Sequential(smx.Mixed([0] * 4), Net(lambda net, x: (x, x))),
            "Sequential must take one tensor and return one",
        ),
        (nn.Sequential(smx.Selective(4), smx.Selective(4, ("relu",))), "must have one pool"),
        (
            nn.Sequential(smx.Mixed([0] * 4, (smx.Activation("relu", torch.sin),))),
            "the activation 'relu' of a pool is not the registered one",
        ),
    ],
)
def test_what_cant_be_saved(net: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        smx.save(net, tmp_path / "model.pt", example_input=torch.rand(2, 4))
    assert not (tmp_path / "model.pt").exists()


OPERATORS = (
    "aten.from_file.default", "aten.add_.Tensor", "aten.__class__.default", "aten.add.__class__",
    "aten.nothing.default", "aten._print.default", "operator.attrgetter", "operator.", "os.system", "prims.add.default",
)  # fmt: skip


def test_a_file_names_nothing_but_operators_without_side_effects(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    net = nn.Sequential(nn.Linear(4, 3), smx.Mixed([0, 1, 2]))
    smx.save(net, path, example_input=torch.rand(2, 4))
    content: dict[str, Any] = torch.load(path, weights_only=True)
    node = content["architecture"]["program"]["nodes"][0]
    assert node[1] == "aten.linear.default"
    for node[1] in OPERATORS:
        torch.save(content, path)
        with pytest.raises(InputError, match="can't be built: a saved network can't use the operator"):
            smx.load(path)
    node[1:3] = "aten.to.dtype", [{"node": "input"}, {"torch": "load"}]
    with pytest.raises(ValueError, match="'load' is no dtype, layout or memory format of PyTorch's"):
        Program(content["architecture"]["program"], content["weights"], {"1": smx.Mixed([0, 1, 2])})


def test_inspect_lists_the_layers_that_still_choose(selected: nn.Module, tmp_path: Path) -> None:
    smx.save(selected, tmp_path / "model.pt", example_input=X[:1])
    found = smx.describe(tmp_path / "model.pt")
    layers = {layer["name"]: (layer["neurons"], layer["axis"]) for layer in found.selective}
    assert layers == {"relu": (6, 1), "gelu": (8, -1), "encoder.activation": (16, -1)}
    assert found.to_dict()["selective"] == list(found.selective)
    shown = command("inspect", tmp_path / "model.pt")
    assert "selective layers" in shown.stdout
    assert smx.describe(tmp_path / "model.pt").layers == ()
    together = smx.select(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), per=3, example_input=torch.ones(2, 4)
    )
    smx.save(together, tmp_path / "model.pt", example_input=torch.ones(1, 4))
    assert smx.describe(tmp_path / "model.pt").selective[0]["neurons"] == 6


class Gated(nn.Module):
    """The second Sigmoid is a gate, and no neuron chooses it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        y: Tensor = self.last(h * torch.sigmoid(self.gate(h)))
        return y


def test_inspect_lists_what_select_left(tmp_path: Path) -> None:
    net = smx.select(Gated(), example_input=torch.ones(2, 4))
    for each in (net, smx.commit(net)):
        smx.save(each, tmp_path / "model.pt", example_input=torch.ones(1, 4))
        (left,) = smx.describe(tmp_path / "model.pt").left
        assert (left["path"], left["activation"]) == ("sigmoid", "sigmoid")
        assert left["reason"].startswith("it is a gate")
    assert "left as they are" in command("inspect", tmp_path / "model.pt").stdout


def test_masks_may_be_infinite_and_wrappers_are_left_away(tmp_path: Path) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        weights = (x @ x.transpose(1, 2) + net.mask).softmax(-1)
        return net.last(net.mixed(net.first(weights @ x)))  # type: ignore[no-any-return]

    mixed = smx.Mixed(torch.arange(6) % 3, dim=-1)
    net = Net(forward, first=nn.Linear(4, 6), mixed=mixed, last=nn.Linear(6, 2))
    net.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))
    x = torch.randn(2, 5, 4)
    smx.save(nn.DataParallel(net), tmp_path / "model.pt", example_input=x)
    torch.testing.assert_close(smx.load(tmp_path / "model.pt")(x), net(x))
    saved = load_model(tmp_path / "model.pt")
    saved.weights["mask"][0, 0] = torch.nan
    save_model(tmp_path / "model.pt", saved)
    with pytest.raises(InputError, match="mask has 1 of 25 values that are not finite"):
        smx.load(tmp_path / "model.pt")


def test_axes_of_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 6), smx.Mixed(torch.arange(6) % 3, dim=-1), nn.Flatten(0, 1), nn.Linear(6, 2))
    net = Net(lambda net, x: net.body(x).reshape(x.shape[0], -1, 2).mean(1), body=body)
    path = tmp_path / "model.pt"
    smx.save(net, path, example_input=torch.ones(1, 1, 4), dynamic=[1])
    x = torch.randn(3, 7, 4)
    torch.testing.assert_close(smx.load(path)(x), net(x))
    with pytest.raises(ValueError, match="dynamic names axes 1 to 2 of the example, got 3"):
        smx.save(net, path, example_input=torch.ones(1, 1, 4), dynamic=[3])
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), smx.Mixed(torch.arange(6) % 3), nn.Linear(6, 2))
    with pytest.raises(ValueError, match=r"Sequential does not take any length on all of the axes 1; leave out"):
        smx.save(fixed, path, example_input=torch.ones(1, 2, 4), dynamic=[1])


def test_attention_by_hand_and_normed_weights_can_be_saved(tmp_path: Path) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        q, k = net.qk(x).view(*x.shape[:2], 2, 2, 2).unbind(2)
        a = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        out: Tensor = net.out(net.act(torch.einsum("bhqk,bkhd->bqhd", a, q).flatten(2)))
        return out

    parts = {"qk": weight_norm(nn.Linear(4, 8)), "act": nn.ReLU(), "out": nn.Linear(4, 2)}
    x = torch.randn(3, 5, 4)
    net = smx.commit(smx.select(Net(forward, **parts), example_input=x)).eval()
    smx.save(net, tmp_path / "model.pt", example_input=x)
    torch.testing.assert_close(smx.load(tmp_path / "model.pt")(x), net(x))
    with pytest.raises(ValueError, match=r"takes one tensor, got an example_input of tuple; smx\.export\.export_onnx"):
        smx.save(net, tmp_path / "model.pt", example_input=(x, x))  # type: ignore[arg-type]


def test_examples_that_are_none(tmp_path: Path) -> None:
    net = smx.commit(smx.select(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    with pytest.raises(ValueError, match=r"example_input needs at least one example \(1, \*\), got shape \(0, 4\)"):
        smx.save(net, tmp_path / "m.pt", example_input=torch.rand(0, 4))
    with pytest.raises(ValueError, match=r"sample_shape must have as many values as the network takes, 4, got \(7,\)"):
        smx.save(net, tmp_path / "m.pt", example_input=torch.rand(1, 4), sample_shape=(7,))


def test_class_names_are_as_many_as_the_outputs(tmp_path: Path) -> None:
    net, x = smx.commit(smx.select(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))), torch.rand(5, 4)
    with pytest.raises(ValueError, match="class_names must name each of the 2 outputs, got 1 names"):
        smx.save(net, tmp_path / "m.pt", example_input=x, class_names=["a"])
    with pytest.raises(ValueError, match="class_names must be a sequence of names, got the string 'ab'"):
        smx.save(net, tmp_path / "m.pt", example_input=x, class_names="ab")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("said", [{"class_names": ["a", "\ud800"]}, {"maximum": 0.0}, {"maximum": float("nan")}])
def test_what_could_not_be_read_again_replaces_nothing(said: dict[str, Any], tmp_path: Path) -> None:
    net, x = smx.commit(smx.select(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))), torch.rand(5, 4)
    smx.save(net, tmp_path / "m.pt", example_input=x)
    with pytest.raises(InputError, match=r"m\.pt is not written, since it could not be read again: "):
        smx.save(net, tmp_path / "m.pt", example_input=x, **said)
    torch.testing.assert_close(smx.load(tmp_path / "m.pt")(x), net.eval()(x))


class Named(nn.Module):
    """Its parts have names that a program has no use for."""

    def __init__(self) -> None:
        super().__init__()
        self._input, self._layer, self._nodes = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self._nodes(self._layer(self._input(x.float() / 2)))  # type: ignore[no-any-return]


def test_parts_have_any_name_and_may_change_the_dtype(tmp_path: Path) -> None:
    x = torch.randint(0, 9, (4, 6))
    net = smx.commit(smx.select(Named(), example_input=x))
    smx.save(net, tmp_path / "m.pt", example_input=x)
    torch.testing.assert_close(smx.load(tmp_path / "m.pt")(x), net.eval()(x))
