"""All settings of a training run, with their defaults: the one place that holds them. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from textwrap import shorten
from typing import Any, Final, Literal

from smx import files
from smx.errors import InputError
from smx.limits import BATCH, EPOCHS, LAYERS, NEURONS
from smx.paper import (
    CURRENT,
    KEEP,
    LAYER,
    NEURON,
    PAPER,
    PAPER_POOL,
    RANDOM,
    RECOMMENDED,
    RECOMMENDED_SETTINGS,
    SELECTIONS,
    STARTS,
    TEMPERATURE,
    default_selection,
)
from smx.schema import from_toml

SMARTMIXED = "smartmixed"
MODELS = ("mlp", "cnn")
DEVICES = ("auto", "cpu", "cuda")
PROTOCOLS = ("standard", "author")
PHASE2_CHOICES = ("learned", "shuffled", "random", "majority")
SPANS = ("phase", "run")
LR_SCHEDULES = ("constant", "linear", "cosine", "step")
CONSTANT = "constant"
TEMPERATURE_SCHEDULES = (CONSTANT, "linear", "exponential")
PRECISIONS = ("none", "bfloat16", "float16")
PLACES = ("data", "price")
"""Settings that say where something lies; fingerprints say whether it is the same."""
AUTO: Final = "auto"
DEFAULT_PRICES = "default"
NONE = "none"


def _setting(
    group: str,
    default: Any,
    help: str,
    metavar: str | None = None,
    *,
    word: str | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Make a field of the default's type, which may also be one certain word, or must be one of the choices.

    The group is the heading under which `smx train --help` shows the option.
    """
    metadata = {"group": group, "help": help, "metavar": metavar, "word": word, "choices": choices}
    return field(default=default, metadata=metadata)


