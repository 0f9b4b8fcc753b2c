"""Files of plain tensors and values. Reading one runs no code from it, and takes memory in proportion to its size."""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from smx import files
from smx.errors import InputError, no_file, one_line

VERSION = 1
"""The version of the layout of `model.pt` and `checkpoint.pt`. A later release may write a higher one."""
DEPTH = 32
"""How deep lists and dicts may be nested."""
SHARING = 16
"""Tensors may share their memory, as tied weights do: all together they have at most so many times the file's bytes."""


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
        raise InputError(f"{no_file(path)}; {expected}")
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_plain(content, path.stat().st_size)
    except PermissionError as error:
        raise InputError(f"{path} may not be read; ask its owner for the right to read it") from error
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise InputError(f"{path} was refused: it holds Python objects that could run code; {expected}") from error
        raise InputError(f"{path} is no file of tensors; {expected}") from error
    except _NotPlainError as error:
        raise InputError(f"{path} was refused: it holds {error}; {expected}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise any error in the unpickler
        raise InputError(f"{path} is damaged or no file of tensors; {expected}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(found, str):
        raise InputError(f"{path} holds {_describe(content)}; {expected}")
    if found != format:
        phase = f", the state of a run in phase {_short(content.get('phase'))}: finish it with smx train --resume"
        raise InputError(f"{path} is a {_short(found)} file{phase if found == 'smx-checkpoint' else ''}; {expected}")
    version = content.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InputError(
            f"{path} has format version {_short(version)}, this smx reads up to {VERSION}; upgrade smartmixed"
        )
    return content


class _NotPlainError(ValueError):
    """What a file holds that no file of ours does."""


def _check_archive(path: Path) -> None:
    """Raise an error unless the file is a zip archive as `torch.save` writes it, with the content that was written.

    `torch.load` checks no CRC: a flipped bit would become another weight. Members are stored, never compressed, so that
    none is larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED or member.external_attr for member in members):
            raise zipfile.BadZipFile("a member is compressed, or no file")  # torch.load would fill it with random bytes
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("the members overlap")
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the CRC of {damaged} does not fit")


def _check_plain(content: object, size: int) -> None:
    """Raise `_NotPlainError` unless the content is plain values and tensors, no more than `size` bytes hold.

    A pickle can name one list many times: a few bytes then stand for billions of values.
    """
    values, memory = size, SHARING * size
    waiting: list[tuple[object, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        values -= 1
        if values < 0:
            raise _NotPlainError(f"more values than its {size} bytes")
        if isinstance(value, Tensor):
            own = value.element_size() * math.prod(max(length, 1) for length in value.shape)  # also without values
            memory -= own
            strange = value.is_quantized or value.is_complex() or value.device.type != "cpu"
            if strange or value.layout != torch.strided:
                raise _NotPlainError("a tensor that is no plain array of numbers")
            if (value.numel() and own > value.untyped_storage().nbytes()) or memory < 0:
                raise _NotPlainError(f"tensors of more than its {size} bytes")
        elif isinstance(value, dict | list | tuple):
            if depth == DEPTH:
                raise _NotPlainError(f"lists nested more than {DEPTH} deep")
            entries = [*value, *value.values()] if isinstance(value, dict) else value
            waiting.extend((entry, depth + 1) for entry in entries)
        elif isinstance(value, str):
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise _NotPlainError("text that is not Unicode")
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise _NotPlainError("a whole number of more than 64 bits")
        elif value is not None and not isinstance(value, float):
            raise _NotPlainError(f"a {type(value).__name__}")


def _describe(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    kind = "a state dict" if content and all(isinstance(value, Tensor) for value in content.values()) else "a dict"
    return f"{kind} with {', '.join(map(_short, [*content][:3])) or 'no content'}"


def _short(value: object) -> str:
    """Return what a file says as a word of a message, whatever it is."""
    return shorten(one_line(value), 60) if isinstance(value, str | int | None) else f"a {type(value).__name__}"
