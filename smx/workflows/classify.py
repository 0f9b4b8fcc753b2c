"""Classes of examples, by an ONNX file. Runs on the base install."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.classes import names_of, probabilities
from smx.runtime.metadata import ModelInfo
from smx.runtime.samples import load_samples
from smx.runtime.session import DTYPES, Session

BATCH = 1024
"""Examples a run."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What a file says of examples.

    Attributes:
        model: path of the file.
        examples: a name for each example.
        class_names: one for each output; numbers where the file does not say.
        probabilities: float64 (B, C), each row sums to 1.
        left: files of a folder, or of several that were given, that could not be read, and why.
        note: what `smx tune` found faster than the defaults, or why it is not used; None if there is nothing to say.
    """

    model: str
    examples: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...]
    probabilities: NDArray[np.float64]
    left: dict[str, str] = field(default_factory=dict)
    note: str | None = None

    @property
    def indices(self) -> NDArray[np.int64]:
        """The most probable class of each example, int64 (B,)."""
        best: NDArray[np.int64] = self.probabilities.argmax(1)
        return best

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of the most probable class of each example."""
        return tuple(self.class_names[index] for index in self.indices)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        found = zip(self.examples, self.classes, self.indices.tolist(), self.probabilities.tolist(), strict=True)
        predictions = [
            {"example": example, "class": name, "index": index, "probabilities": [round(p, 6) for p in row]}
            for example, name, index, row in found
        ]
        left = [{"file": name, "reason": reason} for name, reason in self.left.items()]
        return {"model": self.model, "classes": list(self.class_names), "predictions": predictions, "left": left}


def classify(
    onnx_path: str | os.PathLike[str],
    samples: str | os.PathLike[str] | NDArray[Any] | Sequence[str | os.PathLike[str]],
    *,
    invert: bool = False,
    provider: str = "cpu",
    allow_fallback: bool = False,
) -> Classification:
    """Classify arrays or images by an ONNX file.

    Args:
        onnx_path: the file; it has one input of fixed size and returns class scores (B, C); labels (B,) may come first,
            as in scikit-learn's.
        samples: an array (B, *) or one example (*); or the path of an `.npy` or `.npz` file, of an image, or of a
            folder of images; or several such paths. What can't be read of a folder, or of several paths, is left out.
            Whole numbers are raw values and are normalised as in training; floating numbers are taken as they are;
            images are resized to the model's size.
        invert: the images are dark on light, and the model knows light on dark.
        provider, allow_fallback: see `smx.runtime.Session`.

    Raises:
        InputError: the file or the samples can't be read, or do not fit each other.
    """
    session = Session(onnx_path, provider, allow_fallback=allow_fallback)
    if len(session.inputs) != 1 or not all(isinstance(size, int) for size in session.inputs[0].shape[1:]):
        raise InputError(f"{onnx_path} must have one input of shape (batch, fixed sizes) to classify examples")
    info, tuning, left = session.info, session.tuning, dict[str, str]()
    dtype = DTYPES.get(session.inputs[0].type)
    unscaled = dtype is not None and dtype.kind in "iu"
    how: dict[str, Any] = {"invert": invert, "raw": session.takes_raw, "unscaled": unscaled, "left": left}
    shape = session.inputs[0].shape[1:]
    if hasattr(samples, "__array__"):  # as a tensor has it, too
        samples = np.asarray(samples)
    if isinstance(samples, np.ndarray):
        names, x = load_samples(samples, shape, info, **how)
    elif isinstance(samples, str | os.PathLike):
        names, x = load_samples(Path(samples), shape, info, **how)
    else:
        names, x = _several([Path(path) for path in samples], shape, info, how)
    scores, known = _scores(session.run_all(x, batch_size=BATCH))
    if scores.ndim != 2 or len(scores) != len(x) or scores.dtype.kind not in "biuf":
        got = f"{scores.dtype} of shape {scores.shape}"
        raise InputError(f"{onnx_path} must return one row of class scores an example, got {got}")
    try:
        found = probabilities(scores)
    except InputError as error:
        raise InputError(f"{onnx_path} can't be used to classify: {error}") from error
    return Classification(
        model=str(onnx_path),
        examples=tuple(names),
        class_names=names_of(scores.shape[1], info.class_names if info else known),
        probabilities=found,
        left=left,
        note=f"tuned: {tuning.describe()}" if tuning and not tuning.keeps_defaults else session.note,
    )


def _scores(outputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the output with the class scores (B, C), and the names of the classes, if it has some.

    It is the first one; but classifiers of other tools put the labels (B,) before it.
    """
    first, *others = outputs
    if first.ndim == 1 and first.dtype.kind in "iuO" and others:
        first = others[0]
    names = first.dtype.names or ()
    return np.stack([first[name] for name in names], 1) if names else first, names


def _several(
    paths: Sequence[Path], shape: Sequence[int], info: ModelInfo | None, how: dict[str, Any]
) -> tuple[list[str], NDArray[Any]]:
    """Read the examples of several paths, each named with the path that was given."""
    if not paths:
        raise InputError("no examples are given; give an array, or paths of arrays, images or folders")
    names: list[str] = []
    arrays = []
    for path in paths:
        inside: dict[str, str] = {}
        try:
            own, x = load_samples(path, shape, info, **{**how, "left": inside})
        except InputError as error:
            if len(paths) == 1:
                raise
            how["left"][str(path)] = str(error)
            continue
        names += [str(path.parent / name) if path.is_file() else str(path / name) for name in own]
        how["left"] |= {str(path / name): reason for name, reason in inside.items()}
        arrays.append(x)
    if not arrays:
        raise InputError(f"none of {', '.join(map(str, paths))} can be read: {next(iter(how['left'].values()))}")
    return names, np.concatenate(arrays)
