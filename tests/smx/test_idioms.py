"""Networks as strangers write them: what is in lists, lambdas, closures and behind decorators."""

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smx

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 2)


class Listed(Base):
    """Activations in a list that PyTorch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.acts: list[Any] = [nn.ReLU(), nn.Tanh()]

    def forward(self, x: Tensor) -> Any:
        for layer, act in zip((self.a, self.b), self.acts, strict=True):
            x = act(layer(x))
        return self.c(x)


class Closures(Base):
    """Lambdas that hold the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Any = lambda x: torch.tanh(self.a(x))
        self.others: dict[str, Any] = {"second": lambda x: F.relu(self.b(x))}

    def forward(self, x: Tensor) -> Any:
        return self.c(self.others["second"](self.first(x)))


class Compiled(Base):
    def __init__(self) -> None:
        super().__init__()
        self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]
        self.inner: Any = torch.compile(self.hidden, backend="eager")

    def hidden(self, x: Tensor) -> Any:
        return torch.tanh(self.b(x))

    def forward(self, x: Tensor) -> Any:
        return self.c(self.inner(F.relu(self.a(x))))


class Branching(Base):
    """torch.fx can't follow it, and one line calls two activations."""

    def forward(self, x: Tensor) -> Any:
        if x.shape[1] != 6:
            raise ValueError("six features")
        for layer, name in ((self.a, "relu"), (self.b, "tanh")):
            x = getattr(torch, name)(layer(x))
        return self.c(F.elu(x))


class Lambda(Base):
    def __init__(self) -> None:
        super().__init__()
        self.act: Any = lambda x: F.leaky_relu(x, 0.1)

    def forward(self, x: Tensor) -> Any:
        return self.c(self.act(self.a(x))) if x.shape[1] == 6 else x


def decorator(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def decorated(self: Any, x: Tensor) -> Any:
        return forward(self, x)

    return decorated


class Decorated(Base):
    @decorator
    def forward(self, x: Tensor) -> Any:
        return self.c(F.relu(self.a(x))) if x.shape[1] == 6 else x


class Guarded(Base):
    def forward(self, x: Tensor) -> Any:
        return self.c(F.relu(self.a(x))) if x.shape[1] == 6 else x


class Extended(Guarded):
    """The activation is in the method of the base class."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if x.shape[1] == 6 else x


def on_the_instance() -> nn.Module:
    net = Decorated()
    net.forward = types.MethodType(lambda self, x: self.c(torch.relu(self.a(x))), net)  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize(("kind", "found"), [(Listed, "relu tanh"), (Closures, "tanh relu"), (Compiled, "relu tanh")])
def test_activations_are_found_and_the_copy_trains_its_own_weights(kind: type[nn.Module], found: str) -> None:
    net = kind()
    rows = smx.plan(net, example_input=X)
    assert [row.activation for row in rows.selected] == found.split()
    assert not rows.left
    chosen = smx.select(net, example_input=X, start="current")
    torch.testing.assert_close(chosen.eval()(X), net(X), rtol=0, atol=0)
    chosen.train()(X).sum().backward()
    assert all(weight.grad is not None for weight in chosen.parameters())
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Branching(), "one line calls relu and other activations); give it a module of its own (nn.ReLU)"),
        (
            Lambda(),
            "leaky_relu is called in Lambda.__init__.<locals>.<lambda>); give it a module of its own (nn.LeakyReLU)",
        ),
        (Decorated(), "its forward has a decorator); give it a module of its own (nn.ReLU)"),
        (Extended(), "relu is called in Guarded.forward, by way of super()); give it a module of its own (nn.ReLU)"),
        (on_the_instance(), "its forward is an attribute of the module, not a method of the class"),
    ],
)
def test_what_stays_a_call_has_the_right_reason_and_no_module(net: nn.Module, reason: str) -> None:
    rows = smx.plan(net, example_input=X)
    assert reason in next(iter(rows.left.values()))
    assert {row.call for row in rows.rows} == {"function"}  # no module was made that nobody calls
    if isinstance(net, Branching):
        assert [row.path for row in rows.selected] == ["elu"]
