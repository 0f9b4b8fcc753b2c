"""Data sets: real digits inside a package, torchvision's, and a user's own file."""

from __future__ import annotations

import os
from pathlib import Path

from smx.data.dataset import Dataset as Dataset
from smx.data.dataset import Split as Split
from smx.data.local import load_digits, load_npz
from smx.errors import InputError

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
"""The data sets that have a name; anything else is the path of an .npz file."""


def load(name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by its name or, for a user's own, by the path of its `.npz` file.

    Torchvision's data sets lie in `data_dir`, or are downloaded to it when they are absent. None: the folder that the
    environment variable SMX_DATA_DIR names, or `~/.cache/smartmixed`.

    Raises:
        InputError: the name is unknown, a file is missing or damaged, or the content is not usable.
    """
    name = os.fspath(name)
    if name == "digits":
        return load_digits()
    if name in NAMES:
        from smx.data.torchvision_sets import load_torchvision

        return load_torchvision(name, _folder(data_dir))
    if name.endswith(".npz"):
        return load_npz(Path(name))
    raise InputError(f"unknown data set {name!r}; give {', '.join(NAMES)} or the path of an .npz file")


def is_here(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Say whether `load` would find a data set on this machine, without a download."""
    if name == "digits" or name not in NAMES:
        return name == "digits" or Path(name).is_file()
    from smx.data.torchvision_sets import SOURCES

    source = SOURCES[name]
    return all((_folder(data_dir) / source.folder / file).is_file() for file in source.files)


def _folder(data_dir: str | os.PathLike[str] | None) -> Path:
    if named := data_dir or os.environ.get("SMX_DATA_DIR"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "smartmixed"
    except RuntimeError as error:  # no HOME, and a user that the system does not know
        raise InputError("there is no home folder to keep data in; set HOME, or give a folder by --data-dir") from error
