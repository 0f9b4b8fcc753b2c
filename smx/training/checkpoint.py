"""`checkpoint.pt`: the state of a run after an epoch. A resumed run ends in the same model as an undisturbed one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from torch import Tensor

from smx import torchfile
from smx.errors import InputError
from smx.schema import Index, Plain, Text, checked
from smx.training.config import TrainConfig, from_values
from smx.training.metrics import EpochMetrics

FORMAT = "smx-checkpoint"
State = dict[str, Tensor]


@dataclass
class Checkpoint:
    """Everything that the next epoch depends on.

    Attributes:
        config: the run's settings.
        fingerprint: of the data set.
        phase, epoch: the last epoch that was finished, counted within the phase; 0 before the first.
        model: state dict of the network in training.
        optimizer: state dict of Adam.
        scaler: state dict of the loss's scaler; empty without float16.
        best_loss: lowest validation loss of this phase.
        best_model: state dict of that epoch.
        rows: the metrics of every epoch so far.
        results: of each finished phase, test figures by name.
        init: SHA-256 of the file that the run's first weights came from; empty if they were fresh.
        prices: SHA-256 of the prices that phase 1 heeds; empty if it heeds none.
    """

    config: TrainConfig
    fingerprint: str
    phase: int
    epoch: int = 0
    model: State = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    best_loss: float = float("inf")
    best_model: State = field(default_factory=dict)
    rows: list[EpochMetrics] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    init: str = ""
    prices: str = ""

    def save(self, path: Path) -> None:
        """Write the file, atomically."""
        rows = [asdict(row) for row in self.rows]
        torchfile.save(path, FORMAT, {**vars(self), "config": self.config.to_dict(), "rows": rows})

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read the file.

        Raises:
            InputError: it is missing, damaged or something else.
        """
        content = torchfile.load(path, FORMAT)
        try:
            found = checked(content, _Content)
            done = sum(row.phase == found.phase for row in found.rows)
            if done != found.epoch or bool(found.best_model) != bool(done):
                raise InputError(f"it has {done} rows and a best epoch for {found.epoch} epochs")
            own = {name: content[name] for name in _Content.__struct_fields__ if name in content}
            return cls(**{**own, "config": from_values(found.config), "rows": found.rows})
        except InputError as error:
            raise InputError(f"{path} is damaged ({error}); remove it, or begin a run in another --out") from error


class _Adam(msgspec.Struct):
    """What Adam knows of a parameter."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class _Optimizer(msgspec.Struct):
    """The state dict of Adam."""

    state: dict[int, _Adam]
    param_groups: list[dict[str, Any]]


class _Content(msgspec.Struct):
    """What the file holds, beside its format and version."""

    config: dict[str, Plain | list[Plain]]
    fingerprint: Text
    phase: Literal[1, 2]
    epoch: Index
    model: State
    optimizer: _Optimizer
    best_loss: float
    best_model: State
    rows: list[EpochMetrics]
    results: dict[str, dict[str, int | float | None]]
    scaler: dict[str, int | float | None] = {}
    init: Text = ""
    prices: Text = ""
