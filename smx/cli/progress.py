"""The progress of a training run: bars on a terminal, elsewhere one line for each epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smx.cli.options import logs
from smx.training.config import AUTO, TrainConfig

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics


@contextmanager
def training_progress(
    config: TrainConfig, done: Iterable[EpochMetrics] = ()
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function to call after each epoch.

    Args:
        config: the settings of the run.
        done: the epochs that are already done.
    """
    console, phases = logs(), config.phases
    at_most = config.phase1_epochs == AUTO or config.patience > 0
    of = " of at most " if at_most else "/"
    if not console.is_terminal:
        yield lambda row: console.print(
            f"phase {row.phase}  epoch {row.epoch}{of}{phases[row.phase]}  {_describe(row)}  {row.seconds:.1f} s",
            soft_wrap=True,
        )
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    completed = Counter(row.phase for row in done)
    with Progress(*columns, console=console) as progress:
        tasks = {
            phase: progress.add_task(f"phase {phase}", total=epochs, completed=completed[phase], figures="")
            for phase, epochs in phases.items()
        }

        def end(phases: Iterable[int]) -> None:
            for phase in phases:
                progress.update(tasks[phase], total=progress.tasks[tasks[phase]].completed)

        def show(row: EpochMetrics) -> None:
            end(phase for phase in tasks if phase < row.phase)
            progress.update(tasks[row.phase], completed=row.epoch, figures=_brief(row))

        yield show
        end(tasks)


def _describe(row: EpochMetrics) -> str:
    text = f"loss {row.train_loss:.4f}  validation {row.validation_loss:.4f}  accuracy {row.validation_accuracy:.4f}"
    return f"{text}  changed {row.changed}" if row.phase == 1 else text


def _brief(row: EpochMetrics) -> str:
    return f"loss {row.validation_loss:.4f}  accuracy {row.validation_accuracy:.4f}"
