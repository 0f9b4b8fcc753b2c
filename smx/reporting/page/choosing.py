"""The parts about what neurons chose: curves, shares by layer and epoch, depth, agreement, weights."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from smx.paper import LARGEST
from smx.reporting import choices, connections, phases
from smx.reporting.charts import choices as charts
from smx.reporting.charts import curves
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Chart, Column, Group, Part, Table, Text
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

SENDER = "elu"
"""The activation whose neurons, the paper says, send the most positive weights."""
LEFT_OUT = "sigmoid"
"""Of the heat map, as in the paper: next to no neuron has it, so its means are of few weights."""


def choosers(section: Section) -> list[str]:
    """Return the methods whose neurons chose by learning: SmartMixed, and those that select by another rule."""
    cells = section.cells
    learned = (
        (cells["activation"] == SMARTMIXED) & (cells["phase2_choices"] == "learned") & cells["pool"].str.contains(",")
    )
    found = {*cells[learned]["method"]}
    return [method for method in section.methods if method in found]


def pool_of(section: Section, method: str) -> list[str]:
    """Return the activations that a method's neurons choose from, in order."""
    return list(
        dict.fromkeys(
            name for pool in section.cells[section.cells["method"] == method]["pool"] for name in pool.split(",")
        )
    )


def shown(section: Section, method: str) -> str:
    """Return the architecture that stands for all: the paper's representative one, or else the deepest."""
    own = list(dict.fromkeys(section.cells[section.cells["method"] == method]["architecture"]))
    paper = "-".join(map(str, LARGEST[1:-1]))
    return paper if paper in own else max(own, key=lambda name: name.count("-"))


def progress(section: Section, tag: str) -> Part | None:
    """Return curves of loss (figures 1 and 2) and of all methods' accuracy."""
    method = next(iter(choosers(section)), section.methods[0])
    architecture = shown(section, method)
    losses = phases.curves(section, architecture, method)
    if losses.empty:
        return None
    name = words.name(method)
    blocks: list[Block] = [
        *(
            [Text(f"On the network {words.name(architecture)}, means over the seeds.")]
            if len(section.cells) > 1
            else []
        ),
        Chart(
            f"losses{tag}",
            f"Loss of {name} by epoch (the paper's figures 1 and 2)",
            curves.losses(losses, f"losses{tag}"),
            losses,
        ),
    ]
    each = [phases.curves(section, architecture, other).assign(method=other) for other in section.methods]
    together = pd.concat([rows for rows in each if len(rows)])
    note = "The dotted line is the commit." if (together["phase"] == 1).any() else ""
    svg = curves.accuracies(together, f"accuracies{tag}")
    blocks.append(Chart(f"accuracies{tag}", "Validation accuracy by epoch", svg, together, note))
    return Part(f"progress{tag}", "Training", blocks)


def by_layer(section: Section, tag: str) -> list[Part]:
    """Return what each choosing method chose, by layer (figure 3), epoch (4, 5) and depth."""
    methods = choosers(section)
    parts = [_by_layer(section, method, f"{tag}-m{k + 1}" if k else tag) for k, method in enumerate(methods)]
    return [part for part in parts if part]


def _by_layer(section: Section, method: str, tag: str) -> Part | None:
    means, pool, architecture = (
        choices.shares_by_layer(section, method),
        pool_of(section, method),
        shown(section, method),
    )
    if means.empty:
        return None
    own = means[means["architecture"] == architecture]
    blocks: list[Block] = [
        Chart(
            f"shares{tag}",
            f"Shares by layer on {words.name(architecture)} (the paper's figure 3)",
            charts.by_layer(own, pool, f"shares{tag}"),
            own,
            "Means over the seeds, after phase 1.",
        )
    ]
    blocks[:0] = _most_chosen(own, section, method)
    epochs = choices.shares_by_epoch(section, architecture, method)
    if len(epochs):
        title = f"Shares by epoch of phase 1 on {words.name(architecture)} (the paper's figures 4 and 5)"
        blocks.append(Chart(f"epochs{tag}", title, charts.by_epoch(epochs, pool, f"epochs{tag}"), epochs))
    blocks += _depth(section, method, pool, tag)
    others = [each for each in section.architectures if each != architecture and each in {*means["architecture"]}]
    if others:
        blocks.append(
            Group(
                f"Shares by layer on the other {words.plural(len(others), 'architecture')}",
                [
                    Chart(
                        f"shares{tag}-of-{k}",
                        words.name(each),
                        charts.by_layer(rows, pool, f"shares{tag}-of-{k}", legend=False),
                        rows,
                    )
                    for k, each in enumerate(others)
                    for rows in [means[means["architecture"] == each]]
                ],
            )
        )
    title = "What the neurons chose" if method == SMARTMIXED else f"What the neurons chose by {words.name(method)}"
    return Part(f"choices{tag}", title, blocks)


