"""The small file beside a model in which `smx tune` keeps what is fastest for it on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from smx import files
from smx.errors import InputError, one_line
from smx.runtime.settings import Settings
from smx.schema import Count, Text, checked, from_json, without_header
from smx.timing.machine import machine

FORMAT = "smx-tuning"
VERSION = 1
"""Of the file's layout. A later release may write a higher one."""
SUFFIX = ".tune.json"
LARGEST = 2**20
"""Bytes of the file, at most."""
FileName = Annotated[str, Meta(pattern=r"^[^/\\\0]*[^/\\\0.][^/\\\0]*$", max_length=255)]
"""Of a file in the same folder."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The fastest way to run one model, for one provider, batch size and goal on one machine.

    Attributes:
        model: sha256 of the model's file; the tuning of an older export is not used.
        settings: of the session.
        provider: see `smx.runtime.providers.PROVIDERS`.
        batch_size: examples a run.
        goal: `p50`, `p99` or `throughput`.
        file: name of the file beside the model that is run instead of it, the same network in another layout; None is
            the model itself.
        file_hash: sha256 of that file.
        gain: the measured ratio, for people; see `smx.runtime.tune.search.TuningReport.gain`.
        machine: see `smx.timing.machine.machine`.
    """

    model: Text
    settings: Settings
    provider: Text
    batch_size: Count
    goal: Text
    file: FileName | None = None
    file_hash: Text | None = None
    gain: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)

    @property
    def keeps_defaults(self) -> bool:
        """Whether the defaults stay: `smx tune` found nothing that is certainly faster."""
        return self.file is None and self.settings == Settings()

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    def describe(self) -> str:
        """Return in words what is run, and what it is fastest for."""
        what = ", ".join(filter(None, (self.file, self.settings.describe())))
        return f"{'the defaults stay' if self.keeps_defaults else what}; for the {self.goal} of batch {self.batch_size}"


def tuning_path(model: str | os.PathLike[str]) -> Path:
    """Return the path of a model's tuning."""
    path = Path(model)
    return path.with_name(path.name + SUFFIX)


def variant_path(model: str | os.PathLike[str]) -> Path:
    """Return the path where `smx tune` puts the same network in another layout."""
    path = Path(model)
    return path.with_name(f"{path.stem}.tuned{path.suffix}")


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tuning(model: str | os.PathLike[str], provider: str) -> tuple[Tuning | None, str | None]:
    """Read the tuning beside a model, if it is for this model, provider and machine.

    Returns:
        The tuning and None; or None and why the file is not used; or None twice if there is no file.

    Raises:
        InputError: the file is damaged.
    """
    path = tuning_path(model)
    if not path.is_file():
        return None, None
    here = machine()
    try:
        tuning = _read(path)
    except (OSError, InputError) as error:
        raise InputError(f"{path} can't be read ({one_line(error)}); remove it, or run smx tune again") from error
    elsewhere = any(tuning.machine.get(key) != here[key] for key in ("processor", "cores", "onnxruntime"))
    variant = None if tuning.file is None else path.with_name(tuning.file)
    reason = None
    if tuning.provider != provider:
        reason = f"it is for the provider {tuning.provider}"
    elif tuning.model != fingerprint(model):
        reason = "the model is another one since smx tune"
    elif elsewhere:
        reason = "it was made on another machine or ONNX Runtime"
    elif variant is not None and (not variant.is_file() or fingerprint(variant) != tuning.file_hash):
        reason = f"{variant.name} is missing, or another one since smx tune"
    return (tuning, None) if reason is None else (None, f"{path.name} is not used: {reason}")


def is_tuned(model: str | os.PathLike[str]) -> bool:
    """Whether an earlier `smx tune` left its settings beside this very file."""
    try:
        content = from_json(files.read(tuning_path(model), LARGEST), dict[str, Any])
        return bool(content.get("model") == fingerprint(model))
    except (OSError, InputError):
        return False


def has_own_variant(model: str | os.PathLike[str]) -> bool:
    """Whether the file at `variant_path` is what an earlier `smx tune` of this model put there."""
    variant = variant_path(model)
    try:
        tuning = _read(tuning_path(model))
        return tuning.file == variant.name and tuning.file_hash == fingerprint(variant)
    except (OSError, InputError):
        return False


def _read(path: Path) -> Tuning:
    """Read the file; raise OSError or InputError if it can't be read or is damaged."""
    content = without_header(from_json(files.read(path, LARGEST), dict[str, Any]), FORMAT, VERSION)
    settings = checked(content.get("settings"), Settings)
    return checked({**content, "settings": asdict(settings)}, Tuning)
