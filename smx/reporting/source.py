"""Reading what a report is made from: a run, a sweep's folder, or a table."""

from __future__ import annotations

import os
from pathlib import Path

from smx.reporting.study import Study


def read_source(path: str | os.PathLike[str], data_dir: Path | None = None) -> Study:
    """Read a run's folder, a sweep's folder, or a table that `smx sweep --collect` wrote.

    Args:
        path: which one.
        data_dir: where downloaded data sets are. A run is evaluated on its test set for `test_loss` and
            `calibration_error`; without its data, these are left out.

    Raises:
        InputError: there is none of these at `path`, or it is damaged, or no cell is done.
    """
    raise NotImplementedError
