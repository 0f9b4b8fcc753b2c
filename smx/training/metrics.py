"""What is recorded of every epoch, and `metrics.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from smx.layers import layers_of, selectives

Shares = dict[str, dict[str, float]]
"""For each layer, by its module path, the share of its neurons that prefers each activation of the pool."""


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One row of `metrics.csv`.

    Attributes:
        phase: 1 while neurons choose, 2 with the choices fixed.
        epoch: counted from 1 within the phase.
        train_loss, train_accuracy: means over the epoch's steps, with the noise of training.
        validation_loss: as the protocol evaluates; the epoch with the lowest one counts.
        validation_accuracy: with the committed choice, that is each neuron's largest logit.
        validation_accuracy_sampled: with the choice sampled (phase 1 only).
        changed: the number of neurons whose choice is another one than after the epoch before.
        margin: the median over the decisions of the largest logit minus the second one (phase 1 only).
        temperature: of the Gumbel-softmax in this epoch (phase 1 only).
        learning_rate: in the first step of the epoch.
        seconds: duration of training and validation.
        shares: see `Shares`.
    """

    phase: int
    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_accuracy_sampled: float | None
    changed: int
    seconds: float
    shares: Shares
    margin: float | None
    temperature: float | None
    learning_rate: float

    def shares_by_name(self, separator: str) -> dict[str, float]:
        """Return the shares under names such as `layer1.relu`."""
        return {
            f"{layer.removesuffix('.activation')}{separator}{activation}": share
            for layer, activations in self.shares.items()
            for activation, share in activations.items()
        }


def choices(model: nn.Module) -> dict[str, Tensor]:
    """Return each layer's present choice by its module path: int64 (N,)."""
    return {name: layer.choice.cpu() for name, layer in layers_of(model).items()}


def median_margin(model: nn.Module) -> float | None:
    """Return the median over all decisions of the largest logit minus the second one; None where none has two."""
    logits = [layer.preferences.detach() for layer in selectives(model)]
    margins = [-layer.topk(2, 1).values.diff().flatten() for layer in logits if layer.shape[1] > 1]
    return torch.cat(margins).median().item() if margins else None


def moved(model: nn.Module) -> float | None:
    """Return the share of neurons that have another activation than they began with; None where they began with any."""
    began = [(layer, layer.of_neurons(layer.present)) for layer in selectives(model) if layer.present is not None]
    others = [layer.choice != present for layer, present in began]
    return torch.cat(others).double().mean().item() if others else None


def shares(choices: Mapping[str, Tensor], names: Sequence[str]) -> Shares:
    """Return the shares of each activation of a pool, given by their names, in each layer."""
    return {
        layer: dict(zip(names, (torch.bincount(choice, minlength=len(names)) / len(choice)).tolist(), strict=True))
        for layer, choice in choices.items()
    }


def to_csv(rows: Iterable[EpochMetrics]) -> str:
    """Write `metrics.csv`: the columns of `EpochMetrics`, with one column `layer.activation` for each share."""
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def from_csv(text: str) -> list[EpochMetrics]:
    """Read what `to_csv` wrote; shares by layer have the layer's name without `.activation`.

    Raises:
        ValueError: a column is missing, a row has more columns than the head, a value is no number, or there is no row.
    """
    try:
        rows = [_row(values) for values in csv.DictReader(io.StringIO(text), restkey="")]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if not rows:
        raise ValueError("it has no epoch")
    return rows


def _row(values: Mapping[str, str]) -> EpochMetrics:
    if "" in values:
        raise ValueError("a row has more columns than the head")
    found: dict[str, Any] = {}
    for field in fields(EpochMetrics):
        if field.name != "shares":
            text = values.get(field.name) or ""
            optional = "None" in str(field.type) and not text
            found[field.name] = None if optional else int(text) if field.type == "int" else float(text)
    layers: Shares = {}
    for name, share in values.items():
        layer, dot, activation = name.rpartition(".")
        if dot:
            layers.setdefault(layer, {})[activation] = float(share)
    return EpochMetrics(**found, shares=layers)


def best(rows: Sequence[EpochMetrics], phase: int) -> EpochMetrics:
    """Return the epoch whose weights are kept: the first one with the lowest validation loss of the phase."""
    return min((row for row in rows if row.phase == phase), key=lambda row: row.validation_loss)


def _flat(row: EpochMetrics) -> dict[str, Any]:
    values = {key: value for key, value in vars(row).items() if key != "shares"}
    rounded = {key: f"{value:.8g}" if isinstance(value, float) else value for key, value in values.items()}
    return rounded | {name: f"{share:.6f}" for name, share in row.shares_by_name(".").items()}
