"""What methods cost and how sure their networks are: training time, latency, calibration."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import Section


def calibration(section: Section) -> pd.DataFrame:
    """Return by method: method, calibration_error, low, high, test_loss, cells; the interval as in `mrr`."""
    raise NotImplementedError


def training(section: Section, base: str = "relu") -> pd.DataFrame:
    """Return by method: method, seconds (mean of a cell), ratio, low, high, pairs.

    `ratio`: geometric mean of the seconds over those of `base` in the same architecture and seed; NaN where none is.
    """
    raise NotImplementedError


def latency(section: Section, base: str = "relu") -> pd.DataFrame:
    """Return by method the latency of exported models, where the table has it; else an empty frame.

    Columns: method, measure (as `latency` names it), milliseconds, ratio, low, high, pairs; see `training`.
    """
    raise NotImplementedError
