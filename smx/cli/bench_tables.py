"""What `smx bench` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from smx.cli.options import console

if TYPE_CHECKING:
    from smx.runtime.latency.measure import LatencyReport
    from smx.timing.changes import Changes
    from smx.timing.limits import Verdict


def show_report(report: LatencyReport, title: str, json_path: str | None) -> None:
    """Print what the candidates cost and how long they take, and the warnings."""
    people = console(json_path)
    sizes = Table(title=f"{title}, {report.provider}, {report.settings.describe()}, rounds: {report.rounds}")
    sizes.add_column("candidate")
    for heading in ("size, MB", "session start, ms", "peak memory, MB"):
        sizes.add_column(heading, justify="right")
    for candidate in report.candidates:
        figures = (candidate.bytes, candidate.start, candidate.peak_memory)
        scaled = (
            figure if figure is None else figure / unit for figure, unit in zip(figures, (1e6, 1, 1e6), strict=True)
        )
        sizes.add_row(candidate.name, *("-" if figure is None else f"{figure:,.2f}" for figure in scaled))
    people.print(sizes)
    table = Table(caption=f"microseconds a run; ratio to {report.baseline} and its {report.level:.0%} interval")
    table.add_column("candidate")
    for heading in ("batch", "p50", "p90", "p99", "examples a second", "ratio", "interval"):
        table.add_column(heading, justify="right")
    for size in report.batch_sizes:
        for row in (*report.results, *report.control):
            if row.batch_size != size:
                continue
            table.add_row(
                row.name,
                str(row.batch_size),
                *(f"{figure:,.1f}" for figure in (row.p50, row.p90, row.p99)),
                f"{row.throughput:,.0f}",
                f"{row.ratio:.2f}",
                f"{row.ratio_low:.3f} - {row.ratio_high:.3f}",
            )
        table.add_section()
    people.print(table)
    for warning in report.warnings:
        people.print(f"Warning: {warning}", soft_wrap=True)


def show_verdicts(verdicts: list[Verdict], json_path: str | None) -> None:
    """Print what the measurement says of the limits."""
    for verdict in verdicts:
        interval = f"{verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"
        surely = "exceeded" if verdict.exceeded else "not exceeded, as far as can be told"
        console(json_path).print(
            f"limit {verdict.limit}, batch {verdict.batch_size}: {interval}, {surely}", soft_wrap=True
        )


def show_changes(changes: Changes, old: Path | None, json_path: str | None) -> None:
    """Print what is faster or slower than in an older bench."""
    people = console(json_path)
    table = Table(title=f"since {old}")
    table.add_column("candidate")
    for heading in ("batch", "ratio then", "ratio now", "change"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in changes.rows:
        change = f"{row.new[0] / row.old[0] - 1:+.1%}"
        table.add_row(row.name, str(row.batch_size), f"{row.old[0]:.3f}", f"{row.new[0]:.3f}", change, row.verdict)
    people.print(table)
    for what, (then, now) in changes.conditions.items():
        people.print(f"measured under other conditions: {what} was {then}, is {now}", soft_wrap=True)
    for what, names in (("not measured any more", changes.missing), ("new", changes.added)):
        if names:
            people.print(f"{what}: {'; '.join(names)}", soft_wrap=True)
