"""MNIST, Fashion-MNIST and CIFAR-10, read by torchvision and downloaded only when absent."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smx.data.dataset import Dataset, build
from smx.errors import InputError, SmxError, one_line


@dataclass(frozen=True)
class _Source:
    """A data set of torchvision's: its class, and its files, all in one folder of `data_dir`."""

    kind: str
    folder: str
    files: tuple[str, ...]


_IDX = tuple(f"{part}-{content}-ubyte" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1"))
_OTHERS = ("test_batch", "batches.meta")
SOURCES = {
    "mnist": _Source("MNIST", "MNIST/raw", _IDX),
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST/raw", _IDX),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", (*(f"data_batch_{i}" for i in range(1, 6)), *_OTHERS)),
}


def load_torchvision(name: str, data_dir: Path) -> Dataset:
    """Load one of `SOURCES` from `data_dir`, in torchvision's layout.

    The examples are uint8, (28, 28) for MNIST and Fashion-MNIST and (3, 32, 32) for CIFAR-10.

    Raises:
        InputError: a file is damaged. Files of CIFAR-10 are pickles: their MD5 sums are checked before they are read.
        SmxError: the files are absent and can't be downloaded.
    """
    source = SOURCES[name]
    kind = getattr(import_datasets(), source.kind)
    train, test = (_read(kind, source, name, data_dir, train=train) for train in (True, False))
    classes = tuple(str(label).split(" - ")[0] for label in train.classes)
    return build(name, *_arrays(train), test=_arrays(test), maximum=255.0, class_names=classes)


def _read(kind: Any, source: _Source, name: str, data_dir: Path, *, train: bool) -> Any:
    try:
        return kind(data_dir, train=train, download=True)
    except Exception as error:  # torchvision raises whatever the damage, or the network, runs into
        reason = one_line(error)
        folder = data_dir / source.folder
        if isinstance(error, PermissionError):
            raise InputError(f"{name} in {folder} may not be read ({reason}); name another --data-dir") from error
        if all((folder / file).is_file() for file in source.files):
            raise InputError(
                f"{name} in {folder} is damaged ({reason}); remove the folder to download it anew"
            ) from error
        raise SmxError(
            f"{name} is not in {folder} and could not be downloaded ({reason});"
            f" put {', '.join(source.files)} there, or name another --data-dir"
        ) from error


def _arrays(dataset: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the examples, an image's channels first, and the labels."""
    x, y = np.asarray(dataset.data), np.asarray(dataset.targets)
    return (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x), y


def import_datasets() -> Any:
    """Import torchvision.datasets, also where torchvision's compiled part does not fit the torch that is installed.

    Beside a CPU-only torch, torchvision's CUDA build can't load its operators, and its import ends in an error at the
    first operator whose schema is missing. With the schemas of two of them, data sets and transforms can be imported.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    global _declared
    _declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        _declared.define(  # type: ignore[no-untyped-call]
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return importlib.import_module("torchvision.datasets")


_declared: torch.library.Library | None = None  # the declarations last as long as this object
