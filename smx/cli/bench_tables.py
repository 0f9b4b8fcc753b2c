"""What `smx bench` and `smx bench-train` print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from smx.cli.tables import table

if TYPE_CHECKING:
    from smx.stepbench.costs import StepReport
    from smx.timing.changes import Changes
    from smx.timing.limits import Verdict
    from smx.timing.report import TimingReport
    from smx.workflows.bench import BenchReport


def show_latency(report: BenchReport, people: Console) -> None:
    """Print what the candidates cost and how long they take, and the warnings."""
    title = f"{report.model}, {report.provider}, {report.settings.describe()}, rounds: {report.rounds}"
    sizes = table("candidate", ">size, MB", ">session start, ms", ">peak memory, MB", title=title)
    for one in report.candidates:
        figures = ((one.bytes, 1e6), (one.start, 1), (one.peak_memory, 1e6))
        sizes.add_row(one.name, *("-" if figure is None else f"{figure / unit:,.2f}" for figure, unit in figures))
    people.print(sizes)
    people.print(_times(report, "microseconds a run", 1, 1))
    _warn(report, people)


def show_steps(report: StepReport, people: Console) -> None:
    """Print how long the candidates' steps take and what memory, and the warnings."""
    how = f"{report.threads} threads" if report.device == "cpu" else report.machine["gpu"]
    captured = ", CUDA graphs" if report.cuda_graphs else ""
    sizes = "-".join(map(str, report.sizes))
    times = _times(report, "milliseconds a step", 1e3, 2)
    times.title = f"{sizes}, {report.device}, {how}{captured}, rounds: {report.rounds}"
    people.print(times)
    memory = table(
        "candidate", ">batch", ">peak", ">ratio", ">activations", ">kept", ">step",
        caption="MB at most beyond weights, gradients and the optimiser; activations: without the products that are"
        " added to weights' gradients; kept: for the backward pass; step: with all gradients",
    )  # fmt: skip
    for size in report.batch_sizes:
        for row in report.memory:
            if row.batch_size == size:
                figures = (row.accumulating, row.activations, row.saved, row.step)
                peak, *rest = (f"{figure / 1e6:,.3f}" for figure in figures)
                memory.add_row(row.name, str(size), peak, f"{row.ratio:.2f}", *rest)
        memory.add_section()
    people.print(memory)
    _warn(report, people)


def _times(report: TimingReport, unit: str, scale: float, digits: int) -> Table:
    """Return a row for each candidate at each batch size."""
    made = table(
        "candidate", ">batch", ">p50", ">p90", ">p99", ">examples a second", ">ratio", ">interval",
        caption=f"{unit}; ratio to {report.baseline} and its {report.level:.0%} interval",
    )  # fmt: skip
    for size in report.batch_sizes:
        for row in (*report.results, *report.control):
            if row.batch_size == size:
                made.add_row(
                    row.name,
                    str(size),
                    *(f"{figure / scale:,.{digits}f}" for figure in (row.p50, row.p90, row.p99)),
                    f"{row.throughput:,.0f}",
                    f"{row.ratio:.2f}",
                    f"{row.ratio_low:.3f} - {row.ratio_high:.3f}",
                )
        made.add_section()
    return made


def _warn(report: TimingReport, people: Console) -> None:
    for warning in report.warnings:
        people.print(f"Warning: {warning}", soft_wrap=True)


def show_limits(verdicts: Iterable[Verdict], people: Console) -> None:
    """Print what the measurement says of the limits."""
    for verdict in verdicts:
        interval = f"{verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"
        surely = "exceeded" if verdict.exceeded else "not exceeded, as far as can be told"
        people.print(f"limit {verdict.limit}, batch {verdict.batch_size}: {interval}, {surely}", soft_wrap=True)


def show_changes(changes: Changes, old: str, people: Console) -> None:
    """Print what is faster or slower than in an older bench."""
    made = table("candidate", ">batch", ">ratio then", ">ratio now", ">change", "", title=f"since {old}")
    for row in changes.rows:
        change = f"{row.new[0] / row.old[0] - 1:+.1%}"
        made.add_row(row.name, str(row.batch_size), f"{row.old[0]:.3f}", f"{row.new[0]:.3f}", change, row.verdict)
    people.print(made)
    for what, (then, now) in changes.conditions.items():
        people.print(f"measured under other conditions: {what} was {then}, is {now}", soft_wrap=True)
    for what, names in (("not measured any more", changes.missing), ("new", changes.added)):
        if names:
            people.print(f"{what}: {'; '.join(names)}", soft_wrap=True)
