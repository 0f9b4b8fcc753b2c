"""The small file beside a model in which `smx tune` keeps the settings that were best for it here."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smx.errors import InputError
from smx.runtime.settings import Settings
from smx.timing.machine import machine

FORMAT = "smx-tuning"
SUFFIX = ".tune.json"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The best settings found for one model, provider, batch size and goal on one machine.

    Attributes:
        model: sha256 of the model's file, so that settings of an older export are not used.
        settings: of the session.
        provider: that they were searched for.
        batch_size: examples a run.
        goal: `p50`, `p99` or `throughput`.
        file: name of the file beside the model that is to be run instead of it, and `file_hash` its sha256: the same
            network in another layout. None for the model itself.
        gain: what was measured, for people; see `smx.runtime.tune.search.TuningReport`.
        machine: see `smx.timing.machine.machine`.
    """

    model: str
    settings: Settings
    provider: str
    batch_size: int
    goal: str
    file: str | None = None
    file_hash: str | None = None
    gain: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    def describe(self) -> str:
        """Return in words what is run, and how, and what that is best for."""
        how = f"{self.file}, {self.settings.describe()}" if self.file else self.settings.describe()
        return f"{how}; for the {self.goal} of batch {self.batch_size}"


def tuning_path(model: str | os.PathLike[str]) -> Path:
    """Return where the settings of a model lie."""
    path = Path(model)
    return path.with_name(path.name + SUFFIX)


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tuning(model: str | os.PathLike[str], provider: str) -> tuple[Tuning | None, str | None]:
    """Read the settings beside a model, if they are for this model, provider and machine.

    Returns:
        The tuning, or None and why the file that is there is not used; both None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = tuning_path(model)
    if not path.is_file():
        return None, None
    here = machine()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        tuning = Tuning(**{**content, "settings": Settings(**content["settings"])})
        elsewhere = any(tuning.machine.get(key) != here[key] for key in ("processor", "cores", "onnxruntime"))
        variant = None if tuning.file is None else path.with_name(tuning.file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path} can't be read ({error}); remove it, or run smx tune again") from error
    if tuning.provider != provider:
        return None, f"{path.name} is not used: it is for the provider {tuning.provider}"
    if tuning.model != fingerprint(model):
        return None, f"{path.name} is not used: the model is another one since smx tune"
    if elsewhere:
        return None, f"{path.name} is not used: it was made on another machine or ONNX Runtime"
    if variant is not None and (not variant.is_file() or fingerprint(variant) != tuning.file_hash):
        return None, f"{path.name} is not used: {variant.name} is missing, or another one since smx tune"
    return tuning, None


def variant_path(model: str | os.PathLike[str]) -> Path:
    """Return where `smx tune` puts the same network in another layout."""
    path = Path(model)
    return path.with_name(f"{path.stem}.tuned{path.suffix}")


def has_own_variant(model: str | os.PathLike[str]) -> bool:
    """Tell whether the file at `variant_path` is what an earlier `smx tune` of this model left there."""
    variant = variant_path(model)
    try:
        content = json.loads(tuning_path(model).read_text(encoding="utf-8"))
        return bool(content["file"] == variant.name and content["file_hash"] == fingerprint(variant))
    except (OSError, ValueError, KeyError, TypeError):
        return False
