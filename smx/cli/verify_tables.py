"""What `smx verify` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from smx.runtime.parity.check import ParityReport
    from smx.runtime.parity.compare import Arbitration, Comparison
    from smx.runtime.parity.locate import Location

LISTED = 10
"""So many test examples at most are listed where the two disagree on the class."""
NEARER = {"model": "onnxruntime", "reference": "PyTorch", "equal": "both the same"}
"""How people call what a comparison found nearer to float64."""


def describe_location(location: Location, inputs: str) -> str:
    """Return in a sentence what breaks first."""
    fault = location.fault
    if fault is None:
        return (
            "located: nowhere. Looked at one by one, all layers agree: small differences add up, or the fault is in"
            " what ONNX Runtime makes of operators that follow each other"
        )
    kind = f" ({fault.activation})" if fault.activation else ""
    others = f", with {len(fault.neurons) - 1} other neurons of this layer" if len(fault.neurons) > 1 else ""
    return (
        f"located: {fault.layer}, neuron {fault.neuron}{kind}, {fault.part}: on example {fault.example} of {inputs}"
        f" it is {fault.got:.6g} instead of {fault.expected:.6g}{others}. Among the first examples that were looked at,"
        f" {fault.examples} are affected; {len(location.places) - 1} places before it agree"
    )


def show_parity(report: ParityReport, title: str, test: str, class_names: tuple[str, ...], people: Console) -> None:
    """Print the comparisons, who is nearer to float64, and which examples get another class."""
    by_class = report.max_changed is not None
    limit = f"at most {report.max_changed:.1%} change" if by_class else f"{report.atol:g} scale + {report.rtol:g} |b|"
    people.print(_differences(report, f"{title}: {'' if by_class else '|a - b| <= '}{limit}"))
    people.print(_nearness(report.comparisons))
    for line in _disagreements([row for row in report.comparisons if row.inputs == test], class_names):
        people.print(line)
    broken = "too many predictions change" if by_class else "a difference is above the tolerance"
    people.print("parity holds" if report.passed else f"parity is broken: {broken}")


def _differences(report: ParityReport, title: str) -> Table:
    table = Table(title=title)
    for heading in ("inputs", "output"):
        table.add_column(heading)
    for heading in ("batch", "largest |a - b|", "passes at atol", "same class"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in report.comparisons:
        table.add_row(
            row.inputs,
            row.output,
            str(row.batch_size),
            f"{row.max_abs:.2e}",
            f"{row.needed_atol:.2e}",
            f"{row.agreement:.2%}",
            "ok" if row.passed else "FAILED",
        )
    return table


def _nearness(comparisons: Iterable[Comparison]) -> Table:
    """Say for each set of inputs which is nearer to float64; the batch size has little to do with that."""
    table = Table(title="distance from PyTorch in float64: root mean square, and largest")
    for heading in ("inputs", "output", "onnxruntime", "PyTorch", "nearer"):
        table.add_column(heading, justify="right" if heading in ("onnxruntime", "PyTorch") else "left")
    sets: dict[tuple[str, str], list[Arbitration]] = {}
    for row in comparisons:
        if row.arbitration:
            sets.setdefault((row.inputs, row.output), []).append(row.arbitration)
    for (inputs, output), found in sets.items():
        table.add_row(
            inputs,
            output,
            f"{max(one.error_rms for one in found):.2e}, {max(one.error for one in found):.2e}",
            f"{max(one.reference_error_rms for one in found):.2e}, {max(one.reference_error for one in found):.2e}",
            ", ".join(NEARER[nearer] for nearer in NEARER if nearer in {one.nearer for one in found}),
        )
    return table


def _disagreements(rows: list[Comparison], class_names: tuple[str, ...]) -> list[str]:
    """Name the examples that get another class, at any batch size."""
    changed = {found.example: found for row in rows for found in row.changed}
    more = max([len(changed), *(row.changed_examples for row in rows)]) - LISTED
    name = dict(enumerate(class_names))
    lines = [
        f"test example {i}: PyTorch says {name.get(found.reference, found.reference)},"
        f" the file says {name.get(found.got, found.got)}"
        for i, found in sorted(changed.items())[:LISTED]
    ]
    return [*lines, f"and {more} more"] if more > 0 else lines
