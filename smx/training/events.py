"""The metrics as TensorBoard shows them: events in RUN/tensorboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from smx.training.metrics import EpochMetrics


@contextmanager
def tensorboard(folder: Path, done: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that writes the events of an epoch, numbered from `done` + 1.

    TensorBoard discards events that a killed process wrote after the first `done` epochs. A ModuleNotFoundError says
    that the package tensorboard is not installed.
    """
    from torch.utils.tensorboard import SummaryWriter  # here, because it comes with an extra

    numbers = count(done + 1)
    with SummaryWriter(str(folder), purge_step=done + 1) as writer:

        def write(row: EpochMetrics) -> None:
            number = next(numbers)
            for tag, value in scalars(row).items():
                writer.add_scalar(tag, value, number)
            writer.flush()

        yield write


def scalars(row: EpochMetrics) -> dict[str, float]:
    """Return the numbers of an epoch by their tags: `loss/validation`, `choice/changed`, `layer1/relu`, ..."""
    values = {
        "loss/training": row.train_loss,
        "loss/validation": row.validation_loss,
        "accuracy/training": row.train_accuracy,
        "accuracy/validation": row.validation_accuracy,
        "accuracy/validation_sampled": row.validation_accuracy_sampled,
        "choice/changed": row.changed if row.phase == 1 else None,
        "choice/margin": row.margin,
        "settings/temperature": row.temperature,
        "settings/learning_rate": row.learning_rate,
        "seconds": row.seconds,
    }
    if row.phase == 1:
        values |= row.shares_by_name("/")
    return {tag: value for tag, value in values.items() if value is not None}
