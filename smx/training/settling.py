"""When to commit: the rule of `phase1_epochs = "auto"`. The paper leaves this to future work."""

from __future__ import annotations

from collections.abc import Sequence

from smx.training.config import TrainConfig
from smx.training.metrics import EpochMetrics


def settled(rows: Sequence[EpochMetrics], neurons: int, rule: TrainConfig) -> bool:
    """Tell whether the choices have settled and the validation loss has converged, after the last of the rows.

    With w = `settle_window` epochs, all three must hold:

    1. In each of the last w epochs at most `settle_changed` of the neurons changed their choice.
    2. The margin of the median neuron, its largest logit minus the second one, is `settle_margin` or more.
       (At the start it is 0.001 for every neuron.)
    3. The lowest validation loss so far is less than the share `settle_loss` below the lowest one w epochs before.

    The rows are those of phase 1 alone, and `neurons` is the number of neurons of all layers.
    """
    window = rule.settle_window
    if len(rows) <= window:
        return False
    last, losses = rows[-1], [row.validation_loss for row in rows]
    return (
        all(row.changed <= rule.settle_changed * neurons for row in rows[-window:])
        and last.margin is not None
        and last.margin >= rule.settle_margin
        and min(losses) > (1 - rule.settle_loss) * min(losses[:-window])
    )


def stalled(rows: Sequence[EpochMetrics], patience: int) -> bool:
    """Tell whether a phase's lowest validation loss is `patience` or more epochs old; never with a patience of 0."""
    losses = [row.validation_loss for row in rows]
    return 0 < patience <= len(losses) - 1 - losses.index(min(losses)) if losses else False
