"""What `smx bench` and `smx bench-train` print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from smx.cli.output import table

if TYPE_CHECKING:
    from smx.runtime.profile.fold import Profile
    from smx.stepbench.costs import StepReport
    from smx.timing.changes import Changes
    from smx.timing.limits import Verdict
    from smx.timing.report import TimingReport
    from smx.workflows.bench import BenchReport

NAMED = 10
"""At most this many nodes are named that do not run as they stand in the file."""


def show_latency(report: BenchReport, people: Console) -> None:
    """Print what the candidates cost and how long they take, where the time goes, and the warnings."""
    title = f"{report.model}, {report.provider}, {report.settings.describe()}, rounds: {report.rounds}"
    costs = [(one.name, (one.bytes, 1e6), (one.start, 1), (one.peak_memory, 1e6)) for one in report.candidates]
    rows = [
        (name, *("-" if figure is None else f"{figure / unit:,.2f}" for figure, unit in figures))
        for name, *figures in costs
    ]
    people.print(table(("candidate", ">size, MB", ">session start, ms", ">peak memory, MB"), rows, title=title))
    _show_times(report, people, "microseconds a run", 1, 1)
    for name, profiles in report.profiles.items():
        for profile in profiles:
            show_profile(name, profile, people)


def show_steps(report: StepReport, people: Console) -> None:
    """Print how long the candidates' steps take and what memory, and the warnings."""
    how = f"{report.threads} threads" if report.device == "cpu" else report.machine["gpu"]
    captured = ", CUDA graphs" if report.cuda_graphs else ""
    sizes = "-".join(map(str, report.sizes))
    people.print(
        table(
            ("candidate", ">batch", ">peak", ">ratio", ">activations", ">kept", ">step"),
            [
                (
                    row.name, str(row.batch_size), f"{row.accumulating / 1e6:,.3f}", f"{row.ratio:.2f}",
                    *(f"{figure / 1e6:,.3f}" for figure in (row.activations, row.saved, row.step)),
                )
                for row in report.memory
            ],
            section=1,
            title=f"{sizes}, {report.device}, {how}{captured}, rounds: {report.rounds}",
            caption="MB at most beyond weights, gradients and the optimiser; activations: without the products that are"
            " added to weights' gradients; kept: for the backward pass; step: with all gradients",
        )
    )  # fmt: skip
    _show_times(report, people, "milliseconds a step", 1e3, 2)


def _show_times(report: TimingReport, people: Console, unit: str, scale: float, digits: int) -> None:
    rows = [
        (
            row.name,
            str(row.batch_size),
            *(f"{figure / scale:,.{digits}f}" for figure in (row.p50, row.p90, row.p99)),
            f"{row.throughput:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.3f} - {row.ratio_high:.3f}",
        )
        for size in report.batch_sizes
        for row in (*report.results, *report.control)
        if row.batch_size == size
    ]
    headings = ("candidate", ">batch", ">p50", ">p90", ">p99", ">examples a second", ">ratio", ">interval")
    caption = f"{unit}; ratio to {report.baseline} and its {report.level:.0%} interval"
    people.print(table(headings, rows, section=1, caption=caption))
    for warning in report.warnings:
        people.print(f"Warning: {warning}", soft_wrap=True)


def show_profile(name: str, profile: Profile, people: Console) -> None:
    """Print where the time of a model goes, layer after layer, and what does not run as it stands in the file."""
    rows = [
        (row.layer, row.operator, str(row.count), row.provider, f"{row.microseconds:,.1f}", f"{row.share:.1%}")
        for row in profile.rows
    ]
    people.print(
        table(
            ("layer", "operator", ">nodes", "provider", ">microseconds", ">share"),
            rows,
            section=0,
            title=f"{name}, batch {profile.batch_size}\n{profile.microseconds:,.1f} microseconds a run, as profiled",
            caption="the profiler adds 2 to 3 microseconds to every node,\nand more between them",
        )
    )
    if profile.fallen_back:
        nodes = (f"{node} ({operator}, {provider})" for node, operator, provider in profile.fallen_back)
        people.print(f"not run by {profile.provider}: {', '.join(nodes)}")
    gone, more = profile.gone, len(profile.gone) - NAMED
    names = ", ".join(gone[:NAMED]) + (f" and {more} more" if more > 0 else "")
    people.print(
        f"{len(gone)} of the {profile.nodes} nodes of the file were fused, folded away or replaced: {names}"
        if gone
        else f"all {profile.nodes} nodes of the file run as they stand there"
    )


def show_limits(verdicts: Iterable[Verdict], people: Console) -> None:
    """Print what the measurement says of the limits."""
    for verdict in verdicts:
        interval = f"{verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"
        surely = "exceeded" if verdict.exceeded else "not exceeded, as far as can be told"
        people.print(f"limit {verdict.limit}, batch {verdict.batch_size}: {interval}, {surely}", soft_wrap=True)


def show_changes(changes: Changes, old: Path, people: Console) -> None:
    """Print what is faster or slower than in an older bench."""
    rows = [
        (
            row.name, str(row.batch_size), f"{row.old[0]:.3f}", f"{row.new[0]:.3f}",
            f"{row.new[0] / row.old[0] - 1:+.1%}", row.verdict,
        )
        for row in changes.rows
    ]  # fmt: skip
    headings = ("candidate", ">batch", ">ratio then", ">ratio now", ">change", "")
    people.print(table(headings, rows, title=f"since {old}"))
    for what, (then, now) in changes.conditions.items():
        people.print(f"measured under other conditions: {what} was {then}, is {now}", soft_wrap=True)
    for what, names in (("not measured any more", changes.missing), ("new", changes.added)):
        if names:
            people.print(f"{what}: {'; '.join(names)}", soft_wrap=True)
