"""The interval of a mean, by Student's t."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats


def half_width(values: pd.Series) -> float:
    """Return half the width of the 95 % interval of the mean of independent values; NaN of a single one."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
