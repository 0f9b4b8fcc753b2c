"""Which rule each of PyTorch's operators has, and a dry run that applies them.

Elementwise operators are known by PyTorch's own tag. An operator that is composed of others is taken apart. What
remains, and is not named in `RULES`, is taken to depend on the order of every axis of its inputs and outputs: a missing
rule costs speed, not correctness.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from smx.sorting import rules
from smx.sorting.axes import Orders
from smx.sorting.rules import Call, Rule

_SAME = """_to_copy alias alpha_dropout bernoulli copy detach dropout expand exponential feature_alpha_dropout
    feature_dropout fill hardswish hardtanh lift_fresh log_sigmoid log_softmax _log_softmax masked_fill native_dropout
    normal _prelu_kernel rrelu_with_noise _safe_softmax softmax _softmax uniform zero"""
_NEW = """empty empty_like empty_strided full full_like new_empty new_empty_strided new_full new_ones new_zeros ones
    ones_like rand rand_like randn randn_like zeros zeros_like"""
_REDUCTIONS = "mean sum amax amin max min logsumexp std var linalg_vector_norm"
_POOLS = ("adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "max_pool", "reflection_pad", "replication_pad")
_RESIZES = """_upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d max_pool2d_with_indices max_pool3d_with_indices upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), rules.elementwise),
    **dict.fromkeys(_NEW.split(), rules.unrelated),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), rules.matmul),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), rules.channelwise),
    **dict.fromkeys(("layer_norm", "rms_norm"), rules.trailing),
    **dict.fromkeys((f"{kind}{count}d" for kind in _POOLS for count in (1, 2, 3)), rules.positions),
    **dict.fromkeys((*_RESIZES.split(), "constant_pad_nd"), rules.positions),
    **dict.fromkeys(("view", "_unsafe_view", "squeeze", "unsqueeze"), rules.reshape),
    **dict.fromkeys(("permute", "t", "transpose"), rules.transpose),
    **dict.fromkeys(("split", "split_with_sizes"), rules.split),
    **dict.fromkeys(("select", "unbind"), rules.select),
    **dict.fromkeys(_REDUCTIONS.split(), rules.reduction),
    "cat": rules.concat,
    "convolution": rules.conv,
    "embedding": rules.embedding,
    "glu": rules.glu,
    "linear": rules.linear,
    "slice": rules.slicing,
    "stack": rules.stack,
    "_weight_norm_interface": rules.weight_norm,
}
"""The rule of each operator, by its name in PyTorch's schema."""


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, `note` gets every operator that runs, with the rule it has; others are taken apart.

    To be used in `torch.inference_mode()`, in which operators arrive here before they are taken apart.
    """

    whole: frozenset[str] = frozenset()
    """The names of operators without a rule that are not taken apart."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note it."""
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        name = name if name.startswith("__") else name.removesuffix("_")  # the operator in place has the same rule
        rule = rules.elementwise if torch.Tag.pointwise in func.tags else RULES.get(name)
        if rule is None and name not in self.whole:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        args, kwargs = self.prepared((args, kwargs))
        result = func(*args, **kwargs)
        schema = {argument.name: argument for argument in func._schema.arguments}
        arguments = {name: argument.default_value for name, argument in schema.items()}
        arguments |= dict(zip(schema, args, strict=False)) | kwargs
        written = [arguments[name] for name, argument in schema.items() if _writes(argument)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.note(Call(name, arguments, outputs, [x for x in tree_leaves(written) if isinstance(x, Tensor)]), rule)
        return result

    def prepared(self, arguments: Any) -> Any:
        """Return the arguments with which an operator runs."""
        return arguments

    def note(self, call: Call, rule: Rule | None) -> None:
        """Take note of a call that has run; None stands for an operator that nothing is known of."""
        raise NotImplementedError


class DryRun(Operators):
    """While it is active, every operator that runs ties the orders of its inputs' and outputs' axes.

    To be used with tensors on the device `meta`, so that nothing is computed; or else with copies of all tensors, where
    a forward looks at values. It may look at those that neither weights nor floating inputs have a part in, such as
    masks and positions: no other value may decide which operators run.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.orders = Orders()
        self._shapes: dict[Tensor, torch.Size] = {}
        self._unknown: set[Tensor] = set()

    def add(self, *tensors: Tensor) -> None:
        """Let tensors take part; their axes are free."""
        for tensor in tensors:
            if self._shapes.setdefault(tensor, tensor.shape) != tensor.shape:
                raise NotImplementedError("an operator changes the shape of a tensor in place")

    def start(self, *tensors: Tensor) -> None:
        """Let weights or inputs take part, whose values are others in another run if they are floating."""
        self.add(*tensors)
        self._unknown.update(x for x in tensors if x.is_floating_point())

    def prepared(self, arguments: Any) -> Any:
        """Move the module's constants to the device `meta`, if other tensors are there."""
        return _on_meta(arguments)

    def note(self, call: Call, rule: Rule | None) -> None:
        """Apply the rule of an operator."""
        for x in call.inputs:
            if x not in self._shapes:
                self.orders.pin_all([x], "it meets a tensor that is neither parameter nor buffer")
        if not self._unknown.isdisjoint(call.inputs):
            self.check_read(call.name in _READS)
            if rule is not rules.unrelated:
                self._unknown.update(call.outputs, call.written)
        self.add(*call.inputs, *call.outputs)
        (rule or rules.opaque)(self.orders, call)

    def check_read(self, reads: bool, *tensors: Tensor) -> None:
        """Refuse to go on if a forward looks at values of these tensors."""
        if reads and (not tensors or not self._unknown.isdisjoint(tensors)):
            raise ReadError("the forward looks at values that the weights or the inputs decide")


class ReadError(Exception):
    """A forward looks at values that are others in another run."""


class Reads(TorchFunctionMode):
    """Tells a dry run of tensors that are read without an operator."""

    def __init__(self, run: DryRun) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the function's name, and run it."""
        tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
        if tensors:
            self.run.check_read(getattr(func, "__name__", "") in ("tolist", "numpy", "__array__"), *tensors)
        return func(*args, **(kwargs or {}))


_READS = {"_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique_dim", "_unique2"}
"""Operators whose result is a Python value, or has a shape that depends on values."""


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def _on_meta(arguments: Any) -> Any:
    if len({x.device for x in tree_leaves(arguments) if isinstance(x, Tensor)}) < 2:
        return arguments
    return tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, arguments)
