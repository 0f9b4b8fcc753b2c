"""Where scale and shift of a layer's neurons can move into the weights after it, for certain and without a dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from smx.layers import Selective


def next_linears(module: nn.Module) -> dict[nn.Module, nn.Linear]:
    """Return, for each `Selective` after which one Linear alone reads the neurons, that Linear.

    Only in a chain of `nn.Sequential` is it certain what comes after a module: where the module is one, of others or
    not, and each part and each weight is used once. Identity and Dropout may stand between. What is of a class of its
    own, or has hooks, may compute something else: `weight_norm` makes a Linear's weight anew in a hook.
    """
    parts = [part for part in _chain(module) if type(part) not in (nn.Identity, nn.Dropout) or _has_hooks(part)]
    uses = Counter(id(part) for part in parts)
    weights = Counter(id(weight) for part in set(parts) for weight in part.parameters())
    return {
        part: after
        for part, after in pairwise(parts)
        if isinstance(part, Selective) and type(after) is nn.Linear and after.bias is not None
        if not (_has_hooks(part) or _has_hooks(after))
        if part.dim == -1 and part.num_features == after.in_features
        if uses[id(part)] == uses[id(after)] == 1 and all(weights[id(weight)] == 1 for weight in after.parameters())
    }


def fold(linear: nn.Linear, affine: Tensor) -> None:
    """Change a Linear so that it computes of h what it computed of c h + e; `affine` are c and e, (2, in_features).

    W (c h + e) + b  =  (W c) h + (b + W e)
    """
    with torch.no_grad():
        weight, (scale, shift) = linear.weight.double(), affine.double()
        linear.bias.copy_(linear.bias + weight @ shift)
        linear.weight.copy_(weight * scale)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of nested `nn.Sequential`s, in the order in which they run."""
    if type(module) is not nn.Sequential or _has_hooks(module):
        yield module
        return
    for part in module:
        yield from _chain(part)
