"""Modules around a network, and networks that can't be changed or copied."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def unwrapped(module: nn.Module, *, levels: int = 3) -> nn.Module:
    """Return the network inside of torch.compile's module, of DataParallel and of DistributedDataParallel.

    Args:
        module: any module; not changed.
        levels: how many calls above the warning the user's own line is.

    Raises:
        ValueError: it is no module; or the network, or a part of it, is compiled by TorchScript or quantized.
    """
    if not isinstance(module, nn.Module):
        got = f"the class {module.__name__}" if isinstance(module, type) else f"{type(module).__name__} {module!r:.80}"
        raise ValueError(f"a network must be a torch.nn.Module, got {got}; smx.load reads that of a file")
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


def compiled(network: nn.Module) -> nn.Module:
    """Return the network by `torch.compile`, as a whole, with a limit of its own on how often it is compiled.

    `nn.Module.compile` would leave out the forward of PyTorch's own modules, such as nn.Sequential. And by default all
    networks of a class share one limit; those beyond it would run without the compiler.
    """
    module: nn.Module = torch.compile(network, isolate_recompiles=True)  # type: ignore[call-overload]
    return module


def copied(module: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Return a deep copy, in which no part is wrapped by torch.compile or DataParallel.

    Args:
        module: not changed.
        shared: tensors of it that the copy shares with it.

    Raises:
        ValueError: it can't be copied.
    """
    copies: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    try:
        result = copy.deepcopy(module, copies)
    except RuntimeError as error:
        for path, part in module.named_modules():
            for hook in part._forward_pre_hooks.values():
                if type(hook).__name__ in _REMEDIES:
                    remedy = _REMEDIES[type(hook).__name__]
                    raise ValueError(f"{path or 'the module'} can't be copied; call {remedy} first") from error
        line = str(error).splitlines()[0]
        raise ValueError(f"{type(module).__name__} can't be copied by copy.deepcopy: {line}") from error
    for part in list(result.modules()):
        _rebind(part, copies)
        for name, child in list(part.named_children()):
            while (inner := _inner(child)) is not None:
                child = inner
                setattr(part, name, child)
    return result


def _rebind(part: nn.Module, copies: Mapping[int, Any]) -> None:
    """Let the functions that a copied module has as attributes use the copy; deepcopy leaves them with the original.

    What torch.compile put around methods is left away.

    Args:
        part: changed in place.
        copies: by the ids of the originals.
    """
    for key, value in list(vars(part).items()):
        method = getattr(value, "_torchdynamo_orig_callable", None)
        if isinstance(method, MethodType) and id(method.__self__) in copies:
            vars(part)[key] = MethodType(method.__func__, copies[id(method.__self__)])
            if getattr(type(part), key, None) is method.__func__:
                del vars(part)[key]
        elif isinstance(value, list | dict) and "hooks" not in key:
            for place, entry in list(enumerate(value) if isinstance(value, list) else value.items()):
                value[place] = _rebound(entry, copies)
        else:
            vars(part)[key] = _rebound(value, copies)


def _rebound(function: Any, copies: Mapping[int, Any]) -> Any:
    """Return a function whose variables are the copied modules; the same one if it has no modules."""
    cells = function.__closure__ or () if isinstance(function, FunctionType) else ()
    found = [_content(cell) for cell in cells]
    if not any(isinstance(x, nn.Module) and id(x) in copies for x in found):
        return function
    closure = tuple(
        CellType(copies[id(x)]) if isinstance(x, nn.Module) and id(x) in copies else cell
        for x, cell in zip(found, cells, strict=True)
    )
    new = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, closure)
    new.__kwdefaults__ = function.__kwdefaults__
    return new


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it has none yet
        return None


def plain(module: nn.Module) -> None:
    """Replace weights that are computed from others (`torch.nn.utils.parametrizations`) by their values in `eval()`.

    Args:
        module: changed in place; tensors that it shares with another module stay as they are.
    """
    for part in list(module.modules()):
        if parametrize.is_parametrized(part) and type(part).__name__.startswith("Parametrized"):
            training, computed = part.training, part.parametrizations
            assert isinstance(computed, nn.ModuleDict)
            values = {name: getattr(part.eval(), name).detach().clone() for name in computed}
            part.train(training)
            del part.parametrizations
            part.__class__ = type(part).__bases__[0]
            for name, value in values.items():
                part.register_parameter(name, nn.Parameter(value, requires_grad=value.is_floating_point()))


def _inner(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps; None for a network."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = module.module
        return wrapped
    inner = getattr(module, "_orig_mod", None) if _is_compiled(module) else None
    return inner if isinstance(inner, nn.Module) else None


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule"


def not_finite(name: str, tensor: Tensor, *, parameter: bool) -> int:
    """Count the values of a weight that no network that works has.

    Those of parameters, and of the statistics of a norm, are finite. Other buffers may be infinite, as masks are, but
    not NaN.
    """
    may_be_infinite = not parameter and name.rpartition(".")[2] not in _STATISTICS
    return int((torch.isnan(tensor) if may_be_infinite else ~torch.isfinite(tensor)).sum())


_STATISTICS = ("running_mean", "running_var")
_REMEDIES = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm, or use torch.nn.utils.parametrizations.weight_norm,",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm, or use torch.nn.utils.parametrizations.spectral_norm,",
    **dict.fromkeys(
        ("L1Unstructured", "RandomUnstructured", "RandomStructured", "LnStructured", "CustomFromMask", "Identity"),
        "torch.nn.utils.prune.remove",
    ),
}
