"""What forward hooks show of a module: the values of its mixed layers, and what in it is random."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from smx.calling import parts, tensors_by_name
from smx.layers import Mixed


class LayerValues(NamedTuple):
    """Module path, input and output of one call of a `Mixed` layer; z and h (B, N, *), or N on another axis."""

    layer: str
    z: Tensor
    h: Tensor


def layer_values(
    module: nn.Module, *inputs: Tensor, substitutes: Sequence[LayerValues] = ()
) -> tuple[list[LayerValues], tuple[Tensor, ...]]:
    """Run a module without gradients; return the values of each call of its mixed layers, in order, and its outputs.

    Args:
        module: in the mode in which it is.
        inputs: tensors (B, *), one for each argument.
        substitutes: values of another run, which keep the errors of one layer out of the next ones. Call k of a mixed
            layer computes h from `substitutes[k].z`, and the rest of the module continues with `substitutes[k].h`;
            returned are the z that the call received and the h that it computed. A call without a substitute, or with
            one of another shape, runs as usual.
    """
    seen: list[LayerValues] = []
    layers = [(name, layer) for name, layer in parts(module) if isinstance(layer, Mixed)]

    def note(name: str, layer: nn.Module, arguments: tuple[Tensor, ...], h: Tensor) -> Tensor:
        z = arguments[0].clone()
        other = substitutes[len(seen)] if len(seen) < len(substitutes) else None
        if other is None or other.z.shape != h.shape:
            seen.append(LayerValues(name, z, h.clone()))
            return h
        seen.append(LayerValues(name, z, layer.forward(other.z.to(h))))
        return other.h.to(h)

    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers]
    try:
        with torch.no_grad():
            outputs = module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return seen, tuple(tensors_by_name(outputs).values())


def random_part(module: nn.Module, *inputs: Tensor) -> str | None:
    """Return the path of the innermost module that answers the same inputs otherwise in a second run; or None.

    Args:
        module: in the mode in which it is; "" stands for itself.
        inputs: the arguments of its forward.
    """
    runs: list[list[tuple[str, list[Tensor], list[Tensor]]]] = []

    def note(path: str, part: nn.Module, arguments: Any, outputs: Any) -> None:
        runs[-1].append((path, _cloned(arguments), _cloned(outputs)))

    hooks = [part.register_forward_hook(partial(note, path)) for path, part in parts(module)]
    try:
        with torch.no_grad():
            for _ in range(2):
                runs.append([])
                module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    first, second = runs
    for (path, arguments, outputs), (_, again, others) in zip(first, second, strict=False):
        if _alike(arguments, again) and not _alike(outputs, others):
            return path
    return None


def _cloned(values: Any) -> list[Tensor]:
    return [x.clone() for x in tree_leaves(values) if isinstance(x, Tensor)]


def _alike(tensors: list[Tensor], others: list[Tensor]) -> bool:
    """Compare loosely, since some operators of GPUs add in another order each time."""
    if [x.shape for x in tensors] != [x.shape for x in others]:
        return False
    return all(torch.allclose(a.double(), b.double(), 1e-2, 1e-3, True) for a, b in zip(tensors, others, strict=True))


def kinks(module: nn.Module, x: Tensor, *, neurons: int = 32, steps: int = 40, seed: int = 0) -> Tensor:
    """Find inputs at which neurons of the mixed layers have z = 0, the kink of ReLU, Leaky ReLU, ELU and SELU.

    The input of a neuron is found by bisection between two examples, one with z < 0 and one with z >= 0; a neuron
    without two such examples is left out. If a neuron has several values an example, as a channel of a Conv has, the
    first of them becomes 0.

    Args:
        module: takes one input; it should be in `eval()`.
        x: floating (B, *), the examples.
        neurons: at most this many of each layer, evenly spaced.
        steps: number of bisections.
        seed: for the choice of examples.

    Returns:
        One input for each neuron, (M, *), of x's dtype; M may be 0.

    Raises:
        ValueError: x is not floating.
    """
    if not x.is_floating_point():
        raise ValueError(f"kinks are searched between floating inputs, got {x.dtype}")
    layers = _first_values(module, x)
    if not layers:
        return x[:0]
    z = torch.cat(layers, 1)
    chosen = _spread([layer.shape[1] for layer in layers], neurons).to(z.device)
    chosen = chosen[((z < 0).any(0) & (z >= 0).any(0))[chosen]]
    if not len(chosen):
        return x[:0]
    random = torch.Generator().manual_seed(seed)
    sides = (side[:, chosen].T.cpu().float() for side in (z < 0, z >= 0))  # (M, B): 1 for examples on this side
    below, above = (x[torch.multinomial(side, 1, generator=random)[:, 0]] for side in sides)
    best, smallest = above, torch.full_like(z[0, chosen], torch.inf)
    for _ in range(steps):
        middle = below + (above - below) / 2
        z = torch.cat(_first_values(module, middle), 1)[torch.arange(len(chosen)), chosen]
        best = _where(z.abs() < smallest, middle, best)
        smallest = torch.minimum(z.abs(), smallest)
        below, above = _where(z < 0, middle, below), _where(z < 0, above, middle)
    return best


def _first_values(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the first value of each neuron, (B, N), for each call of a mixed layer whose z has B examples."""
    dims = {name: layer.dim for name, layer in parts(module) if isinstance(layer, Mixed)}
    seen = [values.z.movedim(dims[values.layer], 1) for values in layer_values(module, x)[0]]
    return [z.reshape(*z.shape[:2], -1)[..., 0] for z in seen if len(z) == len(x)]


def _spread(sizes: list[int], count: int) -> Tensor:
    """Return the indices of `count` evenly spaced neurons of each layer, among those of all layers: int64 (K,)."""
    starts = accumulate(sizes[:-1], initial=0)
    chosen = [start + torch.arange(min(count, n)) * n // min(count, n) for start, n in zip(starts, sizes, strict=True)]
    return torch.cat(chosen)


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)
