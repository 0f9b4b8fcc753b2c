"""Classes of examples, by an ONNX file. Runs on the base install."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.classes import names_of, softmax
from smx.runtime.samples import load_samples
from smx.runtime.session import Session

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
        note: what `smx tune` found faster than the defaults, or why it is not used; None if there is nothing to say.
    """

    model: str
    examples: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: NDArray[np.float64]
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
        return {"model": self.model, "classes": list(self.class_names), "predictions": predictions}


def classify(
    onnx_path: str | os.PathLike[str],
    samples: str | os.PathLike[str] | NDArray[Any],
    *,
    invert: bool = False,
    provider: str = "cpu",
    allow_fallback: bool = False,
) -> Classification:
    """Classify arrays or images by an ONNX file.

    Args:
        onnx_path: the file; it has one input of fixed size and returns class scores (B, C).
        samples: an array (B, *) or one example (*); or the path of an `.npy` or `.npz` file, of an image, or of a
            folder of images. Whole numbers are raw values and are normalised as in training; floating numbers are
            taken as they are; images are resized to the model's size.
        invert: the images are dark on light, and the model knows light on dark.
        provider, allow_fallback: see `smx.runtime.Session`.

    Raises:
        InputError: the file or the samples can't be read, or do not fit each other.
    """
    session = Session(onnx_path, provider, allow_fallback=allow_fallback)
    if len(session.inputs) != 1 or not all(isinstance(size, int) for size in session.inputs[0].shape[1:]):
        raise InputError(f"{onnx_path} must have one input of shape (batch, fixed sizes) to classify examples")
    given = samples if isinstance(samples, np.ndarray) else Path(samples)
    info, tuning = session.info, session.tuning
    names, x = load_samples(given, session.inputs[0].shape[1:], info, invert=invert, raw=session.takes_raw)
    scores = session.run(x, batch_size=BATCH)
    if scores.ndim != 2 or len(scores) != len(x):
        raise InputError(f"{onnx_path} must return one row of class scores an example, got shape {scores.shape}")
    return Classification(
        model=str(onnx_path),
        examples=tuple(names),
        class_names=names_of(scores.shape[1], info.class_names if info else ()),
        probabilities=softmax(scores),
        note=f"tuned: {tuning.describe()}" if tuning and not tuning.keeps_defaults else session.note,
    )
