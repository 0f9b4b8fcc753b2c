"""What `smx.select` writes anew, and what it had better leave: the same function, the same random numbers."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

import smx
from smx.activations import Activation
from smx.convert import ACTIVATION_MODULES
from smx.convert.modularize import modularize
from tests.smx.selected import Net, favour, same, selectives


def draws(net: Any, x: Tensor) -> Tensor:
    """Make tensors and random numbers, anew at each call."""
    net.steps.add_(1)
    total = torch.zeros(4)
    total += F.relu(net.linear(x)).sum(0)
    return total + torch.rand(4) + torch.ones((x.shape[0], 1))


def test_what_a_forward_makes_it_makes_at_each_call() -> None:
    net, x = Net(draws, linear=nn.Linear(3, 4)), torch.randn(2, 3)
    net.register_buffer("steps", torch.zeros(()))
    state = torch.get_rng_state()
    chosen = favour(smx.select(net, example_input=x, include="*"), "relu")
    torch.set_rng_state(state)
    assert net.get_buffer("steps") == chosen.get_buffer("steps") == 0
    chosen(x)
    results = []
    for module in (net, chosen.eval()):
        torch.manual_seed(1)
        results += [module(x), module(x)]
    assert not torch.equal(results[0], results[1])
    torch.testing.assert_close(results[2:], results[:2])
    assert chosen.get_buffer("steps") == 3


def branch(x: Tensor) -> Tensor:
    return F.relu(x) if x.sum() > 0 else F.relu(-x)


@torch.no_grad()
def no_gradients(x: Tensor) -> Tensor:
    return F.relu(x)


def low_precision(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = x @ x.T
    return F.relu(z.to(x.dtype)).matmul(x)


def by_chance(x: Tensor) -> Tensor:
    return F.relu(x) if random.random() < 2 else x


def by_numpys_chance(x: Tensor) -> Tensor:
    return F.relu(x) * (np.random.normal() < 9)


def augmented(x: Tensor) -> Tensor:
    z = skip = 2 * x
    z += 1
    return F.relu(z) + skip


def computed(x: Tensor) -> Tensor:
    return F.leaky_relu(x, float(x.shape[0])) if x.dim() == 2 else x


def around(function: Callable[[Tensor], Tensor]) -> Net:
    """Return a network with a function between two layers; one of its activations, a module, can be replaced."""
    parts = {"first": nn.Linear(3, 4), "tanh": nn.Tanh(), "second": nn.Linear(4, 2)}
    return Net(lambda net, x: net.second(net.tanh(function(net.first(x)))), **parts)


@pytest.mark.parametrize(
    ("function", "reason", "what"),
    [
        (branch, "symbolically traced variables cannot be used as inputs to control flow", "relu"),
        (no_gradients, "it switches gradients or autocast on or off", "relu"),
        (low_precision, "it switches gradients or autocast on or off", "relu"),
        (computed, "", "leaky_relu"),
        (by_chance, "it draws random numbers from Python or NumPy", "relu"),
        (by_numpys_chance, "it draws random numbers from Python or NumPy", "relu"),
        (augmented, "it changes mul in place", "relu"),
    ],
)
def test_what_cannot_be_rewritten_stays_with_a_warning(
    function: Callable[[Tensor], Tensor], reason: str, what: str
) -> None:
    net, x = around(function), torch.randn(2, 3)
    stays = rf"its forward can't be rewritten \(.*; {what} is called in {function.__name__}\)"
    with pytest.warns(UserWarning, match=rf"left: {what} at {what}\(\): {stays}") as caught:
        chosen = smx.select(net, example_input=x)
    assert reason in str(caught[0].message)
    assert selectives(chosen) == {"tanh": 4}
    assert same(net, favour(chosen, "tanh"), x)
    with pytest.raises(ValueError, match=rf"Net has no activation to select; {what}\(\) is left: {stays}"):
        smx.select(net, example_input=x, types=(nn.ReLU, nn.LeakyReLU))


def test_random_numbers_stay_though_a_forward_draws_some() -> None:
    random.seed(0)
    np.random.seed(0)
    expected = random.random(), np.random.normal()
    random.seed(0)
    np.random.seed(0)
    for function in (by_chance, by_numpys_chance):
        with pytest.warns(UserWarning, match="it draws random numbers"):
            smx.select(around(function))
    assert (random.random(), np.random.normal()) == expected


@pytest.mark.parametrize("note", [[], {}])
def test_what_a_forward_notes_is_still_noted(note: list[Tensor] | dict[str, Tensor]) -> None:
    def forward(net: Any, x: Tensor) -> Any:
        h = F.relu(net.linear(x))
        net.note.update(h=h) if isinstance(net.note, dict) else net.note.append(h)
        return net.last(net.act(h))

    parts = {"linear": nn.Linear(3, 4), "act": nn.ReLU(), "last": nn.Linear(4, 2)}
    net, x = Net(forward, **parts, note=note), torch.randn(2, 3)
    with pytest.warns(UserWarning, match=r"it changes what its module holds \(note\); relu is called in "):
        chosen = smx.select(net, example_input=x)
    assert len(net.note) == len(chosen.note) == 0  # type: ignore[arg-type]
    chosen(x)
    assert len(chosen.note) == 1  # type: ignore[arg-type]


@fx.wrap
def wrapped_for_fx(x: Tensor, scale: int) -> Tensor:
    return x * scale if x.sum() < 1e9 else x


def calls_wrapped(net: Any, x: Tensor) -> Tensor:
    x = F.dropout(F.relu(wrapped_for_fx(net.linear(x), 2)), 0.5, net.training)
    return x if net.training else wrapped_for_fx(x, 3)


def test_a_function_wrapped_for_fx_stays_a_call() -> None:
    net, x = Net(calls_wrapped, linear=nn.Linear(3, 4)), torch.randn(2, 3)
    chosen = favour(smx.select(net, example_input=x, include=F.relu), "relu")
    assert selectives(chosen) == {"relu": 4}
    for kept in (chosen, pickle.loads(pickle.dumps(chosen)), smx.commit(chosen)):
        assert same(net, kept, x)
        assert kept.train()(x).count_nonzero() < kept.eval()(x).numel()


def test_arguments_of_functions_are_those_of_the_modules() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.rrelu(net.linear(x), 0.1, 0.3, net.training)
        return F.softshrink(F.hardshrink(torch.special.expit(x), 0.7), lambd=0.1)

    net, x = Net(forward, linear=nn.Linear(3, 4)), torch.randn(2, 3)
    modularized = copy.deepcopy(net)
    assert modularize(modularized, ACTIVATION_MODULES) == ({}, set())
    kept = [repr(part) for part in modularized.children()][1:]
    assert kept == ["RReLU(lower=0.1, upper=0.3)", "Sigmoid()", "Hardshrink(0.7)", "Softshrink(0.1)"]
    assert same(net, modularized, x)
    assert len(selectives(smx.select(net, example_input=x, include="*"))) == 4


def test_a_function_that_is_an_attribute_is_called_with_arguments() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.act(net.linear(x), 0.2)
        return net.act(net.act(x), negative_slope=0.3, inplace=True)  # type: ignore[no-any-return]

    net, x = Net(forward, linear=nn.Linear(3, 4)), torch.randn(2, 3)
    vars(net)["act"] = F.leaky_relu
    modularized = copy.deepcopy(net)
    assert modularize(modularized, ACTIVATION_MODULES) == ({}, set())
    kept = {name: part.negative_slope for name, part in modularized.named_children() if name != "linear"}
    assert kept == {"act": 0.2, "act_1": 0.01, "act_2": 0.3}
    assert same(net, modularized, x)


class Optional(nn.Module):
    """A course that depends on an argument, a mode that decides on an activation, an activation that is shared."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second, self.act = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.act(self.first(x))
        if self.kind == "argument" and scale is not None:
            x = x * scale
        if self.kind == "mode" and self.training:
            x = torch.tanh(x)
        if self.kind == "note":
            self.noted = x
        return self.act(self.second(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["argument", "mode", "note"])
def test_a_forward_that_torch_fx_would_change_is_rewritten_in_its_source(kind: str) -> None:
    net, x = Optional(kind), torch.randn(2, 3)
    chosen = favour(smx.select(net, example_input=x, include="act_1"), "relu")
    assert selectives(chosen) == {"act": 4, "act_1": 4}
    scale = torch.tensor(3.0)
    for kept in (chosen, copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen)), smx.commit(chosen)):
        assert type(kept).__name__ == "Optional"
        assert same(net, kept, x)
        assert same(net, kept, x, scale)
        kept(x)
        assert hasattr(kept, "noted") == (kind == "note")