def _most_chosen(own: pd.DataFrame, section: Section, method: str) -> list[Block]:
    """Say what most neurons of the first and the last layer chose, and how many chose Sigmoid."""

    def first_two(rows: pd.DataFrame) -> str:
        top = rows.sort_values("share", ascending=False).head(2)
        return " and ".join(
            f"{words.name(row['activation'])} ({words.percent(row['share'], 0)})" for _, row in top.iterrows()
        )

    ends = [own[own["layer"] == layer] for layer in sorted({own["layer"].min(), own["layer"].max()})]
    network = words.name(own["architecture"].iloc[0])
    text = f"In the network {network} most neurons of the first layer chose {first_two(ends[0])}"
    if len(ends) > 1:
        text += f", of the last one {first_two(ends[1])}"
    rare = choices.avoided(section, LEFT_OUT, method)
    if rare:
        text += f". In all networks {words.name(LEFT_OUT)} has {words.percent(rare['share'], 1)} of a layer on average"
        text += f"; chance would give it {words.percent(rare['expected'], 1)}"
    return [Text(f"{text}.", strong=True)]


def _depth(section: Section, method: str, pool: Sequence[str], tag: str) -> list[Block]:
    blocks: list[Block] = []
    depth = choices.shares_by_depth(section, method)
    if len(section.architectures) > 1 and len(depth):
        note = (
            "Between a network's layers shares are interpolated; the bands are 95 % intervals over the architectures."
        )
        svg = charts.by_depth(depth, pool, f"depth{tag}")
        blocks.append(Chart(f"depth{tag}", "Shares against depth, over all architectures", svg, depth, note))
    trends = choices.trends(section, method)
    if len(trends):
        columns = [
            Column("activations", "activations", words.name, numeric=False),
            Column("first", "share in the first layer", words.percent),
            Column("last", "in the last layer", words.percent),
            Column("change", "change", words.percent, interval=("change_low", "change_high")),
            Column("correlation", "correlation with depth", words.decimal, interval=("low", "high")),
            Column("p", "p of the change", words.p),
            Column("architectures", "architectures", words.count),
        ]
        note = "Networks with three or more hidden layers; Spearman's correlation over the layers of each."
        blocks.append(Table(f"trends{tag}", "How shares change with depth", trends, columns, note))
    return blocks


def agreement(section: Section, tag: str) -> Part | None:
    """Return how far two seeds agree."""
    method = next(iter(choosers(section)), None)
    rows = choices.agreement(section, method) if method else pd.DataFrame()
    if rows.empty:
        return None
    means = rows[["agreement", "chance"]].mean()
    answer = (
        f"The shares in a layer agree by {words.percent(means['agreement'], 0)} between two seeds, on average; two"
        f" neurons, taken from that layer of both at random, have the same activation in"
        f" {words.percent(means['chance'], 0)} of cases."
    )
    text = (
        "Agreement is 1 minus the total variation between the shares of two seeds. Which neuron has which activation"
        " can't be compared, since a neuron has no identity between seeds."
    )
    columns = [
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("layer", "layer", words.count),
        Column("agreement", "agreement of shares", words.percent),
        Column("chance", "same activation by chance", words.percent),
        Column("pairs", "pairs of seeds", words.count),
    ]
    table = Table(f"agreement{tag}", "Agreement between seeds", rows, columns, closed=True)
    return Part(f"agreement{tag}", "Agreement between seeds", [Text(answer, strong=True), Text(text), table])


def weights(section: Section, tag: str) -> Part | None:
    """Return the mean weights by activation (figure 8)."""
    method = next(iter(choosers(section)), None)
    rows = connections.weights(section, method) if method else pd.DataFrame()
    if method is None or rows.empty or not rows["mean"].notna().any():
        return None
    pool = [name for name in pool_of(section, method) if name != LEFT_OUT]
    kept = rows[rows["sender"].isin(pool) & rows["receiver"].isin(pool)]
    note = "Of the final networks, every weight between two hidden layers counted once."
    if LEFT_OUT in pool_of(section, method):
        note += " Sigmoid is left out, as in the paper; the data for download have it."
    columns = [
        Column("sender", "sending", words.name, numeric=False),
        Column("receiver", "receiving", words.name, numeric=False),
        Column("mean", "mean weight", words.significant),
        Column("count", "weights", words.count),
        Column("cells", "networks", words.count),
    ]
    blocks: list[Block] = []
    found = connections.out_of(section, SENDER, method)
    if found:
        text = (
            f"Weights out of {words.name(SENDER)} neurons are {words.significant(found['mean'])} on average, all others"
            f" {words.significant(found['rest'])}; the difference is {words.significant(found['difference'])}"
        )
        if not words.missing(found["low"]):
            text += f" ({words.significant(found['low'])} to {words.significant(found['high'])})"
        blocks.append(Text(f"{text}.", strong=True))
    if kept["mean"].notna().any():
        svg = charts.connections(kept, pool, f"weights{tag}")
        title = "Mean weight by sending and receiving activation (the paper's figure 8)"
        blocks.append(Chart(f"weights{tag}", title, svg, rows, note))
    blocks.append(Table(f"weights-table{tag}", "Mean weights", rows, columns, closed=True))
    return Part(f"weights{tag}", "Weights between neurons", blocks)
