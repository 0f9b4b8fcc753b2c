"""What neurons chose: by layer, by depth, between seeds. Of the cells of `smartmixed`, or of another method."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from smx.reporting.ranks import correlation
from smx.reporting.resampling import DRAWS, SEED, Floats, by_group, mean, quantiles, summary
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

SHARES = ["architecture", "seed", "layer", "name", "depth", "activation", "share"]
EARLY, LATE = ("relu", "leaky_relu"), ("elu", "selu")
"""What the paper says early layers prefer, and deep ones."""
DEPTHS = np.linspace(0, 1, 21)
FEWEST_LAYERS = 3
"""Of a network whose shares can be said to change with depth."""


def shares(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the share of each activation in each layer of each cell (figure 3), in rows.

    Columns: architecture, seed, layer (from 1), name (as layer1), depth (0 for the first hidden layer, 1 for the last;
    0 for the only one), activation, share.
    """
    rows = []
    for cell in _cells(section, method, "shares"):
        layers = cell["shares"]
        for number, (name, values) in enumerate(layers.items()):
            depth = number / max(1, len(layers) - 1)
            place = (cell["architecture"], cell["seed"], number + 1, name, depth)
            rows += [(*place, activation, share) for activation, share in values.items()]
    return pd.DataFrame(rows, columns=SHARES)


def _cells(section: Section, method: str, column: str) -> list[dict[str, Any]]:
    """Return the cells of a method that have something in a column of dicts."""
    cells = section.cells[section.cells["method"] == method]
    return [cell for cell in cells.to_dict("records") if isinstance(cell.get(column), dict) and cell[column]]


