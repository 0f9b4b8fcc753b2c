"""Modules around a network, and networks that can't be changed or copied."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def unwrapped(module: nn.Module, *, levels: int = 3) -> nn.Module:
    """Return the network inside of torch.compile's module, of DataParallel and of DistributedDataParallel.

    Args:
        module: any module; not changed.
        levels: how many calls above the warning the user's own line is.

    Raises:
        ValueError: the network, or a part of it, is compiled by TorchScript or quantized.
    """
    while (inner := _inner(module)) is not None:
        if _is_compiled(module):
            warnings.warn("torch.compile's module is left away; compile the result again", stacklevel=levels)
        module = inner
    for path, part in module.named_modules():
        where = f"{path!r} is" if path else "it is"
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(
                f"{where} a ScriptModule, whose forward can't be changed; give the module it was made from"
            )
        if ".quantized" in type(part).__module__:
            raise ValueError(
                f"{where} quantized, so that nothing is left to train; give the module before quantization"
            )
    return module


def copied(module: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Return a deep copy, in which no part is wrapped by torch.compile or DataParallel.

    Args:
        module: not changed.
        shared: tensors of it that the copy shares with it.

    Raises:
        ValueError: it can't be copied.
    """
    try:
        result = copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
    except RuntimeError as error:
        for path, part in module.named_modules():
            for hook in part._forward_pre_hooks.values():
                if type(hook).__name__ in _REMEDIES:
                    remedy = _REMEDIES[type(hook).__name__]
                    raise ValueError(f"{path or 'the module'} can't be copied; call {remedy} first") from error
        line = str(error).splitlines()[0]
        raise ValueError(f"{type(module).__name__} can't be copied by copy.deepcopy: {line}") from error
    for part in list(result.modules()):
        for name, child in list(part.named_children()):
            while (inner := _inner(child)) is not None:
                child = inner
                setattr(part, name, child)
    return result


def _inner(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps; None for a network."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = module.module
        return wrapped
    inner = getattr(module, "_orig_mod", None) if _is_compiled(module) else None
    return inner if isinstance(inner, nn.Module) else None


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule"


STATISTICS = ("running_mean", "running_var")
"""Names of buffers that are finite in any network that works; others may be infinite, as masks are."""

_REMEDIES = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm, or use torch.nn.utils.parametrizations.weight_norm,",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm, or use torch.nn.utils.parametrizations.spectral_norm,",
    **dict.fromkeys(
        ("L1Unstructured", "RandomUnstructured", "RandomStructured", "LnStructured", "CustomFromMask", "Identity"),
        "torch.nn.utils.prune.remove",
    ),
}
