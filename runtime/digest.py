"""The digest of an exported file: the SHA-256 of all that `smx export` wrote, so that damage is noticed.

It is the last entry of the model's metadata. Protobuf reads what is appended to a message as further entries, so the
digest of a finished file is written behind it and found there, and no graph is parsed for it:

    model | smx.weights_sha256, for weights in a file beside the model | smx.sha256, of everything before it
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from smx.errors import InputError
from smx.runtime.graph import weight_files

MODEL, WEIGHTS = "smx.sha256", "smx.weights_sha256"
_DIGITS = 64


def sealed(model: bytes, weights: Path | None = None) -> bytes:
    """Return a serialised ONNX model with its digest, and with that of the file of its weights, if there is one."""
    if weights is not None:
        model += _head(WEIGHTS) + _sha256(weights).encode()
    return model + _head(MODEL) + hashlib.sha256(model).hexdigest().encode()


def check_digest(model: Path | bytes, name: str) -> None:
    """Raise InputError if a model has a digest, and it or its weights are not what was written.

    A digest finds damage; it is no signature, since whoever writes a file can write its digest.

    Args:
        model: path of the file; or its content, where weights beside it are not looked at.
        name: of the model in messages.
    """
    of_model, of_weights = len(_head(MODEL)) + _DIGITS, len(_head(WEIGHTS)) + _DIGITS
    if isinstance(model, bytes):
        size, end = len(model), model[-of_model - of_weights :]
    else:
        size = model.stat().st_size
        with model.open("rb") as file:
            file.seek(max(0, size - of_model - of_weights))
            end = file.read()
    last, before = end[-of_model:], end[:-of_model][-of_weights:]
    if not last.startswith(_head(MODEL)):
        return
    found = _sha256(model, size - of_model)
    if found.encode() != last[-_DIGITS:]:
        raise InputError(
            f"{name} is damaged, or another program changed it after smx export: its SHA-256 does not fit; export it"
            f" again, or remove {MODEL} from its metadata if the change was meant"
        )
    if before.startswith(_head(WEIGHTS)) and isinstance(model, Path):
        for beside in weight_files(model):
            weights = model.parent / beside
            if not weights.is_file() or _sha256(weights).encode() != before[-_DIGITS:]:
                raise InputError(f"{weights}, the weights of {name}, is missing or damaged; export the model again")


def _head(key: str) -> bytes:
    """Return how an entry begins, which is the same for every digest: the numbers of fields, and lengths."""
    entry = b"\x0a" + bytes([len(key)]) + key.encode() + b"\x12" + bytes([_DIGITS])  # StringStringEntryProto
    return b"\x72" + bytes([len(entry) + _DIGITS]) + entry  # ModelProto.metadata_props


def _sha256(source: Path | bytes, size: int | None = None) -> str:
    """Return the SHA-256 of the first `size` bytes, or of all, in hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(memoryview(source)[:size]).hexdigest()
    digest = hashlib.sha256()
    left = source.stat().st_size if size is None else size
    with source.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, 2**20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
