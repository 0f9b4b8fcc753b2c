"""What `smx verify` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from smx.cli.tables import table

if TYPE_CHECKING:
    from smx.runtime.parity.compare import Arbitration, Comparison
    from smx.runtime.parity.locate import Location
    from smx.workflows.verify import VerifyReport

LISTED = 10
"""At most this many examples are listed whose class differs."""
NEARER = {"model": "onnxruntime", "reference": "PyTorch", "equal": "both the same"}
"""What people read for the side that is nearer to float64."""


def show_parity(report: VerifyReport, network: str, people: Console) -> None:
    """Print the comparisons, who is nearer to float64, which predictions differ, and where the fault is."""
    by_class = report.max_changed is not None
    limit = f"at most {report.max_changed:.1%} change" if by_class else f"|a - b| <= {report.atol:g} scale"
    limit += "" if by_class else f" + {report.rtol:g} |b|"
    people.print(_differences(report, f"{report.model} against {network}: {limit}"))
    people.print(_nearness(report))
    first = report.comparisons[0].inputs
    lines = _disagreements([row for row in report.comparisons if row.inputs == first], report.class_names)
    broken = "too many predictions change" if by_class else "a difference is above the tolerance"
    lines.append("parity holds" if report.passed else f"parity is broken: {broken}")
    if report.location:
        lines.append(_describe(report.location, str(report.located_on)))
    for line in lines:
        people.print(line, soft_wrap=True)


def _name(row: Comparison, report: VerifyReport) -> str:
    several = len({each.output for each in report.comparisons}) > 1
    return f"{row.inputs}, {row.output}" if several else row.inputs


def _differences(report: VerifyReport, title: str) -> Table:
    made = table("inputs", ">batch", ">largest |a - b|", ">passes at atol", ">same class", "", title=title)
    for row in report.comparisons:
        made.add_row(
            _name(row, report),
            str(row.batch_size),
            f"{row.max_abs:.2e}",
            f"{row.needed_atol:.2e}",
            f"{row.agreement:.2%}",
            "ok" if row.passed else "FAILED",
        )
    return made


def _nearness(report: VerifyReport) -> Table:
    """Say for each set of inputs which side is nearer to float64; the batch size has little to do with that."""
    title = "distance from PyTorch in float64: root mean square, and largest"
    made = table("inputs", ">onnxruntime", ">PyTorch", "nearer", title=title)
    sets: dict[str, list[Arbitration]] = {}
    for row in report.comparisons:
        if row.arbitration:
            sets.setdefault(_name(row, report), []).append(row.arbitration)
    for name, found in sets.items():
        made.add_row(
            name,
            f"{max(one.error_rms for one in found):.2e}, {max(one.error for one in found):.2e}",
            f"{max(one.reference_error_rms for one in found):.2e}, {max(one.reference_error for one in found):.2e}",
            ", ".join(NEARER[nearer] for nearer in NEARER if nearer in {one.nearer for one in found}),
        )
    return made


def _disagreements(rows: list[Comparison], class_names: tuple[str, ...]) -> list[str]:
    """Name the examples of a set that get another class, at any batch size."""
    changed = {found.example: found for row in rows for found in row.changed}
    more = max([len(changed), *(row.changed_examples for row in rows)]) - LISTED
    name = dict(enumerate(class_names))
    lines = [
        f"{rows[0].inputs} example {i}: PyTorch says {name.get(found.reference, found.reference)},"
        f" the file says {name.get(found.got, found.got)}"
        for i, found in sorted(changed.items())[:LISTED]
    ]
    return [*lines, f"and {more} more"] if more > 0 else lines


def _describe(location: Location, inputs: str) -> str:
    """Return in a sentence what breaks first."""
    fault = location.fault
    if fault is None:
        return (
            "located: nowhere. Each layer agrees when it is compared alone: small differences add up, or ONNX Runtime"
            " makes the fault when it fuses operators"
        )
    kind = f" ({fault.activation})" if fault.activation else ""
    others = f", with {len(fault.neurons) - 1} other neurons of this layer" if len(fault.neurons) > 1 else ""
    return (
        f"located: {fault.layer}, neuron {fault.neuron}{kind}, {fault.part}: on example {fault.example} of {inputs}"
        f" it is {fault.got:.6g} instead of {fault.expected:.6g}{others}. Of the examples that were searched,"
        f" {fault.examples} are affected; {len(location.places) - 1} places before it agree"
    )
