"""All settings of a training run, with their defaults: the one place that holds them. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smx.errors import InputError
from smx.paper import PAPER_POOL, TEMPERATURE

SMARTMIXED = "smartmixed"
DEVICES = ("auto", "cpu", "cuda")
PROTOCOLS = ("standard", "author")


def _setting(default: Any, help: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run; each field is a key of `config.toml` and, with dashes, an option of `smx train`.

    Raises:
        InputError: a value is out of its range.
    """

    data: str = _setting("digits", "digits, mnist, fashion-mnist, or an .npz file with x and y.", "NAME|FILE.npz")
    hidden: tuple[int, ...] = _setting((512, 256, 128), "Neurons of each hidden layer.", "N,N,...")
    activation: str = _setting(SMARTMIXED, "smartmixed, or one activation for all neurons (a baseline).", "NAME")
    pool: tuple[str, ...] = _setting(PAPER_POOL, "The activations that neurons choose from.", "NAME,NAME,...")
    protocol: str = _setting("standard", "standard, or author to compare with the paper's figures.", "NAME")
    phase1_epochs: int = _setting(50, "Epochs in which neurons choose.", "EPOCHS")
    phase2_epochs: int = _setting(350, "Epochs with the choices fixed.", "EPOCHS")
    temperature: float = _setting(TEMPERATURE, "Temperature of the Gumbel-softmax (eq. 2).", "TAU")
    lr: float = _setting(1e-4, "Learning rate of Adam.", "RATE")
    batch_size: int = _setting(128, "Examples of a training step.", "EXAMPLES")
    clip_norm: float = _setting(1.0, "Gradients are clipped to this norm.", "NORM")
    seed: int = _setting(0, "Seed of weights, order and noise.", "SEED")
    device: str = _setting("auto", "auto, cpu or cuda.", "NAME")

    def __post_init__(self) -> None:
        for name in ("phase1_epochs", "phase2_epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("temperature", "lr", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < float("inf"), "positive and finite")
        self._require("hidden", self.hidden and min(self.hidden) >= 1, "one or more layers of at least 1 neuron")
        self._require("seed", 0 <= self.seed < 2**63, "between 0 and 2^63 - 1")
        self._require("protocol", self.protocol in PROTOCOLS, f"one of {', '.join(PROTOCOLS)}")
        self._require("device", self.device in DEVICES, f"one of {', '.join(DEVICES)}")
        from smx import activations  # here, because it loads torch, which the command line's help must not

        try:
            activations.resolve_pool(self.pool)
            if self.activation != SMARTMIXED:
                activations.get(self.activation)
        except ValueError as error:
            raise InputError(str(error)) from error

    def _require(self, name: str, holds: object, expected: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {expected}, got {_text(getattr(self, name))}")

    @property
    def is_baseline(self) -> bool:
        """Whether all neurons have one fixed activation."""
        return self.activation != SMARTMIXED

    def to_toml(self) -> str:
        """Write all settings as a TOML document that `--config` reads."""
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in self.to_dict().items())

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def parse(name: str, value: Any) -> Any:
    """Turn a value from the command line or a TOML file into the type of the setting `name`.

    Raises:
        InputError: the value has another type.
    """
    default = FIELDS[name].default
    try:
        if isinstance(default, tuple):
            entries: list[Any]
            if isinstance(value, str):
                entries = value.split(",") if value.strip() else []
            else:
                entries = [value] if isinstance(value, int) else list(value)
            convert = type(default[0])
            return tuple(_convert(entry.strip() if isinstance(entry, str) else entry, convert) for entry in entries)
        return _convert(value, type(default))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be {_kind(default)}, got {_text(value)}") from error


def from_values(values: Mapping[str, Any]) -> TrainConfig:
    """Make the settings of the values given, with defaults for the rest."""
    return TrainConfig(**{name: parse(name, value) for name, value in values.items()})


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, each with its type checked.

    Raises:
        InputError: the file is missing, no TOML, or has a key that is no setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}); expected a TOML file of training settings"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file ({error})") from error
    unknown = values.keys() - FIELDS.keys()
    if unknown:
        raise InputError(f"{path} has the unknown setting {min(unknown)!r}; known are {', '.join(FIELDS)}")
    return {name: parse(name, value) for name, value in values.items()}


def difference(ours: TrainConfig, theirs: Mapping[str, Any]) -> str | None:
    """Name the first of the given settings that differs from `ours`, or None."""
    for name, value in theirs.items():
        if getattr(ours, name) != value:
            return f"{name} = {_text(getattr(ours, name))}, not {_text(value)}"
    return None


def _convert(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or (isinstance(value, float) and kind is int):
        raise TypeError
    if kind is str and not (isinstance(value, str) and value):
        raise TypeError
    return kind(value)


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return "whole numbers, with commas between" if isinstance(default[0], int) else "names, with commas between"
    return {int: "a whole number", float: "a number", str: "a word"}[type(default)]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)
