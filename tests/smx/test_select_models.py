"""`smx.select` on whole networks: every activation found, whatever way it is written, and the same function kept."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, fx, nn

import smx
from smx.activations import Activation, known
from smx.convert import ACTIVATION_MODULES
from smx.convert.modularize import ACTIVATIONS
from smx.data.torchvision_sets import import_datasets
from smx.export import export_onnx
from smx.runtime import Session, check_parity
from tests.smx.selected import Net, favour, same, selectives

MODULES = {name: ACTIVATIONS[name] for name in known() if name in ACTIVATIONS}
IN_PLACE = ("relu", "leaky_relu", "elu", "selu", "silu", "mish", "hardswish")


class Spelled(nn.Module):
    """Linear layers, and after each an activation that is written in a certain way."""

    def __init__(self, calls: list[tuple[str, str]]) -> None:
        super().__init__()
        self.calls = calls
        self.linears = nn.ModuleList([nn.Linear(5, 5) for _ in calls])
        self.once = nn.ModuleList([MODULES[name]() for name, _ in calls])
        self.again = nn.ModuleDict({name: MODULES[name]() for name in MODULES})
        self.bound = F.relu

    def forward(self, x: Tensor) -> Tensor:
        for i, (name, spelling) in enumerate(self.calls):
            z = self.linears[i](x)
            match spelling:
                case "module":
                    x = self.once[i](z)
                case "shared":
                    x = self.again[name](z)
                case "function":
                    x = getattr(F, name)(z)
                case "inplace":
                    x = getattr(F, name)(z, inplace=True) + z  # twice the same value
                case "torch":
                    x = getattr(torch, name)(z) + 0.1 * z
                case "method":
                    x = getattr(z, name)()
                case "method_":
                    getattr(z, f"{name}_")()
                    x = z
                case _:
                    x = self.bound(input=z)
        return x


@st.composite
def spelled(draw: st.DrawFn) -> list[tuple[str, str]]:
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(sorted(MODULES)))
        spellings = ["module", "shared", "function"]
        spellings += ["inplace"] if name in IN_PLACE else []
        spellings += ["torch", "method", "method_"] if name in ("relu", "sigmoid", "tanh") else []
        spellings += ["bound"] if name == "relu" else []
        calls.append((name, draw(st.sampled_from(spellings))))
    return calls


@given(spelled(), st.booleans())
@example([("relu", "bound")], False)
@settings(max_examples=40, deadline=None)
def test_every_spelling_is_found_and_the_function_kept(calls: list[tuple[str, str]], by_run: bool) -> None:
    torch.manual_seed(0)
    net, x = Spelled(calls), torch.randn(6, 5)
    chosen = smx.select(net, pool=list(MODULES), example_input=x if by_run else None, include="*")
    order: list[nn.Module] = []
    for path in selectives(chosen):
        chosen.get_submodule(path).register_forward_pre_hook(lambda part, _: order.append(part))
    chosen(x)
    assert len(order) == len(set(order)) == len(calls)
    for layer, (name, _) in zip(list(order), calls, strict=True):
        favour(layer, name)
    assert same(net, chosen, x)
    assert same(net, smx.commit(chosen), x)
    assert [key for key in chosen.state_dict() if not key.endswith("logits")] == list(net.state_dict())
    assert isinstance(chosen, Spelled)


def test_a_rewritten_network_is_compiled_and_traced_in_both_modes() -> None:
    net = smx.commit(smx.select(Functional(), example_input=EXAMPLE))
    for mode in (True, False):
        compiled = torch.compile(net.train(mode), backend="eager", fullgraph=True)
        torch.manual_seed(0)
        expected = net(EXAMPLE)
        torch.manual_seed(0)
        torch.testing.assert_close(compiled(EXAMPLE), expected)
        graph = torch.export.export(net, (EXAMPLE,)).graph
        assert ("0.5, True" in str(graph)) == mode  # the arguments of dropout


class Functional(nn.Module):
    """A small CNN as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 9, 3)
        self.norm = nn.BatchNorm2d(9)
        self.fc1 = nn.Linear(9, 12)
        self.fc2 = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.norm(self.conv2(x)), inplace=True)
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        x = F.dropout(x, 0.5, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_dropout_follows_the_mode_and_copies_keep_it() -> None:
    """A traced forward holds the value that self.training had; there is one for each mode."""
    torch.manual_seed(0)
    chosen = smx.select(Functional().eval(), example_input=EXAMPLE)
    assert not any(part.training for part in chosen.modules())
    for net in (chosen, copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen)), smx.commit(chosen)):
        assert type(net).__name__ == "Functional"
        net.eval()
        assert torch.equal(net(EXAMPLE), net(EXAMPLE))
        for part in net.modules():
            part.training = part is net  # neither noise nor BatchNorm's batches, but dropout
        assert not torch.equal(net(EXAMPLE), net(EXAMPLE))
        net.load_state_dict(copy.deepcopy(net.state_dict()))


