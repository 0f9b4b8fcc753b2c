"""A run of `smx train` as a row of a study's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smx import data
from smx.architecture import FACTORY
from smx.errors import InputError, one_line
from smx.modelfile import SavedModel, load_model
from smx.study.cell import results
from smx.study.grid import Cell
from smx.study.measures import measures
from smx.study.methods import method_of
from smx.study.table import row
from smx.training.config import TrainConfig, as_text, first_difference, from_values, read_toml
from smx.training.examples import Examples, load_examples
from smx.training.metrics import from_csv
from smx.training.run import TrainResult

METRICS, MODEL, CONFIG = "metrics.csv", "model.pt", "config.toml"


def row_of_run(run: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Return the row of a finished run: what a cell of the same settings would have, but for the machine.

    `test_loss` and `calibration_error` need the test set: they are left out where it is not on this machine, since a
    report downloads nothing.

    Args:
        run: its folder.
        data_dir: where downloaded data sets are.

    Raises:
        InputError: the run is not finished, or a file of it is damaged.
    """
    if missing := [name for name in (CONFIG, METRICS, MODEL) if not (run / name).is_file()]:
        raise InputError(f"{run} has no {missing[0]}, so no finished run is in it; end it with smx train --resume")
    config = from_values(read_toml(run / CONFIG))
    try:
        rows = from_csv((run / METRICS).read_text(encoding="utf-8"))
        result = TrainResult(load_model(run / MODEL), rows)
        found = results(result)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{run / METRICS} can't be read ({error.strerror})") from error
    except (ValueError, KeyError, IndexError) as error:
        raise InputError(f"{run / METRICS} is damaged ({one_line(error)}); end the run anew") from error
    _require_one_run(run, config, result)
    found |= measures(result.model, _test_examples(result.model, config.data, data_dir))
    return row(Cell(method_of(config), config), found)


def _require_one_run(run: Path, config: TrainConfig, result: TrainResult) -> None:
    """Refuse files that come from different runs."""
    said, trained, rows = config.to_dict(), result.model.training, result.rows
    if name := first_difference(said, trained):
        raise InputError(
            f"{run / CONFIG} says {name} = {as_text(said[name])}, and {MODEL} beside it {as_text(trained[name])}; put"
            " the files of one run together"
        )
    phases = {name: range(1, int(phase["epochs"] or 0) + 1) for name, phase in result.model.metrics.items()}
    if [(f"phase{row.phase}", row.epoch) for row in rows] != [(name, n) for name in phases for n in phases[name]]:
        raise InputError(f"{run / METRICS} does not have the epochs of {MODEL} beside it, each once and in their order")


def _test_examples(model: SavedModel, name: str, data_dir: Path | None) -> Examples | None:
    """Return the test examples of a model's data if they are on this machine and the model can be built."""
    foreign = model.architecture.kind == FACTORY and not model.trusted
    if foreign or not data.is_here(name, data_dir):
        return None
    try:
        return load_examples(data.load(name, data_dir), model.architecture.input_shape, "cpu")[2]
    except InputError:  # as of an .npz file with other contents by now
        return None
