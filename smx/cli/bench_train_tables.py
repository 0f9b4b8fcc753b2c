"""What `smx bench-train` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from smx.cli.options import console

if TYPE_CHECKING:
    from smx.stepbench.costs import StepReport


def show_steps(report: StepReport, architecture: str, json_path: str | None) -> None:
    """Print how long the candidates' steps take and what memory, and the warnings."""
    people = console(json_path)
    how = f"{report.threads} threads" if report.device == "cpu" else report.machine["gpu"]
    captured = ", CUDA graphs" if report.cuda_graphs else ""
    times = Table(
        title=f"{architecture}, {report.device}, {how}{captured}, rounds: {report.rounds}",
        caption=f"milliseconds a step; ratio to {report.baseline} and its {report.level:.0%} interval",
    )
    times.add_column("candidate")
    for heading in ("batch", "p50", "p90", "p99", "examples a second", "ratio", "interval"):
        times.add_column(heading, justify="right")
    memory = Table(
        caption="MB at most at a time beyond weights, gradients and the optimiser; activations: without the products"
        " that are added to weights' gradients; kept: for the backward pass; step: with all gradients"
    )
    memory.add_column("candidate")
    for heading in ("batch", "peak", "ratio", "activations", "kept", "step"):
        memory.add_column(heading, justify="right")
    for size in report.batch_sizes:
        for row in (*report.results, *report.control):
            if row.batch_size == size:
                times.add_row(
                    row.name,
                    str(size),
                    *(f"{figure / 1e3:,.2f}" for figure in (row.p50, row.p90, row.p99)),
                    f"{row.throughput:,.0f}",
                    f"{row.ratio:.2f}",
                    f"{row.ratio_low:.3f} - {row.ratio_high:.3f}",
                )
        for taken in report.memory:
            if taken.batch_size == size:
                peak, *rest = (
                    f"{figure / 1e6:,.3f}"
                    for figure in (taken.accumulating, taken.activations, taken.saved, taken.step)
                )
                memory.add_row(taken.name, str(size), peak, f"{taken.ratio:.2f}", *rest)
        times.add_section()
        memory.add_section()
    people.print(times)
    people.print(memory)
    for warning in report.warnings:
        people.print(f"Warning: {warning}", soft_wrap=True)