def block() -> nn.Module:
    """Return ResNet's block in small: one ReLU, used twice, and in place."""
    convs = {f"conv{i}": nn.Conv2d(4, 4, 3, padding=1) for i in (1, 2)}
    return Net(lambda net, x: net.relu(net.conv2(net.relu(net.conv1(x))) + x), **convs, relu=nn.ReLU(inplace=True))


def test_a_module_used_twice_becomes_two_and_a_block_used_twice_stays_one() -> None:
    a = block()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net = nn.Sequential(OrderedDict(stem=nn.Conv2d(1, 4, 1), act=nn.ReLU(), a=a, b=block(), c=a, head=head))
    for given_example in (EXAMPLE, None):
        chosen = smx.select(net, example_input=given_example)
        paths = ["act", "a.relu", "a.relu_1", "b.relu", "b.relu_1"]
        assert selectives(chosen) == dict.fromkeys(paths, 4)
        assert chosen.a is chosen.c
        assert same(net, favour(chosen, "relu"), EXAMPLE)
        assert same(net, smx.commit(chosen), EXAMPLE)


def test_a_users_graph_module_is_rewritten_as_a_graph() -> None:
    net = fx.symbolic_trace(nn.Sequential(Functional().eval(), nn.Linear(3, 2)))
    chosen = smx.select(net, example_input=EXAMPLE)
    assert selectives(chosen) == {"relu": 6, "relu_1": 9, "relu_2": 12}
    favour(chosen, "relu")
    for copied in (chosen, copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen)), smx.commit(chosen)):
        assert same(net, copied, EXAMPLE)


