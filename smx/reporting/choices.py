"""What neurons chose: by layer, by depth, between seeds. Of the cells of `smartmixed`, or of another method."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import SMARTMIXED, Section


def shares(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the share of each activation in each layer of each cell (figure 3), in rows.

    Columns: architecture, seed, layer (from 1), name (as layer1), depth (0 for the first hidden layer, 1 for the last;
    0 for the only one), activation, share.
    """
    raise NotImplementedError


def shares_by_layer(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the mean over the seeds: architecture, layer, name, activation, share, deviation, n."""
    raise NotImplementedError


def shares_by_depth(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return mean shares against relative depth over all architectures with two or more hidden layers.

    Columns: depth (0, 0.05, ..., 1), activation, share, low, high (95 %, of a bootstrap over the architectures). Between
    a network's layers shares are interpolated.
    """
    raise NotImplementedError


def shares_by_epoch(section: Section, architecture: str, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the shares in each epoch of phase 1, means over the seeds (figures 4, 5): layer, name, epoch, activation, share.

    Only epochs that all seeds have.
    """
    raise NotImplementedError


def trends(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return how the shares of two pairs of activations change with depth, a row for each pair, cell by cell averaged.

    Columns: activations ("relu + leaky_relu", "elu + selu"), correlation, low, high (Spearman over the layers of each
    cell with three or more hidden layers; mean over architectures, 95 % of a bootstrap over architectures and seeds),
    first, last (mean shares in the first and the last hidden layer), change (last minus first), change_low,
    change_high, p (Wilcoxon of the architectures' changes; see `comparisons.compare`), architectures, cells.
    Empty where the pool has none of them, or no network has three hidden layers.
    """
    raise NotImplementedError


def avoided(section: Section, activation: str = "sigmoid", method: str = SMARTMIXED) -> dict[str, object] | None:
    """Compare an activation's share of all neurons with 1/K, its part of the pool.

    Returns:
        None if the pool has it not; else `share`, `low`, `high` (95 %, bootstrap over architectures and seeds),
        `expected` (1/K), `p`, `cells`, `architectures`, `largest` (in any layer of any cell).
    """
    raise NotImplementedError


def agreement(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return how far the layer shares of two seeds agree, means over all pairs of seeds: a row each layer.

    Columns: architecture, layer, name, agreement (1 minus the total variation between the shares: 1 is equal shares),
    chance (the sum of p_k q_k: how often a neuron of one seed and any neuron of the other have the same activation; a
    neuron has no identity between seeds, so nothing more can agree), pairs. Empty for one seed.
    """
    raise NotImplementedError
