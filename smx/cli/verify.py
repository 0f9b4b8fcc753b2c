"""`smx verify`: does the ONNX file give PyTorch's answers?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import table, write_json
from smx.cli.progress import progress

if TYPE_CHECKING:
    from smx.runtime.parity.compare import Arbitration
    from smx.runtime.parity.locate import Location
    from smx.workflows.verify import VerifyReport

LISTED = 10
"""At most this many examples are listed whose class differs."""
NEARER = {"model": "onnxruntime", "reference": "PyTorch", "equal": "both the same"}
"""What people read for the side that is nearer to float64."""
TOLERANCE: dict[str, Any] = {"type": options.Number(min=0), "metavar": "X"}


@click.command(cls=options.Command)
@click.argument("model_path", metavar="MODEL.pt", type=options.PATH)
@click.argument("onnx_path", metavar="MODEL.onnx", type=options.PATH)
@click.option("--data", metavar="NAME|FILE.npz", help="Whose test set to use.  [default: the one it was trained on]")
@options.data_dir
@click.option("--batch-sizes", type=options.BATCH_SIZES, default="1,16,128,1000", help="Examples a run.")
@click.option("--atol", help="Absolute tolerance.  [default: that of the export, 1e-5]", **TOLERANCE)
@click.option("--rtol", help="Relative tolerance.  [default: that of the export, 1e-4]", **TOLERANCE)
@click.option("--locate", is_flag=True, help="When it fails, find the first layer, neuron and example that break.")
@options.session
@options.trust_code
@options.json
def verify(model_path: Path, onnx_path: Path, json_path: str | None, **options: Any) -> None:
    """Compare an exported file with PyTorch.

    The inputs are the test set, random and extreme values, and values at the kinks of the activations, in several
    batch sizes. A difference above the tolerance, |a - b| <= atol scale + rtol |b|, ends with exit code 3; the scale is
    above 1 where inputs or outputs are. A float16 or int8 file fails when more than 0.1 % or 0.5 % of the predictions
    on the test set change. A second table says whether the file or PyTorch is nearer to PyTorch in float64.

    With --locate a failure is traced through the layers to the first neuron that breaks.

    \b
    smx verify runs/mnist/model.pt mnist.onnx
    smx verify runs/mnist/model.pt mnist.onnx --locate --json verify.json
    """
    from smx.workflows.verify import verify

    with progress() as show:
        report = verify(model_path, onnx_path, on_progress=show, **options)
    people = write_json(json_path, report.to_dict())
    people.print(_differences(report, model_path))
    people.print(_nearness(report))
    for line in _sentences(report):
        people.print(line, soft_wrap=True)
    if not report.passed:
        raise click.exceptions.Exit(3)


def _names(report: VerifyReport) -> list[str]:
    """Name the inputs of each comparison, and its output if there are several."""
    several = len({row.output for row in report.comparisons}) > 1
    return [f"{row.inputs}, {row.output}" if several else row.inputs for row in report.comparisons]


def _differences(report: VerifyReport, network: Path) -> Table:
    limit = f"|a - b| <= {report.atol:g} scale + {report.rtol:g} |b|"
    if report.max_changed is not None:
        limit = f"at most {report.max_changed:.1%} change"
    rows = (
        (
            name, str(row.batch_size), f"{row.max_abs:.2e}", f"{row.needed_atol:.2e}", f"{row.agreement:.2%}",
            "ok" if row.passed else "FAILED",
        )
        for name, row in zip(_names(report), report.comparisons, strict=True)
    )  # fmt: skip
    headings = ("inputs", ">batch", ">largest |a - b|", ">passes at atol", ">same class", "")
    return table(headings, rows, title=f"{report.model} against {network}: {limit}")


def _nearness(report: VerifyReport) -> Table:
    """Say for each set of inputs which side is nearer to float64; the batch size has little to do with that."""
    sets: dict[str, list[Arbitration]] = {}
    for name, row in zip(_names(report), report.comparisons, strict=True):
        if row.arbitration:
            sets.setdefault(name, []).append(row.arbitration)
    rows = (
        (
            name,
            f"{max(one.error_rms for one in found):.2e}, {max(one.error for one in found):.2e}",
            f"{max(one.reference_error_rms for one in found):.2e}, {max(one.reference_error for one in found):.2e}",
            ", ".join(NEARER[nearer] for nearer in NEARER if nearer in {one.nearer for one in found}),
        )
        for name, found in sets.items()
    )
    title = "distance from PyTorch in float64: root mean square, and largest"
    return table(("inputs", ">onnxruntime", ">PyTorch", "nearer"), rows, title=title)


def _sentences(report: VerifyReport) -> Iterator[str]:
    """Name the examples of the first set that get another class, at any batch size; then say whether parity holds."""
    first = report.comparisons[0].inputs
    rows = [row for row in report.comparisons if row.inputs == first]
    changed = {found.example: found for row in rows for found in row.changed}
    names = dict(enumerate(report.class_names))
    for i, found in sorted(changed.items())[:LISTED]:
        classes = (names.get(index, index) for index in (found.reference, found.got))
        yield "{} example {}: PyTorch says {}, the file says {}".format(first, i, *classes)
    more = max([len(changed), *(row.changed_examples for row in rows)]) - LISTED
    if more > 0:
        yield f"and {more} more"
    broken = "a difference is above the tolerance" if report.max_changed is None else "too many predictions change"
    yield "parity holds" if report.passed else f"parity is broken: {broken}"
    if report.location:
        yield _describe(report.location, str(report.located_on))


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
