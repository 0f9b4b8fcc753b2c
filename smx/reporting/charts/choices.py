"""What the neurons chose: by layer, epoch by epoch, by depth, and the weights between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from smx.figures.style import bare
from smx.reporting.charts.names import short
from smx.reporting.charts.svg import INK, MINUS, PAPER, colour, draw, on

WIDTH = 4.7
"""Inches: at 72 points an inch the figure is as wide as a phone's screen."""
PERCENT = PercentFormatter(1.0, decimals=0)


def by_layer(shares: pd.DataFrame, pool: Sequence[str], name: str, *, legend: bool = True) -> str:
    """Draw the mean share of each activation in each layer (the paper's figure 3).

    Args:
        shares: with `layer`, `activation`, `share`; several rows of a layer and activation are averaged.
        pool: the activations in order.
        name: of the figure.
        legend: whether it says which colour is which; for one of several figures another one says it.
    """
    means = shares.pivot_table(index="layer", columns="activation", values="share").fillna(0.0)

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        left = np.zeros(len(means))
        for activation in pool:
            widths = means[activation].to_numpy() if activation in means else np.zeros(len(means))
            shade = colour(activation, pool)
            bars = panel.barh(range(len(means)), widths, left=left, color=shade, label=short(activation), height=0.78)
            texts = [f"{width:.0%}" if width >= 0.07 else "" for width in widths]
            panel.bar_label(bars, texts, label_type="center", color=on(shade), fontsize=8)
            left += widths
        panel.set_yticks(range(len(means)), [f"layer {layer}" for layer in means.index])
        panel.invert_yaxis()
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(PERCENT)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
        if legend:
            panel.set_xlabel("share of the layer's neurons")
            figure.legend(loc="outside upper center", ncols=min(len(pool), 4), frameon=False)

    title = "Share of the neurons of each hidden layer that chose each activation"
    around = 0.95 + 0.17 * -(-len(pool) // 4) if legend else 0.4
    return draw(name, title, WIDTH, around + 0.3 * len(means), paint)


def by_epoch(shares: pd.DataFrame, pool: Sequence[str], name: str) -> str:
    """Draw the shares through phase 1, in the first and in the last hidden layer (the paper's figures 4 and 5).

    Args:
        shares: with `layer`, `activation`, `epoch`, `share`; several rows of one epoch are averaged.
        pool: the activations in order.
        name: of the figure.
    """
    ends = sorted({shares["layer"].min(), shares["layer"].max()})

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(ends), sharey=True, squeeze=False)[0]
        for panel, layer in zip(panels, ends, strict=True):
            rows = shares[shares["layer"] == layer]
            means = rows.pivot_table(index="epoch", columns="activation", values="share")
            for activation in (each for each in pool if each in means):
                marker = "o" if len(means) == 1 else None
                shade = colour(activation, pool)
                panel.plot(means.index, means[activation], color=shade, marker=marker, label=short(activation))
            panel.set(title=f"layer {layer}", xlabel="epoch of phase 1", ylim=(0, None))
            panel.yaxis.set_major_formatter(PERCENT)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            bare(panel)
        panels[0].set_ylabel("share of the neurons")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(pool), 4), frameon=False)

    title = "Share of each activation in each epoch of phase 1, in the first and in the last hidden layer"
    return draw(name, title, WIDTH, 3.0, paint)


def by_depth(shares: pd.DataFrame, pool: Sequence[str], name: str) -> str:
    """Draw the shares against relative depth.

    Args:
        shares: with `depth` from 0 to 1, `activation`, `share`, and `low` and `high`, between which a band is drawn.
        pool: the activations in order.
        name: of the figure.
    """

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        for activation in pool:
            rows = shares[shares["activation"] == activation].sort_values("depth")
            if rows.empty:
                continue
            shade = colour(activation, pool)
            panel.plot(rows["depth"], rows["share"], color=shade, label=short(activation))
            if {"low", "high"} <= {*rows}:
                panel.fill_between(rows["depth"], rows["low"], rows["high"], color=shade, alpha=0.15, linewidth=0)
        chance = 1 / max(1, len(pool))
        panel.axhline(chance, color=INK, linewidth=0.8, linestyle=":")
        panel.annotate("chance", (1, chance), (2, 0), textcoords="offset points", va="center", fontsize=7)
        panel.set(xlabel="depth: 0 is the first hidden layer, 1 the last one", ylabel="share of the neurons")
        panel.set_ylim(0, None)
        panel.yaxis.set_major_formatter(PERCENT)
        bare(panel)
        figure.legend(loc="outside upper center", ncols=min(len(pool), 4), frameon=False)

    return draw(name, "Share of each activation by relative depth, over all architectures", WIDTH, 3.4, paint)


def connections(weights: pd.DataFrame, pool: Sequence[str], name: str) -> str:
    """Draw the mean weight by the activation that sends and the one that receives (the paper's figure 8).

    Args:
        weights: with `sender`, `receiver`, `mean`; a pair that is missing or NaN stays empty.
        pool: the activations in order.
        name: of the figure.
    """
    grid = weights.pivot_table(index="sender", columns="receiver", values="mean").reindex(index=pool, columns=pool)
    values = grid.to_numpy(dtype=float)
    limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    scale = 10.0 ** np.floor(np.log10(limit)) if limit > 0 else 1.0

    def paint(figure: Figure) -> None:
        panel = figure.subplots()
        panel.pcolormesh(values, cmap="RdBu_r", vmin=-limit or -1.0, vmax=limit or 1.0, edgecolor=PAPER, linewidth=1)
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                strong = abs(value) > 0.6 * limit
                text = f"{value / scale:+.1f}".replace("-", MINUS)
                panel.text(
                    column + 0.5,
                    row + 0.5,
                    text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="w" if strong else "#222222",
                )
        ticks = np.arange(len(pool)) + 0.5
        panel.set_xticks(ticks, [short(each, 12) for each in pool], rotation=30, ha="right", rotation_mode="anchor")
        panel.set_yticks(ticks, [short(each, 12) for each in pool])
        panel.invert_yaxis()
        panel.set(xlabel="receiving neuron", ylabel="sending neuron")
        panel.set_title(f"mean weight, in units of {scale:g}", loc="left")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)

    title = "Mean weight between hidden neurons, by the activation of the sending and of the receiving one"
    return draw(name, title, WIDTH, 1.1 + 0.42 * len(pool), paint)
