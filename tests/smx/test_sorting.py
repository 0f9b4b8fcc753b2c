"""`smx.sort`: which layers can be sorted, and that the function stays what it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import smx
from smx.data.torchvision_sets import import_datasets
from smx.export import export_onnx
from smx.sorting import refusals
from tests import reference
from tests.export.test_random_networks import Residual, networks


def some(neurons: int, dim: int = 1, seed: int = 0) -> smx.Mixed:
    return smx.Mixed(torch.randint(6, (neurons,), generator=torch.Generator().manual_seed(seed)), dim=dim)


def choices(net: nn.Module) -> dict[str, list[int]]:
    return {name: layer.choice.tolist() for name, layer in net.named_modules() if isinstance(layer, smx.Mixed)}


def is_sorted(choice: list[int]) -> bool:
    return choice == sorted(choice)


def outputs_and_gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(x.is_floating_point())
    y = net(x)
    if x.is_floating_point():
        y.square().sum().backward()
    return y.detach(), x.grad if x.grad is not None else torch.zeros(())


def agree(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * max(1.0, float(a.detach().abs().max())))


def sorted_alike(net: nn.Module, x: Tensor, example: Tensor | None) -> tuple[nn.Module, dict[str, str]]:
    """Sort a network, hold the result against it, and return it with the reasons of the layers that are left."""
    net = net.double()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(-1, 1) if isinstance(tensor, nn.Parameter) else tensor.uniform_(0.5, 1.5)
    before = copy.deepcopy(net.state_dict())
    result = smx.sort(net, example_input=example)
    reasons = refusals(net, example_input=example)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {key: value.shape for key, value in result.state_dict().items()} == {
        key: value.shape for key, value in before.items()
    }
    for name, choice in choices(result).items():
        assert is_sorted(choice) != (name in reasons), (name, choice, reasons)
        assert sorted(choice) == sorted(choices(net)[name])
    assert all(reasons.values())
    assert refusals(result, example_input=example) == reasons
    again = smx.sort(result, example_input=example)
    assert all(torch.equal(value, result.state_dict()[key]) for key, value in again.state_dict().items())
    for expected, got in zip(*(outputs_and_gradient(part.eval(), x) for part in (net, result)), strict=True):
        agree(expected, got)
    return result, reasons


def trains_alike(net: nn.Module, result: nn.Module, x: Tensor) -> None:
    """Hold two steps of training, of the sorted network and of the other one, against each other."""
    outputs = []
    for part in (net, result):
        part.train()
        for layer in part.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # what it drops it draws by position
        optimizer = torch.optim.SGD(part.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            part(x).square().mean().backward()
            optimizer.step()
        outputs.append((part(x).detach(), part.eval()(x).detach()))
    for expected, got in zip(*outputs, strict=True):
        torch.testing.assert_close(expected, got, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=networks(), given_example=st.booleans())
def test_random_networks_stay_what_they_are(drawn: tuple[nn.Module, tuple[int, ...]], given_example: bool) -> None:
    net, shape = drawn
    assume(choices(net))
    x = torch.randn(4, *shape, dtype=torch.float64)
    result, reasons = sorted_alike(net, x, x if given_example else None)
    if given_example:
        assert all("shares the order" in reason or "input of the module" in reason for reason in reasons.values())
    trains_alike(net, result, x)


class Body(nn.Module):
    """A first layer, what a permutation has to get through, and a last layer."""

    def __init__(self, first: nn.Module, mixed: smx.Mixed, through: Callable[..., Tensor], last: nn.Module) -> None:
        super().__init__()
        self.first, self.mixed, self.last = first, mixed, last
        if isinstance(through, nn.Module):
            self.through = through
        else:
            self.function = (through,)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mixed(self.first(x))
        return self.last(self.through(h) if hasattr(self, "through") else self.function[0](h))  # type: ignore[no-any-return]


def flat(through: Callable[..., Tensor], out: int = 12) -> tuple[nn.Module, Tensor]:
    """12 neurons, (B, 12), then something, then a Linear of `out` features."""
    return Body(nn.Linear(3, 12), some(12), through, nn.Linear(out, 2)), torch.randn(4, 3)


def image(through: Callable[..., Tensor], out: int = 12 * 36) -> tuple[nn.Module, Tensor]:
    """12 channels, (B, 12, 6, 6), then something that leaves `out` features, then a Linear."""
    last = nn.Sequential(nn.Flatten(), nn.Linear(out, 2))
    return Body(nn.Conv2d(3, 12, 3, padding=1), some(12), through, last), torch.randn(4, 3, 6, 6)


def tokens(through: Callable[..., Tensor], out: int = 12) -> tuple[nn.Module, Tensor]:
    """12 neurons for each of 5 tokens, (B, 5, 12), then something, then a Linear of `out` features."""
    return Body(nn.Linear(3, 12), some(12, -1), through, nn.Linear(out, 2)), torch.randn(4, 5, 3)


class Scaled(nn.Module):
    """A plain parameter, one number a channel."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x))


