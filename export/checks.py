"""What is checked before a file is written: the module and its example; and what the file must give for some inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.errors import InputError, SmxError
from smx.example_input import ExampleInput, as_arguments, infer
from smx.export.capture import batched
from smx.hooks import random_part
from smx.runtime.parity.isolated import Sample


def samples(module: nn.Module, example: tuple[Tensor, ...], batch_sizes: tuple[int, ...]) -> list[Sample]:
    """Return what a file is compared on at each batch size: the example, and noise where its outputs are finite.

    The module is run in `eval()`, and left in the mode that it is in.

    Raises:
        SmxError: the module can't be run, is random in `eval()`, or returns something else than tensors with a batch.
    """
    random = torch.Generator().manual_seed(0)
    found: list[Sample] = []
    was_training = module.training
    module.eval()
    try:
        for batch in batch_sizes:
            tiled = batched(example, batch)
            noise = tuple(torch.randn(x.shape, generator=random).to(x) if x.is_floating_point() else x for x in tiled)
            for name, inputs in (("example", tiled), ("random", noise)):
                expected = _outputs(module, inputs)
                if not found:
                    _check_not_random(module, inputs, expected)
                if name == "example" or all(np.isfinite(output).all() for output in expected):
                    arrays = tuple(x.detach().cpu().numpy() for x in inputs)
                    found.append(Sample(name=name, inputs=arrays, expected=expected))
    finally:
        module.train(was_training)
    return found


def _check_not_random(module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[NDArray[Any], ...]) -> None:
    """Refuse a module that gives other outputs for the same inputs in a second run."""
    runs = [[output.astype(np.float64) for output in each] for each in (outputs, _outputs(module, inputs))]
    if not all(np.allclose(a, b, rtol=1e-2, atol=1e-3, equal_nan=True) for a, b in zip(*runs, strict=True)):
        where = random_part(module, *inputs)
        raise SmxError(
            f"{type(module).__name__} gives two answers to one input in eval(), which no file can do"
            f" (in {where or 'its own forward'}); F.dropout, for example, needs training=self.training"
        )


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[NDArray[Any], ...]:
    name = type(module).__name__
    try:
        with torch.no_grad():
            output = module(*inputs)
    except Exception as error:  # whatever the user's forward raises
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise SmxError(f"{name} can't run an input of shape {shapes}: {' '.join(str(error).split())}") from error
    tensors = [output] if isinstance(output, Tensor) else output
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, Tensor) and t.dim() for t in tensors):
        raise SmxError(
            f"{name} returns a {type(output).__name__}; only a tensor (B, *) or a tuple of such can be exported"
        )
    return tuple(tensor.cpu().numpy() for tensor in tensors)


def example_of(module: nn.Module, example_input: ExampleInput | None) -> tuple[Tensor, ...]:
    """Return the example inputs (B, *) as a tuple; zeros (2, N) where none are given and the first layer tells N.

    Raises:
        InputError: they are not tensors with a batch, or none can be inferred.
    """
    if example_input is None:
        try:
            inferred = infer(module, any_size=False)
        except ValueError as error:
            raise InputError(
                f"the first layer of {type(module).__name__} does not tell the shape of the input;"
                " give example_input, a tensor (B, *)"
            ) from error
        device = next((parameter.device for parameter in module.parameters()), None)
        return (torch.zeros(2, *inferred.shape[1:], dtype=inferred.dtype, device=device),)
    example = as_arguments(example_input)
    bad = [x for x in example if not isinstance(x, Tensor) or not x.dim() or not len(x)]
    if bad or not example:
        got = tuple(bad[0].shape) if bad and isinstance(bad[0], Tensor) else type((bad or [None])[0]).__name__
        raise InputError(f"example_input must be a tensor (B, *) or a tuple of them, with B at least 1, got {got}")
    return example


def check_weights(module: nn.Module) -> None:
    """Raise an InputError for weights that are not finite, or bfloat16, which many ONNX operators don't take."""
    for name, parameter in module.named_parameters():
        if parameter.dtype == torch.bfloat16:
            raise InputError(f"{name} is bfloat16, which can't be exported; convert the module: module.float()")
        if not bool(torch.isfinite(parameter).all()):
            raise InputError(f"{name} has values that are not finite; such a model can't be exported")
