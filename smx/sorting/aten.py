"""How each of PyTorch's operators ties the orders of its axes: the operators through which a permutation can move.

Elementwise operators are known by PyTorch's own tag. One that is composed of others is taken apart. What is left, and
not named in `RULES`, is taken to depend on the order of every axis it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from smx.sorting import ties
from smx.sorting.orders import Order, Orders
from smx.sorting.ties import pin_all


@dataclass(eq=False)
class Traced:
    """What stands for a tensor while orders are found."""

    shape: tuple[int, ...]


class Tying(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, every operator that runs ties the orders of its inputs and outputs.

    Made for `torch.inference_mode()`, in which PyTorch's operators come as they were called, and for tensors on the
    device `meta`, on which nothing is computed and a forward that looks at values fails.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.orders = Orders()
        self._seen: dict[int, tuple[Tensor, Traced]] = {}  # with the tensor, so that no other one gets its id

    def add(self, tensor: Tensor) -> Traced:
        """Begin to trace a tensor; its axes are free."""
        return self._seen.setdefault(id(tensor), (tensor, Traced(tuple(tensor.shape))))[1]

    def traced(self, tensor: Tensor) -> Traced:
        """Return what stands for a tensor; one that comes from elsewhere keeps its order."""
        if id(tensor) not in self._seen:
            pin_all(self.orders, [self.add(tensor)], "it meets a tensor that is neither parameter nor buffer")
        return self._seen[id(tensor)][1]

    def of(self, tensor: Tensor, axis: int) -> Order:
        """Return the order of an axis of a tensor."""
        return self.orders.of(self.traced(tensor), axis)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and tie what it ties."""
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        name = name if name.startswith("__") else name.removesuffix("_")  # in place or not
        rule = elementwise if torch.Tag.pointwise in func.tags else RULES.get(name)
        if rule is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        given = {argument.name: argument.default_value for argument in func._schema.arguments}
        given |= dict(zip(names, args, strict=False)) | kwargs
        arguments = tree_map(lambda x: self.traced(x) if isinstance(x, Tensor) else x, given)
        outputs = [self.add(x) for x in tree_leaves(result) if isinstance(x, Tensor)]
        (rule or opaque)(self.orders, Call(name, arguments, outputs))
        return result


@dataclass(frozen=True, eq=False)
class Call:
    """A call of an operator: its arguments by their names in PyTorch's schema, and its outputs."""

    name: str
    arguments: dict[str, Any]
    outputs: list[Traced]

    @property
    def inputs(self) -> list[Traced]:
        """All tensors among the arguments."""
        return [x for x in tree_leaves(self.arguments) if isinstance(x, Traced)]

    @property
    def parts(self) -> tuple[Traced, Traced]:
        """The first input and the first output."""
        return self.inputs[0], self.outputs[0]

    @property
    def reason(self) -> str:
        """Why what it touches keeps its order, where it does."""
        return f"{self.name} depends on the order"

    def get(self, *names: str) -> list[Traced]:
        """Return the named arguments that are given."""
        return [x for name in names if (x := self.arguments[name]) is not None]


Rule = Callable[[Orders, Call], None]


def opaque(orders: Orders, call: Call) -> None:
    """Nothing is known: everything keeps its order."""
    pin_all(orders, [*call.inputs, *call.outputs], call.reason)


def elementwise(orders: Orders, call: Call) -> None:
    """y = f(a, b, ...) with broadcasting, or along an axis whose order f does not look at (Softmax)."""
    for y in call.outputs:
        ties.elementwise(orders, call.inputs, y)


def unrelated(orders: Orders, call: Call) -> None:
    """A new tensor whose entries are all alike, or drawn alike."""


def linear(orders: Orders, call: Call) -> None:
    """y[..., n] = x[..., k] weight[n, k] + bias[n]."""
    x, y = call.parts
    (weight,) = call.get("weight")
    ties.same(orders, x, y, range(len(y.shape) - 1))
    orders.tie(orders.of(x, -1), orders.of(weight, 1))
    orders.tie(orders.of(y, -1), orders.of(weight, 0))
    ties.elementwise(orders, call.get("bias"), y)


