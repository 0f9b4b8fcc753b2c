"""`smx verify`: does the ONNX file give PyTorch's answers?"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import (
    Command,
    console,
    data_dir_option,
    json_option,
    logs,
    provider_option,
    tolerance_option,
    write_json,
)
from smx.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CHANGED = {"float16": 0.001, "int8": 0.005}
"""The share of predictions that lower precision may change."""


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.argument("onnx_path", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|FILE.npz", help="Whose test set to use.  [default: the one it was trained on]")
@data_dir_option
@tolerance_option("--atol", 1e-5, "Absolute tolerance; times the scale of inputs beyond 1.")
@tolerance_option("--rtol", 1e-4, "Relative tolerance.")
@provider_option
@json_option
def verify(
    model_path: Path,
    onnx_path: Path,
    data: str | None,
    data_dir: Path | None,
    atol: float,
    rtol: float,
    provider: str,
    json_path: str | None,
) -> None:
    """Compare an exported file with PyTorch.

    On the test set, on random and on extreme inputs, in several batch sizes.
    Ends with exit code 3 when a difference is above the tolerance, which is numpy.allclose's; for the inputs of 10000
    the absolute part is multiplied by their size. A float16 or int8 file fails when more than 0.1 % or 0.5 % of the
    test set get another class.

    \b
    smx verify runs/mnist/model.pt mnist.onnx
    """
    import torch

    from smx import data as datasets
    from smx.cli.export import as_taken
    from smx.modelfile import load_model
    from smx.runtime.machine import machine
    from smx.runtime.parity import check_parity, probes, raw_probes
    from smx.runtime.session import Session

    saved = load_model(model_path)
    session = Session(onnx_path, provider)
    raw = session.takes_raw
    model = saved.build(raw=raw)
    features = saved.sizes[0]
    dataset = datasets.load(data or saved.data["name"], data_dir)
    if dataset.num_features != features:
        raise InputError(f"{model_path} takes {features} values an example, {dataset.name} has {dataset.num_features}")
    max_changed = MAX_CHANGED.get(session.info.precision) if session.info else None
    inputs = {f"{dataset.name} test": as_taken(saved, dataset.test.x, raw=raw)}
    if max_changed is None:
        inputs |= raw_probes(saved.data["sample_shape"], int(saved.data["maximum"])) if raw else probes((features,))

    def pytorch(x: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    notes = logs()
    with notes.status("comparing") if notes.is_terminal else nullcontext() as status:
        report = check_parity(
            pytorch,
            session,
            inputs,
            atol=atol,
            rtol=rtol,
            max_changed=max_changed,
            on_progress=lambda inputs, batch: status.update(f"{inputs}, batch {batch}") if status else None,
        )
    limit = f"|a - b| <= {atol:g} scale + {rtol:g} |b|" if max_changed is None else f"at most {max_changed:.1%} change"
    table = Table(title=f"{onnx_path} against {model_path}: {limit}")
    for heading in ("inputs", "batch", "examples", "scale", "largest difference", "relative", "same class", ""):
        table.add_column(heading, justify="left" if heading in ("inputs", "") else "right")
    for row in report.comparisons:
        table.add_row(
            row.inputs,
            str(row.batch_size),
            str(row.examples),
            f"{row.scale:g}",
            f"{row.max_abs:.2e}",
            f"{row.max_rel:.2e}",
            f"{row.agreement:.2%}",
            "ok" if row.passed else "FAILED",
        )
    people = console(json_path)
    people.print(table)
    broken = "a difference is above the tolerance" if max_changed is None else "too many predictions change"
    people.print("parity holds" if report.passed else f"parity is broken: {broken}")
    write_json(json_path, {"model": str(onnx_path), **report.to_dict(), "machine": machine()})
    if not report.passed:
        raise click.exceptions.Exit(3)