def shares_by_layer(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the mean over the seeds: architecture, layer, name, activation, share, deviation, n."""
    groups = shares(section, method).groupby(["architecture", "layer", "name", "activation"], sort=False)["share"]
    return groups.agg(share="mean", deviation="std", n="count").reset_index()


def shares_by_depth(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return mean shares against relative depth over all architectures with two or more hidden layers.

    Columns: depth (0, 0.05, ..., 1), activation, share, low, high (95 %, of a bootstrap over the architectures; NaN for
    one). Between a network's layers shares are interpolated.
    """
    table = shares_by_layer(section, method)
    rows = []
    for activation, each in table.groupby("activation", sort=False):
        layers = [layer["share"].to_numpy(np.float64) for _, layer in each.groupby("architecture", sort=False)]
        lines = [np.interp(DEPTHS, np.linspace(0, 1, len(line)), line) for line in layers if len(line) > 1]
        if lines:
            values = np.stack(lines)
            rows += [
                (depth, activation, share, low, high)
                for depth, share, (low, high) in zip(DEPTHS, values.mean(0), _bands(values), strict=True)
            ]
    return pd.DataFrame(rows, columns=["depth", "activation", "share", "low", "high"])


def _bands(values: Floats) -> list[tuple[float, float]]:
    """Return the 95 % interval of the mean over the rows, for each column."""
    n = len(values)
    if n < 2:
        return [(float("nan"), float("nan"))] * values.shape[1]
    weights = np.random.default_rng(SEED).multinomial(n, [1 / n] * n, size=DRAWS) / n
    return [quantiles(column) for column in (weights @ values).T]


def shares_by_epoch(section: Section, architecture: str, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the shares in each epoch of phase 1, means over the seeds (figures 4, 5).

    Columns: layer (from 1), name, epoch, activation, share. Only epochs that all seeds have.
    """
    rows = []
    cells = [cell for cell in _cells(section, method, "shares_by_epoch") if cell["architecture"] == architecture]
    cells = [cell["shares_by_epoch"] for cell in cells]
    common = [name for name in (cells[0] if cells else ()) if all(name in cell for cell in cells)]
    for number, name in enumerate(common, start=1):
        for activation in cells[0][name]:
            lines = [cell[name].get(activation, ()) for cell in cells]
            for epoch, values in enumerate(zip(*lines, strict=False), start=1):
                rows.append((number, name, epoch, activation, float(np.mean(values))))
    return pd.DataFrame(rows, columns=["layer", "name", "epoch", "activation", "share"])


def trends(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return how the shares of `EARLY` and `LATE` change with depth, a row each, over the networks of three layers.

    Columns: activations ("relu + leaky_relu", "elu + selu"), correlation, low, high (Spearman over the layers of each
    cell; mean over architectures, 95 % of a bootstrap over architectures and seeds; cells whose share is the same in
    all layers have none), first, last (mean shares in the first and the last hidden layer), change (last minus first),
    change_low, change_high, test, values, p (of the change, see `resampling.summary`), architectures, cells.
    Empty where the pool lacks one of these activations, or no network has three hidden layers.
    """
    return pd.DataFrame([_trend(lines, names) for names, lines in _lines(section, method).items()])


def preferences(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Compare the shares of `EARLY` and `LATE` in the first and in the last hidden layer, a row each.

    Columns: layer (first, last), early, late (shares), difference (early minus late), low, high, test, p (see
    `resampling.summary`), architectures, cells. Over the networks of `trends`, and empty where that is.
    """
    found = _lines(section, method)
    if not found:
        return pd.DataFrame()
    early, late = found.values()
    rows = []
    for layer, place in (("first", 0), ("last", -1)):
        ends = [pd.Series({key: line[place] for key, line in lines.items()}) for lines in (early, late)]
        both = [mean(_grouped(end)) for end in ends]
        compared = summary(_grouped(ends[0] - ends[1]), "difference", bounds=(-1, 1))
        rows.append({"layer": layer, "early": both[0], "late": both[1], **compared, "cells": len(early)})
    return pd.DataFrame(rows)


Lines = dict[tuple[str, int], Floats]
"""A share in each layer of each cell, by architecture and seed."""


def _lines(section: Section, method: str) -> dict[tuple[str, ...], Lines]:
    """Return the shares of `EARLY` and of `LATE` together, in the networks that are deep enough; {} without."""
    table = shares(section, method)
    if not {*EARLY, *LATE} <= {*table["activation"]}:
        return {}
    found: dict[tuple[str, ...], Lines] = {}
    for names in (EARLY, LATE):
        own = table[table["activation"].isin(names)]
        sums = own.groupby(["architecture", "seed", "layer"], sort=False)["share"].sum()
        lines = ((key, line.to_numpy(np.float64)) for key, line in sums.groupby(level=[0, 1], sort=False))
        found[names] = {key: line for key, line in lines if len(line) >= FEWEST_LAYERS}
    return found if found[EARLY] else {}


def _grouped(values: pd.Series) -> list[Floats]:
    """Return values by architecture and seed as the groups of the architectures."""
    return by_group(values, values.index.get_level_values(0))


def _trend(lines: Lines, names: tuple[str, ...]) -> dict[str, Any]:
    table = pd.DataFrame(
        {
            "correlation": {
                key: correlation(np.arange(len(line), dtype=np.float64), line) for key, line in lines.items()
            },
            "first": {key: line[0] for key, line in lines.items()},
            "last": {key: line[-1] for key, line in lines.items()},
        }
    )
    correlations = summary(_grouped(table["correlation"].dropna()), "correlation", bounds=(-1, 1))
    change = summary(_grouped(table["last"] - table["first"]), "change", bounds=(-1, 1))
    return {
        "activations": " + ".join(names),
        **{name: correlations[name] for name in ("correlation", "low", "high")},
        "first": mean(_grouped(table["first"])),
        "last": mean(_grouped(table["last"])),
        "change_low": change["low"],
        "change_high": change["high"],
        **{name: change[name] for name in ("change", "test", "values", "p", "architectures")},
        "cells": len(lines),
    }


def avoided(section: Section, activation: str = "sigmoid", method: str = SMARTMIXED) -> dict[str, Any] | None:
    """Compare an activation's share, the mean over a network's layers, with 1/K, its part of the pool.

    Returns:
        None if the pool has it not, or nothing else; else `share`, `low`, `high`, `test`, `p` (against 1/K, see
        `resampling.summary`), `expected` (1/K), `cells`, `architectures`, `largest` (in any layer of any cell).
    """
    table = shares(section, method)
    size = table["activation"].nunique()
    own = table[table["activation"] == activation]
    if own.empty or size < 2:
        return None
    cells = own.groupby(["architecture", "seed"], sort=False)["share"].mean()
    found = summary(_grouped(cells), "share", 1 / size, bounds=(0, 1))
    return {**found, "expected": 1 / size, "cells": len(cells), "largest": float(own["share"].max())}


def agreement(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return how far the layer shares of two seeds agree, means over all pairs of seeds: a row each layer.

    Columns: architecture, layer, name, agreement (1 minus the total variation between the shares: 1 is equal shares),
    chance (the sum of p_k q_k: how often a neuron of one seed and any neuron of the other have the same activation; a
    neuron has no identity between seeds, so nothing more can agree), pairs. Empty for one seed.
    """
    rows = []
    for (architecture, layer, name), each in shares(section, method).groupby(
        ["architecture", "layer", "name"], sort=False
    ):
        seeds = each.pivot_table(index="seed", columns="activation", values="share").to_numpy(np.float64)
        pairs = [(1 - abs(one - other).sum() / 2, one @ other) for one, other in combinations(seeds, 2)]
        if pairs:
            rows.append((architecture, layer, name, *np.mean(pairs, axis=0).tolist(), len(pairs)))
    return pd.DataFrame(rows, columns=["architecture", "layer", "name", "agreement", "chance", "pairs"])
