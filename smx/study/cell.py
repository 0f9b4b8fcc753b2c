"""One cell of a study: its folder, its training, and the row that it leaves in the table."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx import files
from smx.errors import InputError
from smx.study.grid import Cell

if TYPE_CHECKING:
    from smx.data import Dataset
    from smx.training.examples import Examples
    from smx.training.metrics import EpochMetrics
    from smx.training.run import TrainResult

RESULT, ERROR = "result.json", "error.json"
DONE, FAILED, MISSING = "done", "failed", "missing"
RUN_FILES = ("config.toml", "metrics.csv", "model.pt")
"""What a run leaves beside its checkpoint."""
FINGERPRINT = 8
"""Hexadecimal digits of a data set's fingerprint in a result."""
DIGITS = 5
"""Of what is recorded of epochs."""


@dataclass(frozen=True)
class CellFolder:
    """Where a cell's run lies, with `result.json` when it is done, or `error.json` when it failed."""

    path: Path

    @classmethod
    def of(cls, cell: Cell, out: Path) -> CellFolder:
        """Return a cell's folder in a study's."""
        return cls(out / "cells" / cell.id)

    @property
    def model(self) -> Path:
        """The path of the trained network, which a cell that came from a table has not."""
        return self.path / "model.pt"

    def result(self) -> dict[str, Any] | None:
        """Return what the cell left, as `train_cell` returned it; None if it is not done."""
        found = self._read(RESULT)
        if found is not None and not is_accuracy(found.get("test_accuracy")):
            raise self._damaged(RESULT, "it has no test_accuracy between 0 and 1")
        return found

    def error(self) -> str | None:
        """Return why the cell failed; None if it did not."""
        content = self._read(ERROR)
        return None if content is None else str(content.get("error"))

    def fail(self, error: str) -> None:
        """Keep the reason why the cell failed."""
        files.write_text(files.make_folder(self.path) / ERROR, json.dumps({"error": error}))

    def finish(self, result: dict[str, Any]) -> None:
        """Keep the result; the cell is done from here on, and needs its checkpoint no more."""
        files.write_text(files.make_folder(self.path) / RESULT, json.dumps(result))
        for name in ("checkpoint.pt", ERROR):
            (self.path / name).unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, error) from error
        if not isinstance(content, dict):
            raise self._damaged(name, "it is no object")
        return content

    def _damaged(self, name: str, reason: object) -> InputError:
        return InputError(f"{self.path / name} is damaged ({reason}); remove it, and the sweep makes it again")


def is_between(value: object, low: float, high: float) -> bool:
    """Say whether a value is a number, and no truth, from `low` to `high`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_accuracy(value: object) -> bool:
    """Say whether a value is a number from 0 to 1."""
    return is_between(value, 0, 1)


def train_cell(cell: Cell, folder: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Train a cell in its folder, from its last checkpoint if there is one; return its results as plain values.

    The results are, besides those of `curves` and `measures`:

        test_accuracy, validation_accuracy                of the best epoch of the last phase
        phase1_test_accuracy, ..._sampled, ...            of the best epoch of phase 1; None for a baseline
        epochs, best_epoch                                how many, and which one counts, of the last phase
        seconds, phase1_seconds                           of all epochs, and of phase 1, by the clock
        processor_seconds                                 of the whole run, which other work on the machine hardly
                                                          changes; None for one that went on from a checkpoint
        data_fingerprint                                  tells other data of the same name apart
        threads                                           of PyTorch
        machine                                           see `smx.timing.machine.machine`

    Raises:
        InputError, SmxError: as `smx.train`.
    """
    import torch

    from smx.study.measures import measures
    from smx.timing.machine import machine
    from smx.training.config import AUTO, first_difference, from_values
    from smx.training.run import load_checkpoint, train

    config, start = cell.config, time.process_time()
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        _clear(folder)
    elif name := first_difference(vars(config), {**vars(checkpoint.config), "device": config.device}):
        raise InputError(f"{folder} holds the checkpoint of a run with another {name}; remove the folder")
    if config.device == AUTO:
        config = from_values({**vars(config), "device": "cuda" if torch.cuda.is_available() else "cpu"})
    dataset = _dataset(config.data, data_dir)
    if checkpoint is not None:
        config = checkpoint.config
    result = train(config, dataset, folder, checkpoint=checkpoint, load=_examples)
    return {
        **results(result),
        **measures(result.model, _examples(dataset, result.model.architecture.input_shape, config.device)[2]),
        "processor_seconds": None if checkpoint else round(time.process_time() - start, 2),
        "data_fingerprint": dataset.fingerprint()[:FINGERPRINT],
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _clear(folder: Path) -> None:
    """Remove what a run left whose result is gone: it is made again, and training writes over nobody's model."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)


def results(result: TrainResult) -> dict[str, Any]:
    """Return what a finished run itself says of its phases and epochs; see `train_cell`."""
    metrics = result.model.metrics
    last, first = metrics[max(metrics)], metrics.get("phase1", {}) if len(metrics) > 1 else {}
    return {
        **{name: last[name] for name in ("test_accuracy", "validation_accuracy", "epochs", "best_epoch")},
        **{f"phase1_{name}": first.get(name) for name in PHASE1},
        "seconds": round(sum(row.seconds for row in result.rows), 2),
        "phase1_seconds": round(sum(row.seconds for row in result.rows if row.phase == 1), 2),
        **curves(result),
    }


PHASE1 = ("test_accuracy", "validation_accuracy", "test_accuracy_sampled", "validation_accuracy_sampled")


def curves(result: TrainResult) -> dict[str, Any]:
    """Return what the epochs recorded.

    Returns:
        `curves`: for each column of `EpochMetrics` that figures need, its value in each epoch; `shares`: by layer and
        activation, in the network that is left; `shares_by_epoch`: by layer and activation, in each epoch of phase 1.
    """
    rows = result.rows
    columns = ("phase", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "changed", "margin")
    phase1 = [row.shares for row in rows if row.phase == 1]
    by_epoch = {
        layer.removesuffix(".activation"): {name: _rounded([each[layer][name] for each in phase1]) for name in shares}
        for layer, shares in (phase1[0].items() if phase1 else ())
    }
    return {
        "curves": {name: _rounded([getattr(row, name) for row in rows]) for name in columns},
        "shares": _shares(rows),
        "shares_by_epoch": by_epoch,
    }


def _shares(rows: Sequence[EpochMetrics]) -> dict[str, dict[str, float]]:
    return {
        layer.removesuffix(".activation"): {name: round(share, DIGITS) for name, share in shares.items()}
        for layer, shares in rows[-1].shares.items()
    }


def _rounded(values: Sequence[Any]) -> list[Any]:
    return [round(value, DIGITS) if isinstance(value, float) and math.isfinite(value) else value for value in values]


@lru_cache(maxsize=1)
def _dataset(name: str, data_dir: Path | None) -> Dataset:
    """Load a data set once for all cells of this process."""
    from smx import data

    return data.load(name, data_dir)


_kept: list[tuple[Dataset, object, tuple[Examples, Examples, Examples]]] = []


def _examples(dataset: Dataset, input_shape: Sequence[int], device: str) -> tuple[Examples, Examples, Examples]:
    """Normalise a data set once for all cells of this process that take it in the same shape."""
    from smx.training.examples import load_examples

    key = (tuple(input_shape), device)
    if not _kept or _kept[0][0] is not dataset or _kept[0][1] != key:
        _kept[:] = [(dataset, key, load_examples(dataset, input_shape, device))]
    return _kept[0][2]