def attention() -> nn.Module:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    return Attention()


class Case(NamedTuple):
    name: str
    network: Callable[[], tuple[nn.Module, Tensor]]
    reason: str = ""


MOVES = [
    Case("BatchNorm", lambda: flat(nn.BatchNorm1d(12))),
    Case("LayerNorm", lambda: flat(nn.LayerNorm(12))),
    Case("RMSNorm", lambda: flat(nn.RMSNorm(12))),
    Case("PReLU", lambda: flat(nn.PReLU(12))),
    Case("Dropout", lambda: flat(nn.Sequential(nn.Dropout(0.3), nn.AlphaDropout(0.3)))),
    Case("a parameter", lambda: flat(Scaled(12))),
    Case("in-place", lambda: flat(lambda h: h.clone().mul_(2.0).add_(1.0).clamp_(-1, 3))),
    Case("functions", lambda: flat(lambda h: torch.where(h > 0, F.gelu(h), h.exp()) / (1 + h.abs()).rsqrt())),
    Case("Softmax", lambda: flat(lambda h: h.softmax(1) + h.log_softmax(-1))),
    Case("matmul by the transposed", lambda: flat(lambda h: h @ h.T @ h)),
    Case("einsum", lambda: flat(lambda h: torch.einsum("bi,ci,cj->bj", h, h, h))),
    Case("a residual sum", lambda: flat(Residual(nn.Linear(12, 12), some(12), nn.Linear(12, 12)))),
    Case("concatenation", lambda: flat(lambda h: torch.cat([h, h.sin(), h[:, :0]], 1), 24)),
    Case("stack", lambda: flat(lambda h: torch.stack([h, h.cos()], 1).sum(1) + torch.stack([h, h]).unbind()[0])),
    Case("expand", lambda: flat(lambda h: h.unsqueeze(1).expand(-1, 7, -1).mean(1))),
    Case("standardised", lambda: flat(lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True))),
    Case("norms", lambda: flat(lambda h: h / h.norm(dim=1, keepdim=True) + h.amax(1, keepdim=True) + h.max())),
    Case("noise", lambda: flat(lambda h: h + 0.0 * torch.randn_like(h) + torch.zeros_like(h) + h.new_ones(12))),
    Case("Conv and depthwise", lambda: image(nn.Conv2d(12, 12, 3, padding=1, groups=12))),
    Case("depthwise, 3 a channel", lambda: image(nn.Conv2d(12, 36, 3, padding=1, groups=12), 36 * 36)),
    Case("transposed Conv", lambda: image(nn.ConvTranspose2d(12, 7, 3, padding=1), 7 * 36)),
    Case("depthwise, transposed", lambda: image(nn.ConvTranspose2d(12, 24, 3, padding=1, groups=12), 24 * 36)),
    Case("InstanceNorm", lambda: image(nn.InstanceNorm2d(12, affine=True, track_running_stats=True))),
    Case("GroupNorm, one group", lambda: image(nn.GroupNorm(1, 12))),
    Case("GroupNorm, each for itself", lambda: image(nn.GroupNorm(12, 12))),
    Case("pooling", lambda: image(nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.AdaptiveMaxPool2d(1)), 12)),
    Case("positions of pooling", lambda: image(lambda h: torch.add(*F.max_pool2d(h, 2, return_indices=True)), 12 * 9)),
    Case("global mean", lambda: image(lambda h: h.mean((2, 3)), 12)),
    Case("resizing", lambda: image(nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)))),
    Case("padding", lambda: image(nn.Sequential(nn.ZeroPad2d(1), nn.ReflectionPad2d(2), nn.AvgPool2d(2)), 12 * 36)),
    Case("Dropout2d", lambda: image(nn.Dropout2d(0.3))),
    Case("a parameter of channels", lambda: image(Scaled(12, 1, 1))),
    Case("a gate", lambda: image(Gated())),
    Case("channels last", lambda: image(lambda h: h.permute(0, 2, 3, 1).movedim(-1, 1))),
    Case("view", lambda: image(lambda h: h.view(4, 12, 36).transpose(1, 2).transpose(2, 1).unflatten(2, (6, 6)))),
    Case("tokens", lambda: tokens(nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 12), some(12, -1, 1)))),
    Case("attention", lambda: tokens(attention())),
    Case("mean over tokens", lambda: tokens(lambda h: h.mean(1) + h[:, 0] + h.max(1).values)),
]  # fmt: skip

