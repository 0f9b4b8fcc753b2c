"""A training run, from settings to the folder that it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError
from smx.paper import RANDOM
from smx.training.config import AUTO, CONSTANT, FIELDS, TrainConfig, from_values, over, parse, read_toml, spelled_out

if TYPE_CHECKING:
    from smx.modelfile import SavedModel
    from smx.training.metrics import EpochMetrics

OF_CHOICES = (
    *("pool", "selection", "start", "keep", "hold", "per", "phase2_choices", "min_share", "max_groups", "rewind"),
    *("max_phase1_epochs", "settle_window", "settle_changed", "settle_margin", "settle_loss"),
    *("temperature", "temperature_schedule", "temperature_end", "price_weight", "price", "logits_lr"),
)
"""Settings that a baseline does not heed. A file of settings may have them: that of a grid's cell has all."""
UNHEEDED: Mapping[str, tuple[Callable[[TrainConfig], bool], Sequence[str]]] = {
    "price_weight = 0": (lambda config: not config.price_weight, ("price",)),
    "start = random": (lambda config: config.start == RANDOM, ("keep",)),
    "a constant temperature_schedule": (lambda config: config.temperature_schedule == CONSTANT, ("temperature_end",)),
    "a number of phase1_epochs": (
        lambda config: config.phase1_epochs != AUTO,
        ("max_phase1_epochs", "settle_window", "settle_changed", "settle_margin", "settle_loss"),
    ),
    "a constant lr_schedule": (
        lambda config: config.lr_schedule == CONSTANT and not config.lr_warmup,
        ("lr_span",),
    ),
}
"""Settings that a run does not heed, by what makes it so; likewise a file may have them."""


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """A finished run.

    Attributes:
        out: the folder that holds `model.pt` and the rest.
        model: the content of `model.pt`.
        rows: the metrics of each epoch.
        figures: paths of the drawn figures.
        machine: see `smx.timing.machine.machine`.
    """

    out: Path
    model: SavedModel
    rows: Sequence[EpochMetrics] = field(repr=False)
    figures: Sequence[Path] = field(repr=False)
    machine: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "out": str(self.out),
            "model": str(self.out / "model.pt"),
            "figures": [str(figure) for figure in self.figures],
            "config": self.model.training,
            "metrics": self.model.metrics,
            "shares": self.rows[-1].shares,
            "machine": self.machine,
            "seconds": round(sum(row.seconds for row in self.rows), 3),
        }


def train(
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    trust_code: bool = False,
    on_start: Callable[[TrainConfig, Path, Sequence[EpochMetrics]], None] = lambda config, out, rows: None,
    on_epoch: Callable[[EpochMetrics], None] = lambda row: None,
    **settings: Any,
) -> TrainReport:
    """Train through both phases, or a baseline; leave `model.pt`, its checkpoint, metrics and figures in a folder.

    Under torchrun all ranks train one network together; rank 0 writes the files and makes the calls.

    Args:
        config: the settings, or some of them by name, or the path of a TOML file; None has the defaults.
        out: the run's folder; None is `runs/DATA-ACTIVATION`, with the model between if it is no mlp.
        data_dir: where downloaded data sets are, see `smx.data.load`.
        resume: continue the run in `out` from its last checkpoint, if there is one; settings that are given must be
            the same, but `data` and `price` may name another place of the same content.
        trust_code: import the Python module of a network (`module:factory`) that a TOML file or checkpoint names.
        on_start: called before the first epoch with the settings, the folder and the epochs that are already done.
        on_epoch: called after each epoch.
        settings: single settings by name; these win over `config`.

    Raises:
        InputError: a setting or the data can't be used, or `out` holds a run that is not to be continued.
    """
    import torch

    from smx import data
    from smx.figures.training import draw_run
    from smx.files import make_folder
    from smx.timing.machine import machine
    from smx.training.parallel import joined, require_device
    from smx.training.run import load_checkpoint, require_same
    from smx.training.run import train as run

    given = spelled_out(over(_values(config or {}), _values(settings)))
    named_by_caller = "model" in (settings if isinstance(config, str | os.PathLike) else given)
    if given.get("device") == AUTO:
        del given["device"]
    folder = Path(out) if out is not None else _default_folder(given)
    with joined() as ranks:
        checkpoint = load_checkpoint(folder) if resume else None
        if checkpoint:
            spelled = vars(from_values({**vars(checkpoint.config), **given}))
            require_same(checkpoint, {name: spelled[name] for name in given}, folder)
            config = replace(checkpoint.config, **{name: given[name] for name in ("data", "price") if name in given})
            if config.data.endswith(".npz") and not Path(config.data).exists():
                raise InputError(f"{config.data}, the run's data, does not exist; say where it lies now with --data")
        else:
            config = from_values({"device": "cuda" if torch.cuda.is_available() else "cpu", **given})
        if ":" in config.model and not (trust_code or named_by_caller):
            raise InputError(f"the settings name code of yours, {config.model}; give --trust-code to run it")
        require_device(config.device, ranks)
        if config.is_baseline and (unused := [name for name in OF_CHOICES if name in settings]):
            raise InputError(
                f"{unused[0]} is of choices, and with activation = {config.activation} none are made; leave it out"
            )
        for reason, (unheeded, names) in UNHEEDED.items():
            if unheeded(config) and (unused := [name for name in names if name in settings]):
                raise InputError(f"{unused[0]} is not heeded with {reason}; leave it out")
        if "hidden" in settings and config.model != "mlp":
            raise InputError(f"hidden is for the mlp, and the model is {config.model}; leave it out")
        with ranks.main_first():  # it may download what the others then find
            dataset = data.load(config.data, data_dir)
        if ranks.main:
            on_start(config, folder, tuple(checkpoint.rows) if checkpoint else ())
        figures: list[Path] = []  # drawn while the run has the folder to itself
        result = run(
            config,
            dataset,
            folder,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            ranks=ranks,
            on_end=lambda result: figures.extend(draw_run(result.rows, make_folder(folder / "figures"))),
        )
    return TrainReport(out=folder, model=result.model, rows=result.rows, figures=figures, machine=machine())


def _values(config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings that are given, each of its type."""
    if isinstance(config, TrainConfig):
        return dict(vars(config))
    if isinstance(config, str | os.PathLike):
        return read_toml(Path(config))
    if unknown := config.keys() - FIELDS.keys():
        raise InputError(f"unknown setting {min(unknown)!r}; known are {', '.join(FIELDS)}")
    return {name: parse(name, value) for name, value in config.items()}


def _default_folder(given: Mapping[str, Any]) -> Path:
    data, model, activation = (given.get(name, FIELDS[name].default) for name in ("data", "model", "activation"))
    parts = (Path(data).stem, *((model.rpartition(":")[2],) if model != "mlp" else ()), activation)
    return Path("runs") / "-".join(parts)