def matmul(orders: Orders, call: Call) -> None:
    """y = a b, or c + a b."""
    *c, a, b = call.inputs
    if min(len(a.shape), len(b.shape)) < 2:
        opaque(orders, call)
        return
    ties.matmul(orders, a, b, call.outputs[0])
    ties.elementwise(orders, c, call.outputs[0])


def conv(orders: Orders, call: Call) -> None:
    """Convolutions of any rank, transposed ones too."""
    x, y = call.parts
    bias = call.arguments["bias"]
    groups, transposed = call.arguments["groups"], call.arguments["transposed"]
    ties.conv(orders, x, call.arguments["weight"], bias, y, groups, transposed=transposed)


def channelwise(orders: Orders, call: Call) -> None:
    """BatchNorm and InstanceNorm."""
    parameters = call.get("weight", "bias", "running_mean", "running_var")
    ties.channelwise(orders, call.inputs[0], parameters, call.outputs[0])


def group_norm(orders: Orders, call: Call) -> None:
    """One group looks at no order, as many groups as channels keep them apart; other numbers can't follow."""
    x, y = call.parts
    if call.arguments["num_groups"] in (1, x.shape[1]):
        ties.channelwise(orders, x, call.get("weight", "bias"), y)
    else:
        opaque(orders, call)


def trailing(orders: Orders, call: Call) -> None:
    """LayerNorm and RMSNorm."""
    x, y = call.parts
    ties.trailing(orders, x, call.inputs[1:], y)


def positions(orders: Orders, call: Call) -> None:
    """Pooling, padding and resizing of as many axes as the operator's name says."""
    count = int(next(character for character in call.name if character.isdigit()))
    for y in call.outputs:
        ties.positions(orders, call.inputs[0], y, count, call.reason)