OWN = torch.randn(12)

STAYS = [
    Case("a sum with the input", lambda: (Residual(nn.Linear(12, 12), some(12)), torch.randn(4, 12)), "an input"),
    Case("an output", lambda: (nn.Sequential(nn.Linear(3, 12), some(12)), torch.randn(4, 3)), "it is an output"),
    Case("cumsum", lambda: flat(lambda h: h.cumsum(1)), "cumsum depends on the order"),
    Case("flip", lambda: flat(lambda h: h.flip(1)), "flip depends on the order"),
    Case("every second one", lambda: flat(lambda h: h[:, ::2], 6), "slice depends on the order"),
    Case("one of them", lambda: flat(lambda h: h * h[:, 3:4] * h[:, 3].unsqueeze(1)), "select depends on the order"),
    Case("the largest's place", lambda: flat(lambda h: h * h.argmax(1, keepdim=True)), "argmax depends on the order"),
    Case("an extreme's place", lambda: flat(lambda h: h * h.max(1, keepdim=True).indices), "max depends on the order"),
    Case("indices", lambda: flat(lambda h: h[:, [3, 1, 2]], 3), "index depends on the order"),
    Case("arange", lambda: flat(lambda h: h * torch.arange(12.0, dtype=h.dtype)), "arange depends on the order"),
    Case("written in part", lambda: flat(lambda h: h.index_fill(1, torch.tensor([2]), 0.0)), "index_fill depends"),
    Case("half of them", lambda: flat(lambda h: h.chunk(2, 1)[0], 6), "its neurons come from several layers"),
    Case("written in place", lambda: flat(lambda h: h.narrow(1, 2, 5).zero_() @ h[:, 2:7].T @ h), "several layers"),
    Case("a gated unit", lambda: flat(nn.GLU(), 6), "its neurons come from several layers"),
    Case("split in two ways", lambda: flat(lambda h: h[:, :5] + h[:, 4:9], 5), ""),
    Case("a grouped Conv", lambda: image(nn.Conv2d(12, 12, 1, groups=3)), "several channels in a group"),
    Case("GroupNorm of groups", lambda: image(nn.GroupNorm(3, 12)), "group_norm depends on the order"),
    Case("PixelShuffle", lambda: image(nn.PixelShuffle(2)), "depends on the order"),
    Case("cumsum of positions", lambda: image(lambda h: h.flatten(1).cumsum(1)), "cumsum depends on the order"),
    Case("a look at values", lambda: flat(lambda h: h if h.sum() > 0 else -h), "the dry run ended in RuntimeError"),
    Case("a tensor of its own", lambda: flat(lambda h: h * OWN), "the dry run ended in"),
]  # fmt: skip


@pytest.mark.parametrize("case", MOVES, ids=lambda case: case.name)
def test_permutations_move_through_what_keeps_channels_apart(case: Case) -> None:
    torch.manual_seed(0)
    net, x = case.network()
    x = x.double()
    result, reasons = sorted_alike(net, x, x)
    assert is_sorted(choices(result)["mixed"])
    assert "mixed" not in reasons
    if case.name not in ("noise", "positions of pooling"):  # one is drawn, the others jump where rounding decides
        for part in (net, result):
            for layer in part.modules():
                if isinstance(layer, nn.AlphaDropout | nn.Dropout2d):
                    layer.p = 0.0
        trains_alike(net, result, x)


@pytest.mark.parametrize("case", STAYS, ids=lambda case: case.name)
def test_what_looks_at_the_order_keeps_it(case: Case) -> None:
    torch.manual_seed(0)
    net, x = case.network()
    x = x.double()
    result, reasons = sorted_alike(net, x, x)
    assert len(reasons) == 1
    assert case.reason in next(iter(reasons.values()))
    if "several layers" not in case.reason and case.reason:
        assert choices(result) == choices(net)


def two_sizes(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), some(8), nn.MaxPool2d(2), *middle, nn.Flatten(), nn.Linear(8 * 9, 2)
    )