_data = partial(_setting, "Data")
_network = partial(_setting, "Network")
_phases = partial(_setting, "Phases")
_commit = partial(_setting, "Automatic commit")
_temperature = partial(_setting, "Temperature")
_price = partial(_setting, "Price")
_optimiser = partial(_setting, "Optimiser")
_device = partial(_setting, "Device and speed")
_run = partial(_setting, "Run")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run; each field is a key of `config.toml` and, with dashes, an option of `smx train`.

    Raises:
        InputError: a value is out of its range.
    """

    data: str = _data("digits", "digits, mnist, fashion-mnist, cifar10, or an .npz file.", "NAME|FILE.npz")
    model: str = _network("mlp", "mlp, cnn, or module:factory for a network of your own.", "NAME|MODULE:FACTORY")
    hidden: tuple[int, ...] = _network((512, 256, 128), "Neurons of each hidden layer of the mlp.", "N,...")
    activation: str = _network(SMARTMIXED, "smartmixed, or one activation for all neurons (a baseline).", "NAME")
    pool: tuple[str, ...] = _network(PAPER_POOL, "The activations that neurons choose from.", "NAME,...")
    init: str = _network(
        NONE, "Begin with the weights of a model.pt of this network; none: with fresh ones.", "FILE|none"
    )
    protocol: str = _phases(
        "standard", "author: as in the author's code, to compare with the paper's figures.", choices=PROTOCOLS
    )
    selection: str = _phases(
        PAPER,
        "How neurons choose; matched: among candidates brought to ReLU's scale; recommended: matched with --start relu"
        " --hold --per layer --price-weight 0.1.",
        choices=(*SELECTIONS, RECOMMENDED),
    )
    start: str = _phases(
        RANDOM,
        "With which activations neurons begin: drawn ones, those of --init or of your own network, or all with this one"
        " of the pool; unless random, selection is matched by default.",
        "random|current|NAME",
    )
    keep: float = _phases(
        KEEP, "If start is not random: the probability, at first, that a neuron has its first one in a step.", "P"
    )
    hold: bool = _phases(
        False, "If start is not random: in the first epoch none chooses until the loss is half of the first one."
    )
    per: int | Literal["layer"] = _network(
        1, "How many neurons, side by side, make one choice together; layer: all of a layer.", "N|layer", word=LAYER
    )
    phase1_epochs: int | Literal["auto"] = _phases(
        50, "Epochs in which neurons choose; auto: until the choices have settled.", "EPOCHS|auto", word=AUTO
    )
    phase2_epochs: int = _phases(350, "Epochs with the choices fixed.", "EPOCHS")
    phase2_choices: str = _phases(
        "learned", "learned; others are controls, which show what learning is worth.", choices=PHASE2_CHOICES
    )
    min_share: float = _phases(
        0.0, "At the end of phase 1, groups of a smaller share of their layer are dissolved.", "SHARE"
    )
    max_groups: int = _phases(
        0, "At the end of phase 1 a layer keeps at most this many groups, the largest; 0: all.", "GROUPS"
    )
    rewind: bool = _phases(False, "Phase 2 begins with the weights that phase 1 began with, and keeps the choices.")
    max_phase1_epochs: int = _commit(50, "Epochs after which phase 1 ends in any case.", "EPOCHS")
    settle_window: int = _commit(5, "How many of the last epochs the rule looks at.", "EPOCHS")
    settle_changed: float = _commit(
        0.1, "In each of them at most this share of the neurons changed its choice.", "SHARE"
    )
    settle_margin: float = _commit(
        0.005, "The median neuron's largest logit leads the second by at least this.", "LOGITS"
    )
    settle_loss: float = _commit(0.05, "The lowest validation loss fell by less than this share over them.", "SHARE")
    patience: int = _phases(
        0, "A phase ends after this many epochs without a lower validation loss; 0: never.", "EPOCHS"
    )
    temperature: float = _temperature(TEMPERATURE, "Temperature of the Gumbel-softmax (eq. 2).", "TAU")
    temperature_schedule: str = _temperature(
        "constant", "How it changes from epoch to epoch of phase 1.", choices=TEMPERATURE_SCHEDULES
    )
    temperature_end: float = _temperature(0.1, "Its value in the schedule's last epoch.", "TAU")
    price_weight: float = _price(
        0.0, "Phase 1's loss gains this times the price that the logits expect, in multiples of ReLU's.", "WEIGHT"
    )
    price: str = _price(
        DEFAULT_PRICES, "What activations cost: a file of smx price, or default: those of one machine.", "FILE"
    )
    lr: float = _optimiser(1e-4, "Learning rate of Adam.", "RATE")
    logits_lr: float = _optimiser(
        0.0, "Learning rate of the logits, in multiples of lr; 0: 1 for paper, 10 for matched.", "FACTOR"
    )
    lr_schedule: str = _optimiser("constant", "How it changes from step to step.", choices=LR_SCHEDULES)
    lr_span: str = _optimiser("phase", "What a schedule spans: each phase, or both phases as one run.", choices=SPANS)
    lr_warmup: int = _optimiser(0, "Epochs at the start of each span in which it rises.", "EPOCHS")
    batch_size: int = _optimiser(128, "Examples of a training step.", "EXAMPLES")
    clip_norm: float = _optimiser(1.0, "Largest norm of the gradients; longer ones are scaled down.", "NORM")
    seed: int = _optimiser(0, "Seed of weights, order and noise.", "SEED")
    device: str = _device("auto", "auto: cuda if there is one, else cpu.", choices=DEVICES)
    amp: str = _device("none", "Mixed precision in training.", choices=PRECISIONS)
    compile: bool = _device(False, "Compile the training step's network (torch.compile).")
    cuda_graphs: bool = _device(False, "Replay the training step as one CUDA graph.")
    tensorboard: bool = _run(False, "Write events for TensorBoard to RUN/tensorboard.")

    def __post_init__(self) -> None:
        most = {"batch_size": BATCH, "per": NEURONS}
        for name in ("phase1_epochs", "phase2_epochs", "max_phase1_epochs", "settle_window", "batch_size", "per"):
            value, largest = getattr(self, name), most.get(name, EPOCHS)
            word = FIELDS[name].metadata["word"]
            self._require(name, value == word or 1 <= value <= largest, f"between 1 and {largest}")
        for name in ("temperature", "temperature_end", "lr", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < float("inf"), "positive and finite")
        for name in ("settle_changed", "settle_margin", "settle_loss", "logits_lr", "price_weight"):
            self._require(name, 0 <= getattr(self, name) < float("inf"), "0 or more, and finite")
        self._require("keep", 0 < self.keep < 1, "between 0 and 1")
        self._require("batch_size", self.selection == PAPER or self.batch_size > 1, "2 or more with matched candidates")
        self._require("min_share", 0 <= self.min_share <= 1, "between 0 and 1")
        for name, largest in {"patience": EPOCHS, "lr_warmup": EPOCHS, "max_groups": NEURONS}.items():
            self._require(name, 0 <= getattr(self, name) <= largest, f"between 0 and {largest}")
        self._require("hidden", self.hidden and min(self.hidden) >= 1, "one or more layers of at least 1 neuron")
        few = len(self.hidden) <= LAYERS and max(self.hidden) <= NEURONS
        self._require("hidden", few, f"at most {LAYERS} layers of at most {NEURONS} neurons")
        self._require("model", self.model in MODELS or ":" in self.model, f"{', '.join(MODELS)} or module:factory")
        self._require("seed", 0 <= self.seed < 2**63, "between 0 and 2^63 - 1")
        for setting in dataclasses.fields(self):
            if choices := setting.metadata["choices"]:
                self._require(setting.name, getattr(self, setting.name) in choices, f"one of {', '.join(choices)}")
        if self.selection == RECOMMENDED:  # a word for others, so that equal settings are equal
            raise InputError(f"selection must be {' or '.join(SELECTIONS)} here; smx.train takes {RECOMMENDED}")
        if self.is_baseline:
            self._require("phase1_epochs", self.phase1_epochs != AUTO, "a number: a baseline makes no choices")
        if self.start == RANDOM:
            self._require("hold", not self.hold, "off with start = random, which has nothing to hold")
        else:
            standard = self.is_baseline or self.protocol == "standard"
            self._require("protocol", standard, f"standard with start = {self.start}")
        if self.start == CURRENT and not self.is_baseline:
            known = self.init != NONE or ":" in self.model
            self._require("start", known, "random without init = FILE or a model = module:factory of yours")
        if self.rewind or self.protocol == "author":
            self._require("init", self.init == NONE, "none where phase 2 begins with other weights")
            self._require("lr_span", self.lr_span == "phase", "phase where phase 2 begins with other weights")
        if self.protocol == "author":
            self._require("rewind", not self.rewind, "off with the author's protocol, which begins phase 2 anew anyway")
        if self.device == "cpu":
            self._require("cuda_graphs", not self.cuda_graphs, "off on the cpu (compile works there)")
            self._require("amp", self.amp != "float16", "none or bfloat16 on the cpu")
        if self.cuda_graphs:
            self._require("amp", self.amp != "float16", "none or bfloat16 with cuda_graphs")
        from smx import activations  # here, because it loads torch, which the command line's help must not
        from smx.convert.starting import named

        try:
            pool = activations.resolve_pool(self.pool)
            spelled: dict[str, Any] = {"pool": tuple(activation.name for activation in pool)}
            if self.is_baseline:
                spelled["activation"] = activations.get(self.activation).name
            if self.start not in STARTS:
                spelled["start"] = pool[named(self.start, pool)].name
        except ValueError as error:
            raise InputError(shorten(str(error), 300)) from error
        for name, value in spelled.items():  # one spelling, so that equal settings are equal
            object.__setattr__(self, name, value)

    def _require(self, name: str, holds: object, expected: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {expected}, got {shorten(as_text(getattr(self, name)), 100)}")

    @property
    def phases(self) -> dict[int, int]:
        """The epochs of each phase, at most; a baseline makes no choices, and its phase 2 is as long as both."""
        phase1 = self.max_phase1_epochs if self.phase1_epochs == "auto" else self.phase1_epochs
        return {2: phase1 + self.phase2_epochs} if self.is_baseline else {1: phase1, 2: self.phase2_epochs}

    @property
    def is_baseline(self) -> bool:
        """Whether all neurons have one fixed activation."""
        return self.activation != SMARTMIXED

    @property
    def candidates(self) -> tuple[str, ...]:
        """The activations that the network's neurons have: the pool, or the only one of a baseline."""
        return (self.activation,) if self.is_baseline else self.pool

    def to_toml(self) -> str:
        """Write all settings as a TOML document that `--config` reads."""
        written = ((key, json.dumps(value, ensure_ascii=False)) for key, value in self.to_dict().items())
        return "".join(f"{key} = {value}\n" for key, value in written).replace("\x7f", "\\u007f")

    def is_in(self, path: Path) -> bool:
        """Whether a TOML file holds all these settings."""
        try:
            return path.exists() and read_toml(path) == vars(self)
        except InputError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def parse(name: str, value: Any) -> Any:
    """Turn a value from the command line or a TOML file into the type of the setting `name`.

    Raises:
        InputError: the value has another type.
    """
    default, word = FIELDS[name].default, FIELDS[name].metadata["word"]
    if word is not None and value == word:
        return value
    if name == "per" and value == NEURON:
        return 1
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        if not isinstance(default, tuple):
            return _convert(value, type(default))
        entries = [value] if isinstance(value, Integral) else value
        if isinstance(value, str):
            entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
        return tuple(_convert(entry, type(default[0])) for entry in entries)
    except (TypeError, ValueError, OverflowError) as error:
        kind = f"{_kind(default)} or {word}" if word else _kind(default)
        raise InputError(f"{name} must be {kind}, got {shorten(as_text(value), 100)}") from error


