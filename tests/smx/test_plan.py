"""`smx.plan`: which activations are selected, on which axis their neurons are, and why others are left."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic as quantized
from torch.nn.utils import parametrizations, prune

import smx
from smx.convert.hidden import FORMULA, GATE, OUTPUT, PRELU, RECURRENCE, RRELU, WEIGHTS
from smx.convert.table import UNCALLED
from tests.smx.everyday import GPT2, LSTM, Conv1D, Gated, NewGELU, Shapes, SqueezeExcite, UNet
from tests.smx.selected import Net, favour, same, selectives

ROOT = Path(__file__).parents[2]
Found = dict[str, tuple[int, int]]


def found(plan: Any) -> Found:
    """Return the neurons and the axes of what is selected."""
    return {row.path: (row.neurons, row.dim) for row in plan.selected}


def matrix(net: Any, x: Tensor) -> Any:
    return net.last(F.relu(x @ net.w))


def on_the_left(net: Any, x: Tensor) -> Any:
    return net.last(F.relu(net.w.T @ x.transpose(1, 2)).transpose(1, 2))


def sums(net: Any, x: Tensor) -> Any:
    return net.last(F.relu(torch.einsum("bti,io->bto", x, net.w)))


def heads(net: Any, x: Tensor) -> Any:
    x = (x @ net.w).unflatten(-1, (4, 4)).transpose(1, 2)
    return net.last(F.relu(x.transpose(1, 2).flatten(2)))


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def tokens(layer: nn.Module, outputs: int = 16) -> nn.Module:
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(outputs, 2))


def weighted(forward: Callable[[Any, Tensor], Any]) -> nn.Module:
    return Net(forward, w=nn.Parameter(torch.randn(8, 16)), last=nn.Linear(16, 2))


@pytest.mark.parametrize(
    ("net", "shape", "neurons"),
    [
        (tokens(parametrizations.weight_norm(nn.Linear(8, 16))), (4, 10, 8), {"1": (16, -1)}),
        (tokens(parametrizations.spectral_norm(nn.Linear(8, 16))), (4, 10, 8), {"1": (16, -1)}),
        (tokens(OwnLinear(8, 16)), (4, 10, 8), {"1": (16, -1)}),
        (tokens(Conv1D(16, 8)), (4, 16, 8), {"1": (16, -1)}),  # as many tokens as neurons
        (weighted(matrix), (4, 10, 8), {"relu": (16, -1)}),
        (weighted(sums), (4, 10, 8), {"relu": (16, -1)}),
        (weighted(on_the_left), (4, 10, 8), {"relu": (16, -2)}),
        (weighted(heads), (4, 10, 8), {"relu": (16, -1)}),
        (
            nn.Sequential(nn.Conv1d(3, 7, 1), nn.GroupNorm(1, 7), nn.ReLU(), nn.Conv1d(7, 1, 1)),
            (2, 3, 7),
            {"2": (7, 1)},
        ),
        (nn.Sequential(nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 2)), (4, 3, 5), {"1": (1, -1)}),
        (
            nn.Sequential(nn.GRU(5, 6), Net(lambda net, x: net.l(F.relu(x[0])), l=nn.Linear(6, 1))),
            (4, 3, 5),
            {"1.relu": (6, -1)},
        ),
    ],
    ids=map(str, range(11)),
)
def test_the_axis_follows_from_the_operator(net: nn.Module, shape: tuple[int, ...], neurons: Found) -> None:
    x = torch.randn(shape)
    assert found(smx.plan(net, example_input=x)) == neurons
    chosen = smx.select(net, example_input=x)
    longer = torch.randn(3, 3, 9) if "GroupNorm" in str(net) else torch.randn(3, 14, shape[2])
    assert chosen(longer).shape == net(longer).shape
    assert same(net, favour(chosen, "tanh" if neurons == {"1": (1, -1)} else "relu"), longer)


def test_an_open_axis_is_said_and_dim_closes_it() -> None:
    """Both the tokens and the channels of a mixer's trunk come from layers."""

    def mixer(net: Any, x: Tensor) -> Any:
        x = net.embed(x)
        x = x + net.back(net.gelu(net.mix(x.transpose(1, 2)))).transpose(1, 2)
        return net.last(net.relu(x))

    layers = {"embed": nn.Linear(5, 8), "mix": nn.Linear(6, 12), "back": nn.Linear(12, 6), "last": nn.Linear(8, 2)}
    net, x = Net(mixer, **layers, gelu=nn.GELU(), relu=nn.ReLU()), torch.randn(2, 6, 5)
    with pytest.warns(UserWarning, match=r"left: relu at relu: the axis of its neurons is open .*; say dim=\{'relu'"):
        assert selectives(smx.select(net, example_input=x)) == {"gelu": 12}
    assert found(smx.plan(net, example_input=x, dim={"relu": -1})) == {"gelu": (12, -1), "relu": (8, -1)}
    assert found(smx.plan(net, example_input=x, dim={"relu": 1})) == {"gelu": (12, -1), "relu": (6, 1)}
    for wrong, message in (
        ({"rel": 1}, "dim names no activation"),
        ({"relu": 3}, r"must be an axis of its values \(2, "),
    ):
        with pytest.raises(ValueError, match=message):
            smx.plan(net, example_input=x, dim=wrong)