def test_the_larger_layer_decides_where_an_order_is_shared() -> None:
    """The stem, of 36 values a channel, and the trunk after it, of 9, share the residual sum's order."""
    branch = Residual(nn.Conv2d(8, 8, 1), some(8, seed=1), nn.Conv2d(8, 8, 1))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    result, reasons = sorted_alike(two_sizes(branch, some(8, seed=2)), x, x)
    assert reasons == {"4": "it shares the order of a larger layer"}
    stem, trunk = choices(result)["1"], choices(result)["4"]
    pairs = list(zip(stem, trunk, strict=True))
    assert pairs == sorted(pairs)  # sorted within the groups of the stem


def test_what_is_sorted_already_does_not_change() -> None:
    net = nn.Sequential(nn.Linear(3, 6), smx.Mixed([0, 0, 1, 2, 2, 5]), nn.Linear(6, 4), smx.Mixed([3] * 4))
    result = smx.sort(net, example_input=torch.zeros(1, 3))
    assert result is not net
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in result.state_dict().items())
    assert refusals(net, example_input=torch.zeros(1, 3)) == {}
    assert refusals(net) == {}


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder, used twice; its neurons are not tied to its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 9)
        self.mixed = some(9)
        self.decoder = nn.Linear(9, 5)
        self.again = nn.Linear(5, 9, bias=False)
        self.again.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.mixed(self.encoder(x)), self.encoder.weight.t())
        return self.decoder(self.mixed(self.again(x)))  # type: ignore[no-any-return]


def test_weights_and_layers_that_are_used_twice_agree() -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    result, reasons = sorted_alike(Tied(), x, x)
    assert not reasons
    assert result.again.weight is result.encoder.weight  # type: ignore[union-attr]


def test_a_shared_weight_whose_uses_do_not_agree_is_pinned() -> None:
    """Hidden to hidden, with weights that the inputs go through as well: columns keep their order, so rows must too."""
    linear = nn.Linear(6, 6)
    net = nn.Sequential(linear, some(6), linear, some(6, seed=1), nn.Linear(6, 2))
    x = torch.randn(4, 6, dtype=torch.float64)
    result, reasons = sorted_alike(net, x, x)
    assert choices(result) == choices(net)
    assert set(reasons.values()) == {"it is an input of the module"}


def test_weights_in_one_memory_are_pinned() -> None:
    memory = torch.randn(7, 4, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 5), some(5), nn.Linear(5, 4), nn.Linear(4, 5), some(5), nn.Linear(5, 2)).double()
    for linear, weight in ((net[0], memory[:5]), (net[3], memory[2:])):
        assert isinstance(linear, nn.Linear)
        linear.weight = nn.Parameter(weight)
    assert set(refusals(net, example_input=torch.zeros(1, 4).double()).values()) == {"a weight shares its memory with another one"}


class Training(nn.Module):
    """Trains with another head than it answers with, and has a layer that nothing comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unused = nn.Sequential(nn.Linear(3, 8), some(8)), some(4)
        self.body = nn.Sequential(nn.Linear(8, 8), some(8, seed=1))
        self.head, self.aux = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        h = self.stem(x)
        main = self.head(self.body(h))
        return {"main": main, "aux": self.aux(h.cumsum(1))} if self.training else main


def test_what_only_training_does_counts() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    result, reasons = sorted_alike(Training(), x, x)
    assert reasons == {"stem.1": "cumsum depends on the order", "unused": "the dry run does not come to it"}
    assert is_sorted(choices(result)["body.1"])


class Answer:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), some(8))

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.body(x))


def test_an_output_that_can_not_be_seen_through_is_refused() -> None:
    assert refusals(Wrapped(), example_input=torch.zeros(1, 3)) == {
        "body.1": "the dry run ended in TypeError: the module returns a Answer, which can't be seen through"
    }


class Leaves(fx.Tracer):
    """Keeps mixed layers whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, smx.Mixed) or super().is_leaf_module(m, module_qualified_name)


def test_a_graph_module_is_sorted_like_any_other() -> None:
    net, x = image(nn.Conv2d(12, 12, 3, padding=1, groups=12))
    graph = fx.GraphModule(net, Leaves().trace(net))
    result, reasons = sorted_alike(graph, x.double(), x.double())
    assert isinstance(result, fx.GraphModule)
    assert not reasons