def test_an_optional_argument_that_is_passed_on_stays_optional() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.linear = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 4)

        def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
            attended, _ = self.attention(x, x, x, attn_mask=mask)
            return F.gelu(self.linear(attended), approximate="tanh") * scale

    torch.manual_seed(0)
    net, x = Attends(), torch.randn(2, 5, 4)
    gelu = Activation("tanh_gelu", lambda z: F.gelu(z, approximate="tanh"))
    chosen = favour(smx.select(net, pool=("elu", gelu), example_input=x, include="gelu"), "tanh_gelu")
    assert selectives(chosen) == {"gelu": 4}
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    assert same(net, chosen, x)
    assert same(net, chosen, x, mask)
    torch.testing.assert_close(chosen.eval()(x, mask, scale=2.0), net(x, mask, scale=2.0))


def test_arguments_are_given_by_name_and_by_place_as_before() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    class AnyAndNamed(Module):
        def forward(self, *args: Tensor, scale: float = 1.0, **more: Tensor) -> Any:
            return self.last(F.relu(self.linear(args[0]))) * scale + more.get("shift", 0)

    class Named(Module):
        def forward(self, x: Tensor | None = None, *, scale: Tensor) -> Any:
            return self.last(F.relu(self.linear(x))) * scale

    class AnyAfter(Module):
        def forward(self, x: Tensor, *rest: Tensor, scale: float = 1.0) -> Any:
            return self.last(F.relu(self.linear(x))) * scale

    x, two, more = torch.randn(5, 3), torch.tensor(2.0), {"shift": torch.tensor(3.0)}
    nets: dict[nn.Module, list[tuple[tuple[Tensor, ...], dict[str, Any]]]] = {
        AnyAndNamed(): [((x,), {}), ((x,), {"scale": 2.0}), ((x, two), more)],
        Named(): [((x,), {"scale": two}), ((), {"x": x, "scale": two})],
        AnyAfter(): [((x,), {}), ((x, two, two), {}), ((x, two), {"scale": 2.0})],
    }
    for net, calls in nets.items():
        chosen = smx.select(net, example_input=(*calls[0][0], calls[0][1]), start="relu")
        assert selectives(chosen) == {"relu": 4}
        for args, kwargs in calls:
            torch.testing.assert_close(chosen.eval()(*args, **kwargs), net(*args, **kwargs))


