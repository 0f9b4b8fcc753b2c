"""Progress: bars on a terminal, elsewhere lines; always on standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from smx.cli.output import logs, plain
from smx.training.config import AUTO, TrainConfig
from smx.workflows import OnProgress

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics


def label(text: str) -> TextColumn:
    """Return a column of text in which brackets, as of a file's name, mean nothing."""
    return TextColumn(text, markup=False)


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Yield what shows progress: a bar on a terminal, elsewhere a line for each part of the work without a total."""
    notes = logs()
    if not notes.is_terminal:
        yield lambda what, done, total: None if total else notes.print(f"{what} ...", soft_wrap=True)
        return
    columns = (label("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=plain(what), completed=done, total=total or None)


@contextmanager
def training_progress(
    config: TrainConfig, done: Iterable[EpochMetrics] = ()
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function to call after each epoch; some may already be `done`."""
    console, phases = logs(), config.phases
    if not console.is_terminal:
        of = " of at most " if config.phase1_epochs == AUTO or config.patience else "/"
        yield lambda row: console.print(
            f"phase {row.phase}  epoch {row.epoch}{of}{phases[row.phase]}  loss {row.train_loss:.4f}  {_describe(row)}"
            f"  {row.seconds:.1f} s",
            soft_wrap=True,
        )
        return
    columns = (label("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn())
    epochs = Counter(row.phase for row in done)
    with Progress(*columns, label("{task.fields[figures]}"), console=console) as bars:
        tasks = {
            phase: bars.add_task(f"phase {phase}", total=total, completed=epochs[phase], figures="")
            for phase, total in phases.items()
        }

        def show(row: EpochMetrics) -> None:
            epochs[row.phase] = row.epoch
            bars.update(tasks[row.phase], completed=row.epoch, figures=_describe(row))
            for phase in range(1, row.phase):  # it may have ended before its last epoch
                bars.update(tasks[phase], total=epochs[phase])

        yield show


def _describe(row: EpochMetrics) -> str:
    changed = f"  changed {row.changed}" if row.phase == 1 else ""
    return f"validation {row.validation_loss:.4f}  accuracy {row.validation_accuracy:.4f}{changed}"