def test_embeddings_and_several_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.mixed, self.head = nn.Embedding(7, 9), some(9, -1), nn.Linear(9, 2)

        def forward(self, words: Tensor, weights: Tensor) -> Tensor:
            return self.head((self.mixed(self.embedding(words)) * weights.unsqueeze(-1)).mean(1))  # type: ignore[no-any-return]

    net, inputs = Net().double(), (torch.randint(7, (4, 5)), torch.randn(4, 5, dtype=torch.float64))
    result = smx.sort(net, example_input=inputs)
    assert refusals(net, example_input=inputs) == {}
    assert is_sorted(choices(result)["mixed"])
    agree(net(*inputs), result(*inputs))


@pytest.mark.parametrize("batch_first", [False, True])
def test_pytorchs_transformer_layers(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=batch_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(3, 5, 8)
    net = smx.select(encoder, example_input=x)
    for part in net.modules():
        if isinstance(part, smx.Selective):
            nn.init.normal_(part.logits)
    net = smx.commit(net)
    result, reasons = sorted_alike(net, x.double(), x.double())
    assert len(choices(net)) == 2
    assert not reasons
    trains_alike(net, result, x.double())


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 9), some(9), nn.Linear(9, 2)),
        nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), some(6), nn.Flatten(), nn.Linear(6 * 10, 2)),
        nn.Sequential(nn.Conv2d(3, 6, 5, 2), some(6), nn.Conv2d(6, 9, 1), some(9), nn.Flatten(), nn.Linear(9 * 25, 2)),
        nn.Sequential(nn.Conv3d(1, 6, 1), some(6), nn.AdaptiveAvgPool3d(1), nn.Flatten(1), nn.Linear(6, 2)),
    ],
    ids=["mlp", "conv1d", "conv2d", "conv3d"],
)
def test_no_example_is_needed_where_the_first_layer_tells(net: nn.Module) -> None:
    shape = {"Flatten": (4, 3, 4), "Conv1d": (4, 2, 12), "Conv2d": (4, 3, 13, 13), "Conv3d": (4, 1, 2, 3, 4)}
    x = torch.randn(shape[type(net[0]).__name__], dtype=torch.float64)  # type: ignore[index]
    _, reasons = sorted_alike(net, x, None)
    assert not reasons


def test_where_no_example_fits_one_must_be_given() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), some(6), nn.Flatten(), nn.Linear(6 * 4 * 7, 2))
    assert refusals(net) == {"1": "no input is known that the module takes; give example_input"}
    assert choices(smx.sort(net)) == choices(net)
    assert refusals(net, example_input=torch.zeros(1, 3, 4, 7)) == {}


def test_wrong_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no Mixed layer to sort; smx\.commit makes them"):
        smx.sort(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"1 is a Selective layer; fix the choices first, with smx\.commit"):
        smx.sort(nn.Sequential(some(4), smx.Selective(4)))


@pytest.mark.parametrize(("name", "layers", "left"), [("resnet18", 17, 5), ("mobilenet_v2", 35, 17)])
def test_torchvisions_networks(name: str, layers: int, left: int) -> None:
    """All layers are sorted but those that share an order: a trunk's second one, a depthwise Conv's second side."""
    import_datasets()  # lets torchvision be imported beside any torch
    import torchvision

    torch.manual_seed(0)
    x = torch.randn(2, 3, 48, 48)
    net = smx.select(getattr(torchvision.models, name)(weights=None), example_input=x)
    for part in net.modules():
        if isinstance(part, smx.Selective):
            nn.init.normal_(part.logits)
    net = smx.commit(net).eval().double()
    result, reasons = smx.sort(net, example_input=x.double()), refusals(net, example_input=x.double())
    assert (len(choices(net)), len(reasons)) == (layers, left)
    assert set(reasons.values()) == {"it shares the order of a larger layer"}
    assert [name for name, choice in choices(result).items() if not is_sorted(choice)] == list(reasons)
    with torch.no_grad():
        expected, got = net(x.double()), result(x.double())
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))
    assert not torch.equal(got, expected)  # summed in another order


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_the_export_of_a_sorted_module_is_the_same_function(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = two_sizes(Residual(nn.Conv2d(8, 8, 1), some(8, seed=1), nn.Conv2d(8, 8, 1)), some(8, seed=2)).eval()
    x = torch.randn(5, 3, 6, 6)
    result: Any = smx.sort(net, example_input=x)
    export_onnx(result, tmp_path / "m.onnx", example_input=x, layout=layout)
    got = reference.evaluate_onnx(str(tmp_path / "m.onnx"), input=x.numpy())
    np.testing.assert_allclose(got, net(x).detach().numpy(), atol=1e-5, rtol=1e-4)