def test_an_optional_argument_that_stands_for_another_one() -> None:
    """Both courses have the same operators, which take other values."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.linear, self.again = nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
            if shortcut is None:
                shortcut = x
            return self.relu(self.again(self.relu(self.linear(x))) + shortcut)  # type: ignore[no-any-return]

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = Block(), Block(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x, 2 * x)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net, x = Blocks(), torch.randn(2, 4)
    chosen = favour(smx.select(net, example_input=x), "relu")
    assert selectives(chosen) == {"first.relu": 4, "first.relu_1": 4, "second.relu": 4, "second.relu_1": 4}
    assert same(net, chosen, x)


def test_in_place_across_modules_is_refused() -> None:
    """What comes after the block sees its input changed; no rewriting of one forward can show that."""
    block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
    net = nn.Sequential(nn.Linear(3, 4), Net(lambda net, x: net.block(x) + x, block=block))
    with pytest.raises(ValueError, match="the network computes something else on example_input"):
        smx.select(net, example_input=torch.randn(8, 3))
    with pytest.raises(ValueError, match="the network computes something else"):
        smx.select(net)  # on an input that is inferred


def test_an_argument_changed_in_place_stays_so() -> None:
    def shift(net: Any, x: Tensor) -> Tensor:
        x -= 1
        return F.relu(x)

    block = Net(lambda net, x: net.tanh(net.shifts(x) + x), tanh=nn.Tanh(), shifts=Net(shift))
    net, x = nn.Sequential(nn.Linear(3, 4), block, nn.Linear(4, 2)), torch.randn(8, 3)
    with pytest.warns(UserWarning, match=r"left: relu at 1.shifts.relu\(\): .* \(it changes x in place, which others"):
        chosen = smx.select(net)
    assert selectives(chosen) == {"1.tanh": 4}
    assert same(net, favour(chosen, "tanh"), x)


class Rounded(torch.autograd.Function):
    """Rounds, and passes gradients on as if it did not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Rounds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(Rounded.apply(self.linear(x))))  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize("gradients", [True, False])
def test_a_gradient_of_ones_own_is_kept(gradients: bool) -> None:
    """Also where gradients are off at `select`: a graph would hold the function's operators alone."""
    net = Rounds()
    with torch.set_grad_enabled(gradients):
        chosen = favour(smx.select(net, example_input=torch.randn(2, 3)), "relu")
    assert selectives(chosen) == {"relu": 4}
    chosen(torch.randn(64, 3)).sum().backward()
    assert bool(chosen.get_submodule("linear").weight.grad.any())  # type: ignore[union-attr, operator]


class Steps(nn.Module):
    """Calls its parts by a list, beside their names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.c = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
        self.steps = [self.a, self.act, self.c]
        self.by_name = {"parts": (self.a, [self.act])}

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def test_a_part_that_is_held_in_a_list_too_is_replaced_there() -> None:
    net, x = Steps(), torch.randn(4, 6)
    selected = smx.select(net, example_input=x)
    assert isinstance(selected, Steps)
    for each, kind in ((net, nn.ReLU), (selected, smx.Selective), (smx.commit(selected), smx.Mixed)):
        assert isinstance(each.act, kind)
        assert each.steps[1] is each.act is each.by_name["parts"][1][0]  # type: ignore[index]
    selected(x).sum().backward()
    assert selected.act.logits.grad is not None


def made_in_a_function(width: int) -> nn.Module:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 6:  # which torch.fx can't follow
                raise ValueError
            return self.c(F.relu(self.a(x)) * width)  # type: ignore[no-any-return]

    return Local()


def test_a_forward_may_use_variables_of_a_function_around_its_class() -> None:
    assert selectives(smx.select(made_in_a_function(2), example_input=torch.randn(4, 6))) == {"relu": 5}


def test_lazy_layers_run_first() -> None:
    net, x = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(4, 6)
    with pytest.raises(ValueError, match=r"has '0\.weight', which its first run makes; run it once first"):
        smx.select(net, example_input=x)
    assert is_lazy(net.get_parameter("0.weight"))
    net(x)
    assert selectives(smx.select(net, example_input=x)) == {"1": 5}
