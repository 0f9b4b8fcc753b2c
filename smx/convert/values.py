"""The values of a run as a graph: which operator made each of which others, and what can be asked of such a graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from smx.convert.neurons import Neurons

INPUT, CONSTANT, WEIGHTED, ACTIVATION, POINTWISE, VIEW, OTHER = (
    "input", "constant", "weighted", "activation", "pointwise", "view", "other",
)  # fmt: skip
"""Kinds of values: an input of the network; weights and what is made of them alone; results of a layer with weights, of
an activation, of elementwise operators, of views, and of everything else."""


@dataclass(eq=False)
class Value:
    """A tensor in a run.

    Attributes:
        number: its place in the order in which values were made.
        kind: see the kinds above.
        op: the operator or activation that made it, by its name in PyTorch's schema or in `ACTIVATIONS`.
        inputs: what it was made of.
        shape: its shape.
        neurons: where its neurons are; None where that is not known.
        leaves: the `id` of the weights that it depends on, for a constant or as weights of its layer.
        site: the path of its activation, for an activation.
    """

    number: int
    kind: str
    op: str
    inputs: tuple[Value, ...] = ()
    shape: tuple[int, ...] = ()
    neurons: Neurons | None = None
    leaves: frozenset[int] = frozenset()
    site: str = ""

    @property
    def data(self) -> tuple[Value, ...]:
        """The inputs that depend on the network's inputs."""
        return tuple(x for x in self.inputs if x.kind != CONSTANT)

    @property
    def passes(self) -> bool:
        """Whether it has the entries of one other value, each by itself changed by constants at most."""
        return self.kind in (VIEW, POINTWISE) and len(set(self.data)) == 1


@dataclass
class Graph:
    """The values of a run, in the order in which they were made, and those that are the network's outputs."""

    values: list[Value]
    outputs: list[Value] = field(default_factory=list)

    @cached_property
    def users(self) -> dict[Value, list[Value]]:
        """Who reads a value as data."""
        users: dict[Value, list[Value]] = defaultdict(list)
        for value in self.values:
            for x in dict.fromkeys(value.data):
                users[x].append(value)
        return users

    @cached_property
    def ancestors(self) -> dict[Value, int]:
        """The numbers of all values that a value depends on, itself included, as the bits of an integer."""
        found: dict[Value, int] = {}
        for value in self.values:
            bits = 1 << value.number
            for x in value.data:
                bits |= found[x]
            found[value] = bits
        return found

    def depends(self, value: Value, on: Value) -> bool:
        """Tell whether a value depends on another one, or is it."""
        return bool(self.ancestors[value] >> on.number & 1)

    def reached(self, start: Value) -> Iterator[Value]:
        """Yield what a value reaches, itself first; but no layers with weights, nor what is behind them."""
        seen, stack = {start}, [start]
        while stack:
            yield (value := stack.pop())
            for user in self.users.get(value, ()):
                if user.kind != WEIGHTED and user not in seen:
                    seen.add(user)
                    stack.append(user)

    def origins(self, value: Value) -> set[Value]:
        """Return the values of which a value is a function of each entry by itself: what made those is no such one."""
        found, seen, stack = set(), {value}, [value]
        while stack:
            x = stack.pop()
            if x.kind in (POINTWISE, ACTIVATION) and x.data:
                new = [y for y in x.data if y not in seen]
                seen.update(new)
                stack += new
            else:
                found.add(x)
        return found

    def before(self, value: Value) -> set[Value]:
        """Return the nearest layers with weights and activations before a value."""
        found, seen, stack = set(), {value}, [value]
        while stack:
            x = stack.pop()
            if x.kind in (WEIGHTED, ACTIVATION) and x is not value:
                found.add(x)
                continue
            new = [y for y in x.data if y not in seen]
            seen.update(new)
            stack += new
        return found

    def has_layer(self, value: Value) -> bool:
        """Tell whether a value comes from a layer with weights."""
        return bool(self.ancestors[value] & self._layers)

    @cached_property
    def _layers(self) -> int:
        return sum(1 << value.number for value in self.values if value.kind == WEIGHTED)


def sites(values: Sequence[Value]) -> dict[str, list[Value]]:
    """Return the calls of each activation, by its path."""
    found: dict[str, list[Value]] = {}
    for value in values:
        if value.site or value.kind == ACTIVATION:
            found.setdefault(value.site, []).append(value)
    return found