def test_an_axis_that_varies_is_never_the_neurons() -> None:
    """No operator with weights tells; another length does."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(8, 2))
    assert found(smx.plan(net, example_input=torch.randn(4, 10, 8))) == {"0": (8, -1)}


def test_outputs_are_left_and_bce_trains() -> None:
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    x = torch.randn(32, 4)
    torch.manual_seed(0)
    for example in (x, None):
        chosen = smx.select(net, example_input=example)
        assert selectives(chosen) == {"1": 16}
    optimizer = torch.optim.Adam(chosen.parameters(), 0.05)
    for _ in range(50):
        loss = F.binary_cross_entropy(chosen(x), (x[:, :1] > 0).float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.4


def test_every_output_counts() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        h = F.relu(net.trunk(x))
        return {"class": net.head(h), "score": (torch.sigmoid(net.second(h)), torch.tanh(net.second(h)).mean(1))}

    net = Net(forward, trunk=nn.Linear(3, 8), head=nn.Linear(8, 2), second=nn.Linear(8, 4))
    plan = smx.plan(net, example_input=torch.randn(4, 3))
    assert found(plan) == {"relu": (8, -1)}
    assert plan.left == {"sigmoid": OUTPUT, "tanh": OUTPUT}
    assert found(smx.plan(net, example_input=torch.randn(4, 3), include="tanh")) == {"relu": (8, -1), "tanh": (4, -1)}


@pytest.mark.parametrize(
    ("kind", "selected", "left"),
    [
        ("glu", [], ["sigmoid"]),
        ("swiglu", [], ["silu"]),
        ("halves", [], ["hardsigmoid"]),
        ("wavenet", [], ["tanh", "sigmoid"]),
        ("highway", ["relu"], ["sigmoid"]),
        ("lerp", ["relu"], ["sigmoid"]),
        ("mask", ["relu"], []),
    ],
)
def test_gates_are_left(kind: str, selected: list[str], left: list[str]) -> None:
    plan = smx.plan(Gated(kind), example_input=torch.randn(4, 4))
    assert [row.path for row in plan.selected] == selected
    assert plan.left == dict.fromkeys(left, GATE)


def test_a_squeeze_and_excite_block() -> None:
    plan = smx.plan(SqueezeExcite(), example_input=torch.randn(2, 3, 8, 8))
    assert found(plan) == {"act": (8, 1), "squeeze": (2, 1)}
    assert plan.left == {"gate": GATE}
    assert f"```\n{plan}\n```" in (ROOT / "docs" / "networks.md").read_text()


def test_a_unet() -> None:
    plan = smx.plan(UNet(), example_input=torch.randn(2, 1, 8, 8))
    assert found(plan) == {"relu": (4, 1), "relu_1": (6, 1), "relu_2": (4, 1)}
    assert plan.left == {"sigmoid": OUTPUT}


def test_gpt2() -> None:
    net, ids = GPT2(), torch.randint(11, (2, 16))
    plan = smx.plan(net, example_input=ids)
    assert str(plan) == (
        "path      call     activation  neurons  dim\nact.gelu  formula  gelu        32       -1   selected"
    )
    gelu = smx.Activation("tanh_gelu", lambda z: F.gelu(z, approximate="tanh"))
    chosen = smx.select(net, pool=[gelu], example_input=ids)
    for shape in ((2, 16), (3, 5), (1, 1)):
        assert same(net, chosen, torch.randint(11, shape))


@pytest.mark.parametrize("kind", ["five", "steps", "unbind", "rnn"])
def test_recurrences_are_left(kind: str) -> None:
    net = LSTM(kind)
    plan = smx.plan(net, example_input=torch.randn(2, 5, 3))
    assert found(plan) == {"relu": (8, -1)}
    called = [row for row in plan if row.left not in (None, UNCALLED)]
    assert {row.left for row in called} == {RECURRENCE}
    assert {row.activation for row in called} == ({"tanh"} if kind == "rnn" else {"tanh", "sigmoid"})
    if kind == "steps":  # a loop is no loop of five steps
        chosen = favour(smx.select(net, example_input=torch.randn(2, 5, 3)), "relu")
        assert same(net, chosen, torch.randn(3, 8, 3))


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: x / (1 + torch.exp(-x)), "silu"),
        (lambda x: x.sigmoid().mul(x), "silu"),
        (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
        (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
        (lambda x: x * 0.5 * (1 + torch.erf(x / torch.sqrt(torch.tensor(2.0)))), "gelu"),
        (NewGELU(), "gelu"),
        (lambda x: x * F.relu6(x + 3) / 6, "hardswish"),
        (lambda x: torch.sigmoid(x).mul_(x), "silu"),
        (lambda x: x.mul_(torch.sigmoid(x)), None),
        (lambda x: x.float().mul_(torch.sigmoid(x)), None),
        (lambda x: x * torch.sigmoid(1.702 * x), None),
        (lambda x: x + x * torch.sigmoid(x), "silu"),
        (lambda x: torch.sigmoid(x) * torch.sigmoid(x) * x, None),
    ],
)
def test_formulas_of_known_activations_are_selected_as_a_whole(formula: Any, name: str | None) -> None:
    net = Net(lambda net, x: net.b(net.f(net.a(x))), a=nn.Linear(3, 6), b=nn.Linear(6, 2), f=formula)
    x = torch.randn(4, 3)
    plan = smx.plan(net, example_input=x)
    if name is None:
        assert not plan.selected
        assert set(plan.left.values()) == {FORMULA}
        return
    assert [(row.path.removeprefix("f."), row.call, row.activation, row.neurons) for row in plan] == [
        (name, "formula", name, 6)
    ]
    chosen = smx.select(net, pool=["mish", "hardswish", "silu", "gelu"], example_input=x)
    tolerance = 1e-3 if isinstance(formula, NewGELU) else 1e-5  # the pool has the exact GELU
    torch.testing.assert_close(favour(chosen, name).eval()(x), net(x), atol=tolerance, rtol=1e-4)


def test_two_formulas_may_share_a_number() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        half = torch.tensor(0.5)
        a, b = net.a(x), net.b(x)
        return net.c(half * a * (1 + torch.erf(a * half.sqrt())) + half * b * (1 + torch.erf(b * half.sqrt()))) * half

    net, x = Net(forward, a=nn.Linear(3, 6), b=nn.Linear(3, 6), c=nn.Linear(6, 2)), torch.randn(4, 3)
    assert [row.call for row in smx.plan(net, example_input=x).selected] == ["formula", "formula"]
    chosen = smx.select(net, ("relu", "gelu"), example_input=x, start="gelu")
    torch.testing.assert_close(chosen.eval()(x), net(x))


def test_a_forward_that_reads_shapes_is_rewritten_and_bakes_none_of_them() -> None:
    net, x = Shapes(), torch.randn(2, 3, 6)
    plan = smx.plan(net, example_input=x)
    assert found(plan) == {"leaky_relu": (24, -1), "tanh": (24, -1), "elu": (24, -1)}
    leaky = smx.Activation("leaky", lambda z: F.leaky_relu(z, 0.2))
    chosen = favour(smx.select(net, pool=("tanh", "elu", leaky), example_input=x), "leaky", "tanh", "elu")
    for shape in ((2, 3, 6), (5, 7, 6), (1, 4, 6)):
        for kept in (chosen, copy.deepcopy(chosen), smx.commit(chosen)):
            assert same(net, kept, torch.randn(shape))
    pickled = pickle.loads(pickle.dumps(smx.select(net, example_input=x)))
    assert pickled(torch.randn(5, 7, 6)).shape == (5, 4, 2)
    with pytest.raises(AssertionError):
        chosen(torch.randn(2, 6))
    compiled = torch.compile(smx.commit(chosen), backend="eager")
    assert compiled(torch.randn(2, 9, 6)).shape == (2, 4, 2)


def test_prelu_and_rrelu_are_left() -> None:
    shared = nn.PReLU()
    parts = (nn.Linear(3, 4), shared, nn.Linear(4, 4), shared, nn.Linear(4, 5), nn.RReLU(), nn.Linear(5, 5), nn.ReLU6())
    net = nn.Sequential(*parts, nn.Linear(5, 1))
    x = torch.randn(4, 3)
    plan = smx.plan(net, example_input=x)
    assert plan.left == {"1": PRELU, "5": RRELU}
    chosen = smx.select(net, example_input=x)
    assert selectives(chosen) == {"7": 5}
    assert chosen[1] is chosen[3]  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({}, ["a.1", "b.1"]),
        ({"include": "b.3"}, ["a.1", "b.1", "b.3"]),
        ({"include": nn.Sigmoid}, ["a.1", "b.1", "b.3"]),
        ({"include": [torch.sigmoid], "exclude": "a"}, ["b.1", "b.3"]),
        ({"exclude": ["?.1"], "include": "*"}, ["b.3"]),
        ({"exclude": F.relu}, ["b.1"]),
        ({"exclude": (nn.ReLU, "b.3")}, ["b.1"]),
        ({"types": (nn.ReLU,)}, ["a.1"]),
    ],
)
def test_include_and_exclude(options: dict[str, Any], paths: list[str]) -> None:
    first = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    second = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Sigmoid())
    net = Net(lambda net, x: net.b(net.a(x)), a=first, b=second)
    plan = smx.plan(net, example_input=torch.randn(2, 3), **options)
    assert [row.path for row in plan.selected] == paths
    assert list(selectives(smx.select(net, example_input=torch.randn(2, 3), **options))) == paths
    assert plan["a.1"].activation == "relu"
    with pytest.raises(KeyError):
        plan["c"]


def test_patterns_that_name_nothing() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="exclude names no activation of the network: 'layer1'"):
        smx.select(net, exclude="layer1")
    with pytest.raises(ValueError, match=r"include takes paths, globs, module types and functions .* got 3"):
        smx.plan(net, include=3)


def test_a_block_in_a_row_is_no_recurrence() -> None:
    """Its neurons are those of its layer, whenever it runs; with attention between, as in ALBERT."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = Net(lambda net, x: net.last(net.layer(net.layer(net.layer(x)))), layer=layer, last=nn.Linear(8, 2))
    assert found(smx.plan(net, example_input=torch.randn(2, 5, 8))) == {"layer.activation": (16, -1)}