def from_values(values: Mapping[str, Any]) -> TrainConfig:
    """Make the settings of the values given, with defaults for the rest; that of `selection` depends on `start`.

    `selection = recommended` is spelled out, see `spelled_out`.

    Raises:
        InputError: a value has another type or is out of its range, or a key is no setting.
    """
    if unknown := values.keys() - FIELDS.keys():
        raise InputError(f"{shorten(min(unknown), 60)!r} is no setting that this smx knows; upgrade smartmixed")
    found = spelled_out({name: parse(name, value) for name, value in values.items()})
    if "start" in found:
        found.setdefault("selection", default_selection(found["start"]))
    return TrainConfig(**found)


def over(values: Mapping[str, Any], winning: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others that win over them; `recommended` among these wins over what it stands for."""
    left_out = RECOMMENDED_SETTINGS if winning.get("selection") == RECOMMENDED else {}
    return {**{name: value for name, value in values.items() if name not in left_out}, **winning}


def spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with what the word `recommended` stands for; what is given besides it wins."""
    if values.get("selection") != RECOMMENDED:
        return dict(values)
    found = {**RECOMMENDED_SETTINGS, **values, "selection": RECOMMENDED_SETTINGS["selection"]}
    if found["start"] == RANDOM and "hold" not in values:
        del found["hold"]
    return found


def first_difference(settings: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """Return the first setting that has another value among others, if there is one.

    Settings that the others lack do not count; nor does where data and prices lie, since that may be elsewhere by now.
    """
    compared = (name for name in settings if name not in PLACES)
    return next((name for name in compared if others.get(name, settings[name]) != settings[name]), None)


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, each with its type checked.

    Raises:
        InputError: the file is missing, no TOML, or has a key that is no setting.
    """
    try:
        values = from_toml(files.read(path))
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}); expected a TOML file of training settings"
        ) from error
    except InputError as error:
        raise InputError(f"{path} is no TOML file ({error})") from error
    unknown = values.keys() - FIELDS.keys()
    if unknown:
        raise InputError(f"{path} has the unknown setting {shorten(min(unknown), 60)!r}; known are {', '.join(FIELDS)}")
    return {name: parse(name, value) for name, value in values.items()}


def as_text(value: Any) -> str:
    """Return a value as it stands in messages."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)


def _convert(value: Any, kind: type) -> Any:
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if isinstance(value, bool) != (kind is bool) or (isinstance(value, float) and kind is int):
        raise TypeError
    if kind is str:
        if not (isinstance(value, str) and value):
            raise TypeError
        value.encode()  # a ValueError for what is no Unicode: config.toml could not hold it
    return kind(value)


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return "whole numbers, with commas between" if isinstance(default[0], int) else "names, with commas between"
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text in UTF-8"}
    return kinds[type(default)]
