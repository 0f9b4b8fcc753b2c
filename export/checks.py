"""What is checked before a file is written: the module and its example; and what the file must give for some inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.calling import Flat, evaluating, tensors_by_name
from smx.errors import InputError, SmxError, one_line
from smx.example_input import ExampleInput, as_arguments, infer
from smx.export.places import place_of, squeezed_at
from smx.hooks import random_part
from smx.runtime.parity.isolated import Sample
from smx.wrappers import copied, not_finite, plain, unwrapped


def samples(flat: Flat, examples: Sequence[tuple[str, tuple[Tensor, ...]]]) -> tuple[list[Sample], list[str]]:
    """Return what a file is compared on, and the names of its outputs.

    Args:
        flat: is run in `eval()`, and left in the mode that it is in.
        examples: names and inputs, a tensor (B, *) for each argument. Noise of the same shapes follows each of them,
            where the outputs for it are finite.

    Raises:
        SmxError: the module can't be run, is random in `eval()`, returns something else than tensors with a batch, or
            loses the batch where it is 1.
    """
    random = torch.Generator().manual_seed(0)
    found: list[Sample] = []
    ranks: list[int] = []
    names: list[str] = []
    with evaluating(flat):
        for name, inputs in examples:
            noise = tuple(torch.randn(x.shape, generator=random).to(x) if x.is_floating_point() else x for x in inputs)
            for title, values in ((name, inputs), (name.replace("example", "random"), noise)):
                outputs = _outputs(flat, values)
                expected = tuple(outputs.values())
                if not found:
                    names = list(outputs)
                    _check_not_random(flat, values, expected)
                ranks = ranks or [output.ndim for output in expected]
                if [output.ndim for output in expected] != ranks:
                    raise _lost_batch(flat, examples[0][1])
                if title == name or all(np.isfinite(output).all() for output in expected):
                    arrays = tuple(x.detach().cpu().numpy() for x in values)
                    found.append(Sample(name=title, inputs=arrays, expected=expected))
    return found, names


def _check_not_random(flat: Flat, inputs: tuple[Tensor, ...], outputs: tuple[NDArray[Any], ...]) -> None:
    """Refuse a module that gives other outputs for the same inputs in a second run."""
    again = tuple(_outputs(flat, inputs).values())
    runs = [[output.astype(np.float64) for output in each] for each in (outputs, again)]
    if not all(np.allclose(a, b, rtol=1e-2, atol=1e-3, equal_nan=True) for a, b in zip(*runs, strict=True)):
        where = random_part(flat, *inputs)
        raise SmxError(
            f"{name_of(flat)} gives two answers to one input in eval(), which no file can do"
            f" (in {where or 'its own forward'}); F.dropout, for example, needs training=self.training"
        )


def _outputs(flat: Flat, inputs: tuple[Tensor, ...]) -> dict[str, NDArray[Any]]:
    name, shapes = name_of(flat), ", ".join(str(tuple(x.shape)) for x in inputs)
    try:
        with torch.no_grad():
            result = flat.result(*inputs)
    except Exception as error:  # whatever the user's forward raises
        where = place_of(error, flat)
        text = f"{name} can't run an input of shape {shapes}: {one_line(error)}{where and ' '}{where}"
        raise SmxError(text + _other_dtype(flat, inputs)) from error
    try:
        tensors = tensors_by_name(result)
    except TypeError as error:
        raise SmxError(
            f"{name} can't be exported: {error}; it must return tensors (B, *), in lists, dicts or dataclasses"
            " (in transformers, use_cache=False leaves out the cache)"
        ) from error
    if not tensors:
        raise SmxError(f"{name} returns no tensor; only tensors (B, *) can be exported")
    for key, tensor in tensors.items():
        if not tensor.dim():
            where = squeezed_at(flat, inputs)
            problem = f"returns one number as its {key} for an input of shape {shapes}"
            remedy = f": squeeze() {where} takes the batch away; give it the axis" if where else ", not (B, *)"
            raise SmxError(f"{name} {problem}{remedy}")
    return {key: tensor.cpu().numpy() for key, tensor in tensors.items()}


def _other_dtype(flat: Flat, inputs: tuple[Tensor, ...]) -> str:
    """Say what to do where the weights have another dtype than the example."""
    own = {x.dtype for x in flat.parameters() if x.is_floating_point()}
    given = {x.dtype for x in inputs if x.is_floating_point()}
    if len(own) != 1 or not given or own & given:
        return ""
    (dtype,) = (str(found).removeprefix("torch.") for found in own)
    return f"; its weights are {dtype}: give an example_input of {dtype}, or export module.float()"


def _lost_batch(flat: Flat, inputs: tuple[Tensor, ...]) -> SmxError:
    """Return the error of a module whose outputs have fewer axes at a batch of 1; `inputs` are of such a batch."""
    where = squeezed_at(flat, inputs)
    cause = f"squeeze() {where} takes the batch away; give it the axis" if where else "the batch gets lost"
    return SmxError(f"{name_of(flat)} returns fewer axes for a batch of 1 than for others: {cause}")


def name_of(flat: Flat) -> str:
    """Return the name of the network's class."""
    return type(flat.module).__name__


