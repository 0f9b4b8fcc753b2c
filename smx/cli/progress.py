"""The progress of a training run: bars on a terminal, elsewhere one line for each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smx.cli.options import logs

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics


@contextmanager
def training_progress(
    phases: Mapping[int, int], done: Mapping[int, int], *, at_most: bool = False
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function to call after each epoch.

    Args:
        phases: the number of epochs of each phase.
        done: the number of epochs of each phase that are already done.
        at_most: whether a phase may end before its last epoch.
    """
    console = logs()
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
    with Progress(*columns, console=console) as progress:
        tasks = {
            phase: progress.add_task(f"phase {phase}", total=epochs, completed=done.get(phase, 0), figures="")
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