def pad(orders: Orders, call: Call) -> None:
    """The last axes may become longer."""
    x, y = call.parts
    ties.positions(orders, x, y, len(call.arguments["pad"]) // 2, call.reason)


def reshape(orders: Orders, call: Call) -> None:
    """Flatten, view, squeeze and the like."""
    ties.reshape(orders, *call.parts, call.reason)


def transpose(orders: Orders, call: Call) -> None:
    """Permutations of axes."""
    x, y = call.parts
    axes = list(range(len(x.shape)))
    if call.name == "permute":
        axes = [axis % len(axes) for axis in call.arguments["dims"]]
    elif call.name == "t":
        axes.reverse()
    elif axes:
        a, b = call.arguments["dim0"], call.arguments["dim1"]
        axes[a], axes[b] = axes[b], axes[a]
    ties.transpose(orders, x, y, axes)


def concat(orders: Orders, call: Call) -> None:
    """Tensors one after the other."""
    y = call.outputs[0]
    if any(len(x.shape) != len(y.shape) for x in call.inputs):
        opaque(orders, call)  # PyTorch lets empty tensors of any rank in
    else:
        ties.concat(orders, call.inputs, y, call.arguments["dim"])


def split(orders: Orders, call: Call) -> None:
    """The parts of a tensor: put together they are what it was."""
    ties.concat(orders, call.outputs, call.inputs[0], call.arguments["dim"])


def slicing(orders: Orders, call: Call) -> None:
    """Neighbouring entries: with those before and after them they are what it was."""
    x, y = call.parts
    axis = call.arguments["dim"] % len(x.shape)
    length = x.shape[axis]
    start, stop, step = slice(*(call.arguments[name] for name in ("start", "end", "step"))).indices(length)
    if step != 1:
        opaque(orders, call)
        return
    lengths = (start, length - max(start, stop))
    before, after = (Traced((*x.shape[:axis], part, *x.shape[axis + 1 :])) for part in lengths)
    ties.concat(orders, [part for part in (before, y, after) if part.shape[axis]], x, axis)


def glu(orders: Orders, call: Call) -> None:
    """y = a sigmoid(b), with a and b the halves of an axis."""
    x, y = call.parts
    ties.concat(orders, [y, y], x, call.arguments["dim"])


def select(orders: Orders, call: Call) -> None:
    """One entry of an axis, or each by itself; the other axes stay."""
    x = call.inputs[0]
    axis = call.arguments["dim"] % len(x.shape)
    orders.pin(orders.of(x, axis), call.reason)
    for y in call.outputs:
        ties.moved(orders, x, y, _without(x, {axis}))


def stack(orders: Orders, call: Call) -> None:
    """A new axis; the others stay."""
    y = call.outputs[0]
    axis = call.arguments["dim"] % len(y.shape)
    orders.pin(orders.of(y, axis), call.reason)
    for x in call.inputs:
        ties.moved(orders, x, y, {source: target for target, source in _without(y, {axis}).items()})


def reduction(orders: Orders, call: Call) -> None:
    """A mean, sum or extreme over axes does not look at their order; the axes that are left keep theirs."""
    x = call.inputs[0]
    gone = _reduced(call)
    for y in call.outputs:
        kept = _without(x, gone)
        ties.moved(orders, x, y, {i: i for i in kept} if len(y.shape) == len(x.shape) else kept)


def extreme(orders: Orders, call: Call) -> None:
    """An extreme; where its position is told too, what it runs over keeps its order."""
    reduction(orders, call)
    if len(call.outputs) > 1:
        ties.pin_axes(orders, call.inputs[0], _reduced(call), call.reason)


def embedding(orders: Orders, call: Call) -> None:
    """y[..., n] = weight[indices[...], n]."""
    weight, indices, y = *call.inputs, call.outputs[0]
    orders.pin(orders.of(weight, 0), call.reason)
    orders.tie(orders.of(weight, 1), orders.of(y, -1))
    ties.same(orders, indices, y, range(len(indices.shape)))


def _reduced(call: Call) -> set[int]:
    rank = len(call.inputs[0].shape)
    axes = call.arguments.get("dim")
    axes = [axes] if isinstance(axes, int) else axes
    return {axis % rank for axis in axes} if axes else set(range(rank))


def _without(x: Traced, gone: set[int]) -> dict[int, int]:
    """Return for each axis that is left where it stands when the others are gone."""
    return {axis: place for place, axis in enumerate(i for i in range(len(x.shape)) if i not in gone)}


_SAME = """_to_copy alias alpha_dropout bernoulli copy detach dropout expand exponential feature_alpha_dropout
    feature_dropout fill hardswish hardtanh lift_fresh log_sigmoid log_softmax _log_softmax masked_fill native_dropout
    normal _prelu_kernel rrelu_with_noise _safe_softmax softmax _softmax uniform zero"""
_NEW = """empty empty_like empty_strided full full_like new_empty new_empty_strided new_full new_ones new_zeros ones
    ones_like rand rand_like randn randn_like zeros zeros_like"""
_POOLS = ("adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "max_pool", "reflection_pad", "replication_pad")
_RESIZES = """_upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d max_pool2d_with_indices max_pool3d_with_indices upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), elementwise),
    **dict.fromkeys(_NEW.split(), unrelated),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), matmul),
    **dict.fromkeys(("batch_norm", "instance_norm"), channelwise),
    **dict.fromkeys(("layer_norm", "rms_norm"), trailing),
    **dict.fromkeys((f"{kind}{count}d" for kind in _POOLS for count in (1, 2, 3)), positions),
    **dict.fromkeys(_RESIZES.split(), positions),
    **dict.fromkeys(("view", "_unsafe_view", "squeeze", "unsqueeze"), reshape),
    **dict.fromkeys(("permute", "t", "transpose"), transpose),
    **dict.fromkeys(("split", "split_with_sizes"), split),
    **dict.fromkeys(("select", "unbind"), select),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "logsumexp", "std", "var", "linalg_vector_norm"), reduction),
    **dict.fromkeys(("max", "min"), extreme),
    "cat": concat,
    "constant_pad_nd": pad,
    "convolution": conv,
    "embedding": embedding,
    "glu": glu,
    "group_norm": group_norm,
    "linear": linear,
    "slice": slicing,
    "stack": stack,
}
