"""Which activations are hidden ones, whose neurons may choose, and why the others are left: from the graph of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from smx.convert.values import ACTIVATION, CONSTANT, POINTWISE, VIEW, WEIGHTED, Graph, Value, sites

WEIGHTS = "it is applied to weights alone, not to neurons"
PRELU = "it has weights of its own"
RRELU = "it is random in training"
OUTPUT = "it reaches an output of the network without a layer with weights after it"
UNUSED = "no output depends on it"
GATE = "it is a gate: it is multiplied with another value"
FORMULA = "it is part of a formula, a function of each entry by itself"
RECURRENCE = "it runs inside a recurrence"

_OWN = {"prelu": PRELU, "rrelu": RRELU}
_BOUNDED = ("sigmoid", "hardsigmoid", "tanh", "softmax", "_softmax", "_safe_softmax")
_PIECES = ("select", "slice", "split", "split_with_sizes", "unbind", "index")


def reasons(graph: Graph) -> dict[str, str]:
    """Return why activations are left by default, by their paths; those that are not there are hidden ones.

    1. It has weights of its own (PReLU), is random in training (RReLU), or is applied to weights alone.
    2. It runs inside a recurrence, as in the cell of an LSTM: see `_recurrent`.
    3. It is multiplied with another value: it is a gate, or part of a formula such as x * sigmoid(x).
    4. It reaches an output of the network without a layer with weights after it, if the network has such layers.
    """
    found: dict[str, str] = {}
    recurrent = _recurrent(graph)
    outputs = set(graph.outputs) if any(value.kind == WEIGHTED for value in graph.values) else set()
    used = 0
    for output in graph.outputs:
        used |= graph.ancestors[output]
    for path, calls in sites(graph.values).items():
        reason = _OWN.get(calls[0].op) or (RECURRENCE if path in recurrent else None)
        if all(h.kind == CONSTANT for h in calls):
            reason, calls = WEIGHTS, []
        for h in calls:
            reason = reason or _factor(graph, h) or (OUTPUT if outputs & set(graph.reached(h)) else None)
        if reason is None and outputs and not any(used >> h.number & 1 for h in calls):
            reason = UNUSED
        if reason:
            found[path] = reason
    return found


def _factor(graph: Graph, h: Value) -> str | None:
    """Tell whether an activation is a gate or part of a formula, by the products that it is a factor of.

    With h, through views and constants, a factor of h * v, where v is another value:

    1. v depends on h: then v is the gate of h, as in squeeze and excitation, or h is squared.
    2. Both are functions of each entry of the same value by itself: a formula.
    3. v is a gate by its nature (a Sigmoid, say) and h is not: then v is the gate of h.
    4. h does not end at 1, and v comes from no layer with weights: then v is a mask.
    5. Otherwise h is a gate.
    """
    seen, stack = {h}, [h]
    while stack:
        x = stack.pop()
        for user in graph.users.get(x, ()):
            if user.passes and user not in seen:
                seen.add(user)
                stack.append(user)
            elif factors := _factors(user, x):
                for v in factors:
                    if v in seen or graph.depends(v, h):  # case 1
                        continue
                    if graph.origins(user) == graph.origins(h):  # case 2
                        return FORMULA
                    bounded = h.op in _BOUNDED
                    if not bounded and (_gates(v) or not graph.has_layer(v)):  # cases 3 and 4
                        continue
                    return GATE  # case 5
            elif user.op in ("div", "pow") and graph.origins(user) == graph.origins(h):
                return FORMULA
    return None


def _factors(product: Value, x: Value) -> list[Value]:
    """Return what a value is multiplied with."""
    inputs = product.inputs
    match product.op if product.kind == POINTWISE else "":
        case "mul":
            factors: tuple[Value, ...] = inputs
        case "addcmul":  # a + b * c
            factors = inputs[1:] if x in inputs[1:] else ()
        case "lerp":  # a + c * (b - a)
            factors = inputs[:2] if x is inputs[-1] else inputs[2:]
        case _:
            factors = ()
    return [v for v in factors if v.kind != CONSTANT and v is not x]


def _gates(v: Value) -> bool:
    while v.passes:
        v = v.data[0]
    return v.op in _BOUNDED


def _recurrent(graph: Graph) -> set[str]:
    """Find the activations inside of recurrences.

    The weights of a layer are used again, by a call that depends on an earlier one through the activation that follows
    it. A block that is applied several times in a row does that too. It is a recurrence

    1. if each step has activations of its own in the forward, as in a loop;
    2. or if each step reads another piece of one value, a time step.

    Activations that follow those alone, and that the next step depends on, belong to it.
    """
    repeated: dict[frozenset[int], list[Value]] = defaultdict(list)
    for value in graph.values:
        if value.kind == WEIGHTED and value.leaves:
            repeated[value.leaves].append(value)
    repeated = {leaves: calls for leaves, calls in repeated.items() if len(calls) > 1}
    activations = [value for value in graph.values if value.kind == ACTIVATION] if repeated else []
    after: dict[Value, list[Value]] = defaultdict(list)  # the activations that follow a layer
    for h in activations:
        for layer in graph.before(h):
            after[layer].append(h)
    found: set[str] = set()
    for first, second in (pair for calls in repeated.values() for pair in pairwise(calls)):
        fed = [h for h in after[first] if graph.depends(second, h)]
        for h in fed:
            if h.site in found:
                continue
            now = [later for later in after[second] if _kind(later) == _kind(h)]
            unrolled = now and h.site not in {later.site for later in now}
            if unrolled or any(later.site == h.site and _other_pieces(graph, h, later) for later in now):
                found |= {h.site} | {later.site for later in now}
    inside: dict[tuple[str, str], set[Any]] = defaultdict(set)  # for each kind in a recurrence, what comes before it
    for h in activations:
        if h.site in found:
            inside[_kind(h)] |= _before(graph, h)
    for h in activations:
        before, kind = _before(graph, h), _kind(h)
        if h.site not in found and before and inside:
            like = kind in inside and before <= inside[kind]  # the first step, whose state is a constant
            if like or (before <= inside.keys() and (kind in inside or _feeds(graph, h, repeated.values()))):
                found.add(h.site)
                inside[kind] |= set()
    return found


def _feeds(graph: Graph, h: Value, layers: Iterable[list[Value]]) -> bool:
    return any(graph.depends(call, h) for calls in layers for call in calls)


def _before(graph: Graph, h: Value) -> set[Any]:
    """Return what comes before an activation: the weights of layers, the kinds of activations."""
    return {_kind(x) if x.kind == ACTIVATION else x.leaves for x in graph.before(h)}


def _kind(h: Value) -> tuple[str, str]:
    """Return what the activations of one line in a loop have in common: the module around them, and the function."""
    return h.site.rpartition(".")[0], h.op


def _other_pieces(graph: Graph, h: Value, later: Value) -> bool:
    """Tell whether a later call depends on a piece of a value of which an earlier one depends on another piece."""
    before, now = graph.ancestors[h], graph.ancestors[later]
    earlier: set[Value] = set()
    new: set[Value] = set()
    for value in graph.values:
        if value.op in _PIECES and value.kind != ACTIVATION and value.data and now >> value.number & 1:
            source = value.data[0]
            while source.kind == VIEW and source.data:
                source = source.data[0]
            (earlier if before >> value.number & 1 else new).add(source)
    return bool(earlier & new)
