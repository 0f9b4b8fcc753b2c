"""Weights between neurons by what they chose (figure 8)."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import SMARTMIXED, Section


def weights(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the mean weight between hidden neurons over all cells: sender, receiver, mean, count (of weights), cells.

    A mean weight counts every weight once. A pair that no network has is NaN. Cells without `connections` (one hidden
    layer has none) do not count.
    """
    raise NotImplementedError


def out_of(section: Section, sender: str = "elu", method: str = SMARTMIXED) -> dict[str, object] | None:
    """Compare the mean weight out of neurons of one activation with that out of all others, cell by cell.

    Returns:
        None if no cell has both; else `mean` and `rest` (mean weights), `difference`, `low`, `high` (95 %, bootstrap over
        architectures and cells), `p`, `cells`, `architectures`, `rank` (of the sender among all, 1 the most positive).
    """
    raise NotImplementedError
