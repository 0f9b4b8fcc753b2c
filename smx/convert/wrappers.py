"""Modules around a network, and networks that can't be changed or copied."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside of torch.compile's module, of DataParallel and of DistributedDataParallel.

    Raises:
        ValueError: the network, or a part of it, is compiled by TorchScript or quantized.
    """
    while True:
        if type(module).__name__ == "OptimizedModule" and isinstance(
            inner := getattr(module, "_orig_mod", None), nn.Module
        ):
            warnings.warn("torch.compile's module is left away; compile the result again", stacklevel=4)
            module = inner
        elif isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            break
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


def copied(module: nn.Module) -> nn.Module:
    """Return a deep copy.

    Raises:
        ValueError: it can't be copied.
    """
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        for path, part in module.named_modules():
            for hook in part._forward_pre_hooks.values():
                if type(hook).__name__ in _REMEDIES:
                    remedy = _REMEDIES[type(hook).__name__]
                    raise ValueError(f"{path or 'the module'} can't be copied; call {remedy} first") from error
        line = str(error).splitlines()[0]
        raise ValueError(f"{type(module).__name__} can't be copied by copy.deepcopy: {line}") from error


_REMEDIES = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm, or use torch.nn.utils.parametrizations.weight_norm,",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm, or use torch.nn.utils.parametrizations.spectral_norm,",
    **dict.fromkeys(
        ("L1Unstructured", "RandomUnstructured", "RandomStructured", "LnStructured", "CustomFromMask", "Identity"),
        "torch.nn.utils.prune.remove",
    ),
}
