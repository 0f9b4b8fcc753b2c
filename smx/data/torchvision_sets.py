"""MNIST and Fashion-MNIST, read by torchvision and downloaded only when absent."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from smx.data.dataset import Dataset, build
from smx.errors import InputError, SmxError, one_line

FILES = tuple(f"{part}-{content}-ubyte" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1"))
"""What both data sets consist of, under `<data_dir>/<MNIST or FashionMNIST>/raw`."""


def load_torchvision(name: str, data_dir: Path) -> Dataset:
    """Load `mnist` or `fashion-mnist` from `data_dir`, in torchvision's layout; pixels are divided by 255.

    Raises:
        InputError: a file is damaged.
        SmxError: the files are absent and can't be downloaded.
    """
    datasets = import_datasets()
    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    train, test = (_read(kind, name, data_dir, train=train) for train in (True, False))
    classes = tuple(str(label).split(" - ")[0] for label in kind.classes)
    return build(name, *train, test=test, maximum=255.0, class_names=classes)


def _read(kind: Any, name: str, data_dir: Path, *, train: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        dataset = kind(data_dir, train=train, download=True)
    except Exception as error:  # torchvision raises whatever the damage, or the network, runs into
        reason = one_line(error) or type(error).__name__
        raw = data_dir / kind.__name__ / "raw"
        if all((raw / file).is_file() for file in FILES):
            raise InputError(f"{name} in {raw} is damaged ({reason}); remove the folder to download it anew") from error
        raise SmxError(
            f"{name} is not in {raw} and could not be downloaded ({reason});"
            f" put {', '.join(FILES)} there, or name another --data-dir"
        ) from error
    return dataset.data.numpy(), dataset.targets.numpy()


def import_datasets() -> Any:
    """Import torchvision.datasets, also where torchvision's compiled part does not fit the torch that is installed.

    Beside a CPU-only torch, torchvision's CUDA build can't load its operators, and its import then stops at the first
    one that it wants to describe. Declaring the schemas of those two is enough for data sets and transforms.
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
