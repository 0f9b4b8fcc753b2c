"""Files of plain tensors and plain values. Reading one runs no code from it."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smx import files
from smx.errors import InputError

VERSION = 1
"""The version of the layout of `model.pt` and `checkpoint.pt`. A later release may write a higher one."""


def save(path: Path, format: str, content: dict[str, Any]) -> None:
    """Write plain tensors and values with the name and version of their format, atomically."""
    buffer = io.BytesIO()
    torch.save({"format": format, "version": VERSION, **content}, buffer)
    files.write_bytes(path, buffer.getvalue())


def load(path: Path, format: str) -> dict[str, Any]:
    """Read what `save` wrote, to the CPU.

    Raises:
        InputError: the file is missing or damaged, holds Python objects that could run code, or has another format.
    """
    expected = f"expected a {format} file written by smx train"
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file in it, such as {path / 'model.pt'}")
    if not path.is_file():
        raise InputError(f"{path} does not exist; {expected}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise InputError(f"{path} was refused: it holds Python objects that could run code; {expected}") from error
        raise InputError(f"{path} is no file of tensors; {expected}") from error
    except Exception as error:  # a damaged file can raise any error in the unpickler
        raise InputError(f"{path} is damaged or no file of tensors; {expected}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(found, str):
        raise InputError(f"{path} holds {_describe(content)}; {expected}")
    if found != format:
        phase = f", the state of a run in phase {content.get('phase')}: finish it with smx train --resume"
        raise InputError(f"{path} is a {found} file{phase if found == 'smx-checkpoint' else ''}; {expected}")
    if not isinstance(content.get("version"), int) or content["version"] > VERSION:
        raise InputError(
            f"{path} has format version {content.get('version')}, this smx reads up to {VERSION}; upgrade smartmixed"
        )
    return content


def _describe(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    kind = "a state dict" if content and all(isinstance(value, Tensor) for value in content.values()) else "a dict"
    return f"{kind} with {', '.join(map(str, [*content][:3])) or 'no content'}"
