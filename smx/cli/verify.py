"""`smx verify`: does the ONNX file give PyTorch's answers?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smx.cli.options import (
    Command,
    Numbers,
    console,
    data_dir_option,
    fallback_option,
    json_option,
    progress,
    provider_option,
    tolerance_option,
    trust_code_option,
    write_json,
)
from smx.cli.verify_tables import show_parity


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.argument("onnx_path", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|FILE.npz", help="Whose test set to use.  [default: the one it was trained on]")
@data_dir_option
@click.option("--batch-sizes", type=Numbers(), default="1,16,128,1000", show_default=True, help="Examples a run.")
@tolerance_option("--atol", "Absolute tolerance.  [default: that of the export, 1e-5]")
@tolerance_option("--rtol", "Relative tolerance.  [default: that of the export, 1e-4]")
@click.option("--locate", is_flag=True, help="When it fails, find the first layer, neuron and example that break.")
@provider_option
@fallback_option
@trust_code_option
@json_option
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
    write_json(json_path, report.to_dict())
    show_parity(report, str(model_path), console(json_path))
    if not report.passed:
        raise click.exceptions.Exit(3)
