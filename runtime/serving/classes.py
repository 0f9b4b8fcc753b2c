"""Class names and probabilities, for requests that ask for them.

Requests ask by `parameters`: an output's `classification` of k, as Triton has it, replaces the output by its k best
classes, texts `value:index:name`; the request's `probabilities` (true) and `top_k` (k) add outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.classes import check_scores, probabilities
from smx.runtime.serving.protocol import Cause, InferRequest, Refusal, Tensor

MAX_TEXTS = 65_536
"""Of classes in one output."""


def best(values: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return the indices (B, k) of the k largest values (B, C) of each row, the largest first."""
    return np.argsort(-values, axis=1, kind="stable")[:, :k]


def further_outputs(request: InferRequest, scores: Tensor, class_names: Sequence[str]) -> list[Tensor]:
    """Return the outputs that the request's parameters add.

    Args:
        request: its parameters `probabilities` and `top_k` count.
        scores: the model's first output, (B, C).
        class_names: C names, or none where the model does not say.

    Returns:
        `probabilities`, FP32 (B, C); and with `top_k` also `class_indices`, INT64 (B, k), `class_probabilities`, FP32
        (B, k), and `class_names`, BYTES (B, k).
    """
    wanted = request.parameters.get("probabilities", False)
    if not isinstance(wanted, bool):
        raise Refusal(Cause.INVALID, f"the parameter probabilities must be true or false, got {wanted!r}")
    k = _count("top_k", request.parameters.get("top_k", 0))
    if not (wanted or k):
        return []
    try:
        found = probabilities(_scores(scores)).astype(np.float32)
    except InputError as error:
        raise Refusal(Cause.INVALID, f"{scores.name} has no probabilities: {error}") from error
    added = [Tensor("probabilities", found)] if wanted else []
    if k:
        indices = best(found, k)
        _check_texts(indices.shape)
        chosen = np.take_along_axis(found, indices, 1)
        added += [Tensor("class_indices", indices), Tensor("class_probabilities", chosen)]
        added.append(Tensor("class_names", _names(indices, class_names)))
    return added


def classification(output: Tensor, k: object, class_names: Sequence[str]) -> Tensor:
    """Return an output's k best classes, BYTES (B, k): `value:index`, and `:name` where there is one."""
    values, count = _scores(output), _count("classification", k)
    try:
        if values.size:
            check_scores(values)
    except InputError as error:
        raise Refusal(Cause.INVALID, f"{output.name} names no classes: {error}") from error
    indices = best(values, count)
    _check_texts(indices.shape)
    chosen = np.take_along_axis(values, indices, 1)
    texts = np.empty(indices.shape, np.object_)
    for place, index in np.ndenumerate(indices):
        name = f":{class_names[int(index)]}" if class_names else ""
        texts[place] = f"{chosen[place]:f}:{index}{name}"
    return Tensor(output.name, texts)


def _scores(output: Tensor) -> NDArray[np.floating]:
    if output.array.ndim != 2 or output.array.dtype.kind != "f":
        raise Refusal(
            Cause.INVALID,
            f"classes need an output (batch, classes) of floating numbers; {output.name!r} is {output.datatype}"
            f" {list(output.array.shape)}",
        )
    return output.array


def _check_texts(shape: Sequence[int]) -> None:
    """Texts are made one by one, while other requests wait."""
    if math.prod(shape) > MAX_TEXTS:
        raise Refusal(
            Cause.TOO_LARGE, f"an answer may have {MAX_TEXTS} texts, got {shape[0]} rows of {shape[1]} classes"
        )


def _count(name: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise Refusal(Cause.INVALID, f"the parameter {name} must be a whole number, at least 0, got {value!r}")
    return value


def _names(indices: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.object_]:
    names = np.empty(indices.shape, np.object_)
    for place, index in np.ndenumerate(indices):
        names[place] = class_names[int(index)] if class_names else str(index)
    return names