def test_wrappers_are_left_away() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    assert selectives(smx.select(nn.DataParallel(net), example_input=x)) == {"1": 4}
    compiled: Any = torch.compile(net, backend="eager")
    with pytest.warns(UserWarning, match="torch.compile's module is left away; compile the result again"):
        chosen = smx.select(compiled, example_input=x)
    assert selectives(chosen) == {"1": 4}
    assert isinstance(smx.commit(nn.DataParallel(chosen)), nn.Sequential)


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))


def pruned() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    prune.l1_unstructured(net[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    return net


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (old_weight_norm, r"0 can't be copied; call torch.nn.utils.remove_weight_norm, or use .* first"),
        (pruned, "0 can't be copied; call torch.nn.utils.prune.remove first"),
        (lambda: torch.jit.trace(nn.Linear(3, 4), torch.randn(2, 3)), "it is a ScriptModule, whose forward can't be"),  # type: ignore[no-untyped-call]
        (
            lambda: nn.Sequential(quantized.Linear(3, 4), nn.ReLU()),  # type: ignore[no-untyped-call]
            "'0' is quantized, so that nothing is left to train",
        ),
    ],
)
def test_networks_that_cannot_be_selected(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smx.select(make(), example_input=torch.randn(2, 3))


def test_activations_of_weights_are_no_neurons() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        x = F.relu(F.linear(x, F.softplus(net.w)))
        return net.last(torch.tanh(net.last.weight).sum() * torch.sigmoid(net.scale) * x)

    net = Net(forward, w=nn.Parameter(torch.randn(6, 3)), scale=nn.Parameter(torch.ones(6)), last=nn.Linear(6, 2))
    plan = smx.plan(net, example_input=torch.randn(4, 3))
    assert found(plan) == {"relu": (6, -1)}
    assert plan.left == dict.fromkeys(("softplus", "tanh", "sigmoid"), WEIGHTS)


def test_the_example_and_the_network_stay_as_they_are() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        x += 1
        net.seen.add_(1)
        return net.last(net.relu(net.first(x)))

    net, x = Net(forward, first=nn.Linear(3, 4), relu=nn.ReLU(), last=nn.Linear(4, 2)), torch.zeros(2, 3)
    net.register_buffer("seen", torch.zeros(()))
    assert found(smx.plan(net, example_input=x)) == {"relu": (4, -1)}
    assert not x.any()
    assert net.get_buffer("seen") == 0


def test_what_a_run_does_not_show_is_said() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        return net.last(torch.vmap(lambda row: F.relu(net.first(row)))(F.dropout(x, 0.5)))

    net = Net(forward, first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"relu\(\) is left: the run does not show its values, as within torch.vmap"):
        smx.select(net, example_input=torch.randn(2, 3))


def test_a_network_that_is_random_in_eval_is_compared_with_the_same_random_numbers() -> None:
    def forward(net: Any, x: Tensor) -> Any:
        return net.last(F.dropout(F.relu(net.first(x)), 0.5) + torch.randn(4))

    net = Net(forward, first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    assert selectives(smx.select(net, example_input=torch.randn(2, 3))) == {"relu": 4}
