"""What the mixed layers of a module see: their pre-activations and activations, by forward hooks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smx.layers import Mixed


class LayerValues(NamedTuple):
    """What one call of a `Mixed` layer took and gave.

    Attributes:
        layer: its module path.
        z: (B, N, *), or N on another axis.
        h: shaped like z.
    """

    layer: str
    z: Tensor
    h: Tensor


def layer_values(
    module: nn.Module, *inputs: Tensor, given: Sequence[LayerValues] = ()
) -> tuple[list[LayerValues], tuple[Tensor, ...]]:
    """Run a module without gradients; return what its mixed layers saw, in the order of their calls, and its outputs.

    Args:
        module: run as it is; a layer that is called twice occurs twice.
        inputs: tensors (B, *), one for each argument.
        given: runs the module in parts. Call k gives `given[k].h` to what comes after it, whatever came to it; what is
            returned for it is the z that came, and the h that the layer makes of `given[k].z`. A call for which nothing
            is given, or something of another shape, is run as usual.
    """
    seen: list[LayerValues] = []
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, Mixed)]

    def hook(name: str) -> Any:
        def note(layer: nn.Module, taken: tuple[Tensor, ...], h: Tensor) -> Tensor:
            other = given[len(seen)] if len(seen) < len(given) else None
            if other is None or other.z.shape != h.shape:
                seen.append(LayerValues(name, taken[0].clone(), h.clone()))
                return h
            seen.append(LayerValues(name, taken[0].clone(), layer.forward(other.z.to(h))))
            return other.h.to(h)

        return note

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            outputs = module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return seen, (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def kinks(module: nn.Module, x: Tensor, *, neurons: int = 32, steps: int = 40, seed: int = 0) -> Tensor:
    """Find inputs at which neurons of the mixed layers stand at the kink of their activation.

    That is z = 0, where ReLU, Leaky ReLU, ELU and SELU change form. A neuron's input is found by bisection between two
    examples, one where its z is negative and one where it isn't; neurons without two such examples are left out. Where
    a neuron has several values an example, like a channel of a Conv, it is the first that becomes 0.

    Args:
        module: takes one input, and is run as it is; it should be in `eval()`.
        x: floating (B, *), the examples.
        neurons: of each layer at most, spread evenly.
        steps: of the bisection.
        seed: of the choice of examples.

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
    below, above = (x[_one_of_each_row(side[:, chosen].T, random)] for side in (z < 0, z >= 0))
    best, smallest = above, torch.full_like(z[0, chosen], torch.inf)
    for _ in range(steps):
        middle = below + (above - below) / 2
        z = torch.cat(_first_values(module, middle), 1)[torch.arange(len(chosen)), chosen]
        best = _where(z.abs() < smallest, middle, best)
        smallest = torch.minimum(z.abs(), smallest)
        below, above = _where(z < 0, middle, below), _where(z < 0, above, middle)
    return best


def _first_values(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the first value of each neuron, (B, N) for each call of a mixed layer that keeps the examples apart."""
    dims = {name: layer.dim for name, layer in module.named_modules() if isinstance(layer, Mixed)}
    seen = [values.z.movedim(dims[values.layer], 1) for values in layer_values(module, x)[0]]
    return [z.reshape(*z.shape[:2], -1)[..., 0] for z in seen if len(z) == len(x)]


def _spread(sizes: list[int], count: int) -> Tensor:
    """Choose so many neurons of each layer, as columns of the layers side by side: int64 (K,)."""
    starts = accumulate(sizes[:-1], initial=0)
    chosen = [start + torch.arange(min(count, n)) * n // min(count, n) for start, n in zip(starts, sizes, strict=True)]
    return torch.cat(chosen)


def _one_of_each_row(mask: Tensor, random: torch.Generator) -> Tensor:
    """Draw for each row the index of an entry that is true: (K, B) -> int64 (K,)."""
    return torch.multinomial(mask.cpu().float(), 1, generator=random)[:, 0].to(mask.device)


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)
