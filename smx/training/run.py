"""A whole run: phase 1, commit, phase 2, and what it leaves in its folder."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smx import activations, convert, files
from smx.data import Dataset
from smx.errors import InputError, SmxError
from smx.layers import Selective
from smx.modelfile import SavedModel, choices_of, mixed_mlp, save_model, without_choices
from smx.models import mlp
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig, difference
from smx.training.engine import Examples, evaluate, seed_for, train_epoch
from smx.training.metrics import EpochMetrics, best, choices, shares, to_csv
from smx.training.protocol import rules

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left: the content of `model.pt`, and a row for each epoch."""

    model: SavedModel
    rows: list[EpochMetrics]


@dataclass(frozen=True)
class _Run:
    """What stays the same throughout a run."""

    config: TrainConfig
    sizes: tuple[int, ...]
    pool: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples

    def selective(self) -> nn.Module:
        """Build the network of phase 1."""
        pool = rules(self.config).phase1_pool(activations.resolve_pool(self.pool))
        temperature = self.config.temperature
        return mlp(self.sizes, lambda i: Selective(self.sizes[i], pool, temperature)).to(self.config.device)

    def mixed(self, choices: dict[str, Tensor]) -> nn.Module:
        """Build the network of phase 2, with fresh weights."""
        return mixed_mlp(self.sizes, choices, self.pool).to(self.config.device)

    def adam(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimiser; each phase has a new one."""
        return torch.optim.Adam(model.parameters(), lr=self.config.lr, fused=True)


def phases(config: TrainConfig) -> dict[int, int]:
    """Return the epochs of each phase; a baseline has no choices to learn, and phase 2 lasts as long as both."""
    if config.is_baseline:
        return {2: config.phase1_epochs + config.phase2_epochs}
    return {1: config.phase1_epochs, 2: config.phase2_epochs}


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[EpochMetrics], None] = lambda row: None,
) -> TrainResult:
    """Train through both phases and leave `model.pt`, `checkpoint.pt`, `config.toml` and `metrics.csv` in `out`.

    Each epoch draws its order and noise from a seed of its own, so that a run killed at any moment and resumed on
    the same kind of machine ends in the same model, bit for bit (on CUDA as far as PyTorch's operators allow).

    Args:
        config: the settings.
        dataset: the data.
        out: the run's folder; created when it is missing.
        checkpoint: continue from it: what `load_checkpoint(out)` returned.
        on_epoch: called after every epoch that is trained, when its checkpoint is on disk.

    Raises:
        InputError: `out` holds a run that is not to be continued, or the checkpoint is of other settings or data.
        SmxError: the loss is no longer finite, or a file can't be written.
    """
    files.make_folder(out)
    state = _start(config, dataset, out, checkpoint)
    for stale in out.rglob(".*.tmp"):  # of a writer that was killed
        stale.unlink()
    files.write_text(out / "config.toml", config.to_toml())
    _be_deterministic(config.device)
    run = _Run(
        config=config,
        sizes=(dataset.num_features, *config.hidden, len(dataset.class_names)),
        pool=(config.activation,) if config.is_baseline else config.pool,
        train=Examples.of(dataset.train, config.device),
        validation=Examples.of(dataset.validation, config.device),
        test=Examples.of(dataset.test, config.device),
    )
    for phase, epochs in phases(config).items():
        if phase < state.phase:
            continue
        if phase > state.phase:
            state = _next_phase(run, state, phase)
            state.save(out / CHECKPOINT)
        _train_phase(run, state, epochs, out, on_epoch)
        state.results[f"phase{phase}"] = _test(run, state)
    model = SavedModel(
        sizes=run.sizes,
        pool=run.pool,
        choices=choices_of(state.best_model),
        weights=without_choices(state.best_model),
        data={
            "name": dataset.name,
            "sample_shape": list(dataset.sample_shape),
            "maximum": dataset.maximum,
            "class_names": list(dataset.class_names),
        },
        training=config.to_dict(),
        metrics=state.results,
    )
    files.write_text(out / "metrics.csv", to_csv(state.rows))  # again: a kill may have come before the last row
    save_model(out / "model.pt", model)
    return TrainResult(model, state.rows)


def load_checkpoint(out: Path) -> Checkpoint | None:
    """Return the state of the run in `out`, or None where there is none to continue.

    Raises:
        InputError: the checkpoint is damaged.
    """
    path = out / CHECKPOINT
    return Checkpoint.load(path) if path.exists() else None


def require_same(checkpoint: Checkpoint, settings: Mapping[str, Any], out: Path) -> None:
    """Refuse settings that differ from those of the run that is to be continued.

    Raises:
        InputError: one of them differs; the message names it.
    """
    if differs := difference(checkpoint.config, settings):
        raise InputError(f"{out} was trained with {differs}; resume with the same settings, or choose another --out")


def _start(config: TrainConfig, dataset: Dataset, out: Path, checkpoint: Checkpoint | None) -> Checkpoint:
    fingerprint = dataset.fingerprint()
    if checkpoint is None:
        if (out / CHECKPOINT).exists() or (out / "model.pt").exists():
            raise InputError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
        return Checkpoint(config=config, fingerprint=fingerprint, phase=0)
    require_same(checkpoint, vars(config), out)
    if checkpoint.fingerprint != fingerprint:
        raise InputError(f"{out} was trained on other data than this {dataset.name}; resume with the same files")
    return checkpoint


def _next_phase(run: _Run, state: Checkpoint, phase: int) -> Checkpoint:
    """Enter a phase with a new network (committed, cold, or uniform) and a new optimiser."""
    torch.manual_seed(seed_for(run.config.seed, phase))
    if phase == 1:
        model = run.selective()
    elif run.config.is_baseline:
        model = run.mixed(
            {f"layer{i}.activation": torch.zeros(n, dtype=torch.int64) for i, n in enumerate(run.config.hidden, 1)}
        )
    else:
        phase1 = run.selective()
        phase1.load_state_dict(state.best_model)
        committed = convert.commit(phase1)
        model = run.mixed(choices(committed))
        if rules(run.config).warm_start:
            model.load_state_dict(committed.state_dict())
    return Checkpoint(
        config=state.config,
        fingerprint=state.fingerprint,
        phase=phase,
        model=model.state_dict(),
        optimizer=run.adam(model).state_dict(),
        rows=state.rows,
        results=state.results,
    )


def _restore(run: _Run, phase: int, state: Mapping[str, Tensor]) -> nn.Module:
    model = run.selective() if phase == 1 else run.mixed(choices_of(dict(state)))
    model.load_state_dict(state)
    return model


def _train_phase(
    run: _Run, state: Checkpoint, epochs: int, out: Path, on_epoch: Callable[[EpochMetrics], None]
) -> None:
    config, phase = run.config, state.phase
    model = _restore(run, phase, state.model)
    optimizer = run.adam(model)
    optimizer.load_state_dict(state.optimizer)
    pool = activations.resolve_pool(run.pool)
    while state.epoch < epochs:
        started = time.perf_counter()
        epoch = state.epoch + 1
        torch.manual_seed(seed_for(config.seed, phase, epoch))
        before = choices(model)
        train_loss, train_accuracy = train_epoch(model, optimizer, run.train, config, phase)
        loss, accuracy = evaluate(model, run.validation, config, phase)
        sampled: float | None = None
        if phase == 1:
            sampled_loss, sampled = evaluate(model, run.validation, config, phase, sampled=True)
            loss = sampled_loss if rules(config).noisy_evaluation else loss
        if not (math.isfinite(train_loss) and math.isfinite(loss)):
            raise SmxError(f"the loss became {train_loss} in epoch {epoch} of phase {phase}; try a lower --lr")
        now = choices(model)
        row = EpochMetrics(
            phase=phase,
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=loss,
            validation_accuracy=accuracy,
            validation_accuracy_sampled=sampled,
            changed=sum(int((now[layer] != before[layer]).sum()) for layer in now),
            seconds=time.perf_counter() - started,
            shares=shares(now, pool),
        )
        state.epoch = epoch
        state.rows.append(row)
        state.model, state.optimizer = model.state_dict(), optimizer.state_dict()
        if loss < state.best_loss:
            state.best_loss = loss
            state.best_model = copy.deepcopy(state.model)
        state.save(out / CHECKPOINT)
        files.write_text(out / "metrics.csv", to_csv(state.rows))
        on_epoch(row)


def _test(run: _Run, state: Checkpoint) -> dict[str, Any]:
    """Evaluate the epoch that counts on the test set."""
    model = _restore(run, state.phase, state.best_model)
    row = best(state.rows, state.phase)
    result: dict[str, Any] = {
        "best_epoch": row.epoch,
        "validation_loss": row.validation_loss,
        "validation_accuracy": row.validation_accuracy,
        "test_accuracy": evaluate(model, run.test, run.config, state.phase)[1],
    }
    if state.phase == 1:
        torch.manual_seed(seed_for(run.config.seed, 1, 0))
        result["validation_accuracy_sampled"] = row.validation_accuracy_sampled
        result["test_accuracy_sampled"] = evaluate(model, run.test, run.config, 1, sampled=True)[1]
    return result


def _be_deterministic(device: str) -> None:
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True, warn_only=True)