def flattened(module: nn.Module, example_input: ExampleInput | None) -> Flat:
    """Return a copy of a module, which shares its weights, with its example, in which every input has a batch.

    Weights that the module computes from others, as by `torch.nn.utils.parametrizations`, are plain ones in the copy.

    The example is zeros (2, N) where none is given and the first layer tells N.

    Raises:
        InputError: the module can't be copied, or is one of TorchScript or quantized; the example's inputs are not
            tensors with a batch, or none can be inferred.
    """
    try:
        module = copied(unwrapped(module, levels=4), module.parameters())
    except ValueError as error:
        raise InputError(f"{type(module).__name__} can't be exported: {error}") from error
    plain(module)
    if example_input is None:
        try:
            inferred = infer(module, any_size=False)
        except ValueError as error:
            raise InputError(
                f"the first layer of {type(module).__name__} does not tell the shape of the input;"
                " give example_input, a tensor (B, *)"
            ) from error
        device = next((parameter.device for parameter in module.parameters()), None)
        return Flat(module, (torch.zeros(2, *inferred.shape[1:], dtype=inferred.dtype, device=device),))
    flat = Flat(module, as_arguments(example_input, module))
    bad = [x for x in flat.example if not x.dim() or not len(x)]
    if bad or not flat.example:
        got = tuple(bad[0].shape) if bad else type(example_input).__name__
        raise InputError(f"example_input must be a tensor (B, *) or a tuple of them, with B at least 1, got {got}")
    return flat


def new_names(given: Sequence[str] | None, usual: Sequence[str], taken: Collection[str], what: str) -> list[str]:
    """Return the names of a file's inputs or outputs: those that are given, or the usual ones.

    Args:
        given: by the user; None takes the usual ones, with the kind behind them where they are taken.
        usual: as many as there are.
        taken: by weights and the other end.
        what: `input` or `output`.

    Raises:
        InputError: too many or too few are given, one twice, or an empty or a taken one.
    """
    if given is None:
        return [f"{name}_{what}" if name in taken else name for name in usual]
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != len(usual):
        raise InputError(f"the model has {len(usual)} {what}s, {', '.join(usual)}, got {len(names)} {what} names")
    for name in names:
        if not isinstance(name, str) or not name or names.count(name) > 1 or name in taken:
            raise InputError(f"each {what} needs a name that nothing else in the model has, got {name!r}")
    return names


def check_weights(module: nn.Module) -> None:
    """Raise an InputError for weights that are not finite, or bfloat16, which many ONNX operators don't take."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dtype == torch.bfloat16:
            raise InputError(f"{name} is bfloat16, which can't be exported; convert the module: module.float()")
        if not_finite(name, tensor, parameter=isinstance(tensor, nn.Parameter)):
            raise InputError(f"{name} has values that are not finite; such a model can't be exported")