@pytest.mark.parametrize("activation", ["relu", "gelu", F.relu, F.gelu, nn.ReLU()])
@pytest.mark.parametrize("padded", [False, True])
def test_pytorchs_transformer_encoder(activation: Any, padded: bool) -> None:
    """Its layers have a function as attribute, or a module; its fast paths compute neither."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True)
    net, x = nn.TransformerEncoder(layer, 2), torch.randn(3, 5, 8)
    inputs: tuple[Any, ...] = (x, None, torch.arange(5) >= torch.tensor([[5], [3], [4]])) if padded else (x,)
    chosen = smx.select(net, pool=("elu", "relu", "gelu"), example_input=inputs)
    assert selectives(chosen) == {"layers.0.activation": 16, "layers.1.activation": 16}
    assert selectives(chosen) == selectives(smx.select(net))
    name = "gelu" if activation in ("gelu", F.gelu) else "relu"
    valid = ~inputs[2] if padded else ...
    other = smx.commit(favour(copy.deepcopy(chosen), "elu"))
    like_net = favour(chosen, name)
    for kept, same_as in ((like_net, net), (smx.commit(chosen), net), (other, copy.deepcopy(other))):
        with torch.no_grad():
            got = kept.eval()(*inputs)
        expected = same_as.train()(*inputs)  # nothing is dropped, and no fast path taken
        torch.testing.assert_close(got[valid], expected[valid], atol=1e-5, rtol=1e-4)
    F.mse_loss(chosen.train()(x), x).backward()  # type: ignore[no-untyped-call]
    assert all(layer.logits.grad.abs().sum() > 0 for layer in chosen.modules() if isinstance(layer, smx.Selective))  # type: ignore[union-attr]


def test_pytorchs_transformer_decoder_keeps_its_activations_in_copies() -> None:
    """PyTorch puts ReLU in the place of an activation module when it copies such a layer."""
    net = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
    inputs = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    chosen = favour(smx.select(net, pool=("elu", "gelu"), example_input=inputs), "gelu")
    for kept in (chosen, copy.deepcopy(chosen), smx.commit(chosen), pickle.loads(pickle.dumps(smx.commit(chosen)))):
        assert same(net, kept, *inputs)


def test_types_narrow_functions_too() -> None:
    def gated(net: Any, x: Tensor) -> Any:
        return net.swish(F.relu(net.value(x)) * torch.sigmoid(net.gate(x)))

    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.sigmoid()

    x, net = torch.randn(2, 3), Net(gated, value=nn.Linear(3, 4), gate=nn.Linear(3, 4), swish=Swish())
    for options, paths in (
        ({}, ["swish.silu", "relu", "sigmoid"]),
        ({"types": (nn.ReLU,)}, ["relu"]),
        ({"types": (nn.ReLU, nn.Sigmoid)}, ["swish.sigmoid", "relu", "sigmoid"]),
        ({"types": (nn.ReLU, Swish)}, ["swish", "relu"]),
    ):
        assert list(selectives(smx.select(net, example_input=x, include="*", **options))) == paths


def test_modes_dtypes_hooks_and_random_numbers_stay() -> None:
    net = Functional().double()
    net.norm.eval()
    net.fc1.requires_grad_(False)
    seen: list[str] = []
    net.conv2.register_forward_hook(lambda part, inputs, output: seen.append("conv2"))
    net.register_forward_hook(lambda part, inputs, output: seen.append("net"))
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    pool = [smx.Activation("one", F.relu)]
    smx.select(net, pool, example_input=EXAMPLE.double())
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    for width in (6, 9, 12):
        smx.Selective(width, pool)
    assert torch.equal(drawn, torch.get_rng_state())
    chosen = smx.select(net, pool, example_input=EXAMPLE.double())
    seen.clear()
    assert chosen(EXAMPLE.double()).dtype == torch.float64
    assert seen == ["conv2", "net"]
    kept = {path: value for path, value in chosen.state_dict().items() if "logits" not in path}
    assert all(torch.equal(value, before[path]) for path, value in kept.items() if "num_batches" not in path)
    assert {p for p, part in chosen.named_modules() if not part.training} == {"norm"}
    assert {p for p, value in chosen.named_parameters() if not value.requires_grad} == {"fc1.weight", "fc1.bias"}


@pytest.mark.parametrize(("name", "layers", "left"), [("resnet18", 17, 5), ("mobilenet_v2", 35, 17)])
@pytest.mark.long
def test_torchvisions_networks(name: str, layers: int, left: int, tmp_path: Path) -> None:
    """Select, train, commit, train, export in both layouts, verify; sort.

    All layers can be sorted but those that share an order: a trunk's second one, a depthwise Conv's second side.
    """
    import_datasets()  # lets torchvision be imported beside any torch
    import torchvision

    torch.manual_seed(0)
    plain = getattr(torchvision.models, name)(weights=None, num_classes=10)
    x, y = torch.randn(4, 3, 64, 64), torch.randint(10, (4,))
    pool: tuple[str | Activation, ...] = (*smx.PAPER_POOL, Activation("relu6", F.relu6))
    net = smx.select(plain, pool, example_input=x)
    assert len(selectives(net)) == layers
    assert same(plain, favour(net, "relu" if name == "resnet18" else "relu6"), x)
    net = smx.select(plain, example_input=x)
    for phase in (1, 2):
        optimizer = torch.optim.SGD(net.parameters(), 0.02)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        if phase == 1:
            assert all(part.logits.grad is not None for part in net.modules() if isinstance(part, smx.Selective))
            net = smx.commit(net)
    assert losses[-1] < losses[0]
    net.eval()
    exact = copy.deepcopy(net).double()

    @torch.no_grad()
    def reference(x: NDArray[Any]) -> Any:
        return exact(torch.from_numpy(x).double()).numpy()

    for layout in ("scatter", "sorted"):
        report = export_onnx(net, path := tmp_path / f"{layout}.onnx", example_input=x, layout=layout)
        assert check_parity(reference, Session(path), {"x": x.numpy()}, batch_sizes=(1, len(x))).passed
    refusals = smx.sorting.refusals(net, example_input=x)
    assert (len(report.layers), len(refusals)) == (layers, left)
    assert set(refusals.values()) == {"it shares the order of a larger layer"}
    assert len(report.refusals("LowerToSorted")) <= left
    torch.testing.assert_close(smx.sort(exact)(x.double()), exact(x.double()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "size", "axis"), [("mobilenet_v3_small", 64, 1), ("swin_t", 64, -1)])
def test_torchvisions_gates_are_left(name: str, size: int, axis: int) -> None:
    import_datasets()
    import torchvision

    net = getattr(torchvision.models, name)(weights=None)
    parts = list(net.modules())
    gates = sum(isinstance(part, torchvision.ops.SqueezeExcitation) for part in parts)
    plan = smx.plan(net, example_input=torch.randn(2, 3, size, size))
    assert len(plan.left) == gates == (9 if axis == 1 else 0)
    assert len(plan.selected) == sum(isinstance(part, ACTIVATION_MODULES) for part in parts) - gates
    assert {row.dim for row in plan.selected if not row.path.startswith("classifier")} == {axis}


def test_the_wrong_kind_of_thing_is_told() -> None:
    api: Any = smx
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    selected = api.select(net, types=nn.ReLU)
    assert isinstance(selected[1], smx.Selective)
    for call, said in (
        (lambda: api.select("model.pt"), r"must be a torch\.nn\.Module, got str 'model\.pt'; smx\.load reads"),
        (lambda: api.commit(nn.Sequential), r"must be a torch\.nn\.Module, got the class Sequential"),
        (lambda: api.sort([net]), r"must be a torch\.nn\.Module, got list"),
        (lambda: api.select(net, types=[nn.ReLU()]), r"types are classes of modules .*, got ReLU\(\)"),
        (lambda: api.select(selected), "no activation to select; its neurons have activations of their own already"),
        (lambda: api.select(api.commit(selected)), "its neurons have activations of their own already"),
        (lambda: api.Selective(4)(torch.ones(2, 4, dtype=torch.int64)), r"expects floating values, got torch\.int64"),
    ):
        with pytest.raises(ValueError, match=said):
            call()  # type: ignore[no-untyped-call]
