"""The metrics as TensorBoard shows them: events in RUN/tensorboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smx.training.metrics import EpochMetrics


@contextmanager
def tensorboard(folder: Path, done: Sequence[EpochMetrics]) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that writes the events of an epoch, numbered from the first epoch of the whole run.

    Args:
        folder: for the files.
        done: the rows of a run that is continued; TensorBoard discards events that a killed process wrote after them.

    Raises:
        ModuleNotFoundError: the package tensorboard is not installed.
    """
    from torch.utils.tensorboard import SummaryWriter  # here, because it comes with an extra

    number = len(done)
    with SummaryWriter(str(folder), purge_step=number + 1) as writer:

        def write(row: EpochMetrics) -> None:
            nonlocal number
            number += 1
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
        values |= {
            f"{layer.removesuffix('.activation')}/{activation}": share
            for layer, activations in row.shares.items()
            for activation, share in activations.items()
        }
    return {tag: value for tag, value in values.items() if value is not None}
