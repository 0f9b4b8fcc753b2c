"""A training run, from settings to the folder that it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError
from smx.training.config import FIELDS, TrainConfig, from_values, read_toml

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics
    from smx.training.run import TrainResult


def train(
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    data_dir: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochMetrics], None] = lambda row: None,
) -> TrainResult:
    """Train through both phases, or a baseline; leave `model.pt` and the rest of a run in a folder.

    Args:
        config: the settings, some of them by name (the others have their defaults), or the path of a TOML file.
        out: the run's folder; created when it is missing.
        data_dir: where downloaded data sets are.
        resume: continue the run in `out` from its last checkpoint, if there is one; the settings must be the same.
        on_epoch: called after each epoch.

    Returns:
        The content of `model.pt`, and a row for each epoch.

    Raises:
        InputError: a setting or the data can't be used, or `out` holds a run that is not to be continued.
    """
    import torch

    from smx import data
    from smx.training.run import load_checkpoint, require_same
    from smx.training.run import train as run

    out = Path(out)
    if not isinstance(config, TrainConfig):
        values = config if isinstance(config, Mapping) else read_toml(Path(config))
        if unknown := values.keys() - FIELDS.keys():
            raise InputError(f"unknown setting {min(unknown)!r}; known are {', '.join(FIELDS)}")
        config = from_values(values)
    if config.device == "auto":
        config = replace(config, device="cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_checkpoint(out) if resume else None
    if checkpoint:
        require_same(checkpoint, vars(config), out)
    return run(config, data.load(config.data, data_dir), out, checkpoint=checkpoint, on_epoch=on_epoch)
