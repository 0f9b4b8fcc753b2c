"""`smx verify`: does the ONNX file give PyTorch's answers?"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smx.cli.options import (
    Command,
    Numbers,
    console,
    data_dir_option,
    fallback_option,
    json_option,
    logs,
    provider_option,
    tolerance_option,
    trust_code_option,
    write_json,
)
from smx.cli.verify_tables import describe_location, show_parity
from smx.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from smx.data.dataset import Dataset
    from smx.modelfile import SavedModel
    from smx.runtime.parity.locate import Location
    from smx.runtime.session import Session

MAX_CHANGED = {"float16": 0.001, "int8": 0.005}
"""The share of predictions that lower precision may change."""
SEARCHED = 256
"""So many test examples at most are searched for values at the kinks of the activations."""
CHUNK = 1000
"""So many examples at a time are searched for a fault."""


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.argument("onnx_path", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|FILE.npz", help="Whose test set to use.  [default: the one it was trained on]")
@data_dir_option
@click.option("--batch-sizes", type=Numbers(), default="1,16,128,1000", show_default=True, help="Examples a run.")
@tolerance_option("--atol", 1e-5, "Absolute tolerance; times the scale of inputs beyond 1.")
@tolerance_option("--rtol", 1e-4, "Relative tolerance.")
@click.option("--locate", is_flag=True, help="When it fails, find the first layer, neuron and example that break.")
@provider_option
@fallback_option
@trust_code_option
@json_option
def verify(
    model_path: Path,
    onnx_path: Path,
    data: str | None,
    data_dir: Path | None,
    batch_sizes: tuple[int, ...],
    atol: float,
    rtol: float,
    locate: bool,
    provider: str,
    allow_fallback: bool,
    trust_code: bool,
    json_path: str | None,
) -> None:
    """Compare an exported file with PyTorch.

    On the test set, on random and extreme inputs and at the kinks of the activations, in several batch sizes.
    Ends with exit code 3 when a difference is above the tolerance, which is numpy.allclose's; for the inputs of 10000
    the absolute part is multiplied by their size. A float16 or int8 file fails when more than 0.1 % or 0.5 % of the
    test set get another class. Which of the two is nearer to a float64 run of PyTorch is said too.

    With --locate a failure is followed through the layers, to the first neuron that breaks.

    \b
    smx verify runs/mnist/model.pt mnist.onnx
    """
    from smx import data as datasets
    from smx.modelfile import load_model
    from smx.runtime.parity.check import check_parity
    from smx.runtime.session import Session
    from smx.runtime.settings import Settings
    from smx.timing.machine import machine

    saved = load_model(model_path, trust_code=trust_code)
    session = Session(onnx_path, provider, settings=Settings(), allow_fallback=allow_fallback)
    raw = session.takes_raw
    model = saved.build(raw=raw)
    dataset = datasets.load(data or saved.data["name"], data_dir)
    taken = math.prod(saved.architecture.input_shape)
    if dataset.num_features != taken:
        raise InputError(f"{model_path} takes {taken} values an example, {dataset.name} has {dataset.num_features}")
    max_changed = MAX_CHANGED.get(session.info.precision) if session.info else None
    inputs = _inputs(saved, model, dataset, raw=raw, only_test=max_changed is not None)
    notes = logs()
    with notes.status("comparing") if notes.is_terminal else nullcontext() as status:
        report = check_parity(
            _pytorch(model),
            session,
            inputs,
            arbiter=_in_float64(saved, raw=raw),
            atol=atol,
            rtol=rtol,
            max_changed=max_changed,
            batch_sizes=batch_sizes,
            on_progress=lambda inputs, batch: status.update(f"{inputs}, batch {batch}") if status else None,
        )
    people = console(json_path)
    show_parity(report, f"{onnx_path} against {model_path}", next(iter(inputs)), dataset.class_names, people)
    content = {"model": str(onnx_path), **report.to_dict(), "machine": machine()}
    if locate and not report.passed:
        broken = next(row.inputs for row in report.comparisons if not row.passed)
        location = _locate(saved, model, session, inputs[broken], str(onnx_path), allow_fallback=allow_fallback)
        people.print(describe_location(location, broken), soft_wrap=True)
        content["location"] = {"inputs": broken, **location.to_dict()}
    write_json(json_path, content)
    if not report.passed:
        raise click.exceptions.Exit(3)


def _inputs(
    saved: SavedModel, model: nn.Module, dataset: Dataset, *, raw: bool, only_test: bool
) -> dict[str, NDArray[Any]]:
    """Return the sets of inputs by name, the test set first."""
    import torch

    from smx.hooks import kinks
    from smx.runtime.parity.inputs import synthetic_inputs

    test = saved.examples(dataset, dataset.test.x, raw=raw)
    inputs = {f"{dataset.name} test": test}
    if only_test:
        return inputs
    if raw:
        return inputs | synthetic_inputs(saved.data["sample_shape"], maximum=int(saved.data["maximum"]))
    at_kinks = kinks(model, torch.from_numpy(test[:SEARCHED])).numpy()
    return inputs | synthetic_inputs(test.shape[1:]) | ({"kinks": at_kinks} if len(at_kinks) else {})


def _pytorch(model: nn.Module) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what runs a module on arrays."""
    import torch

    def run(x: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run


def _in_float64(saved: SavedModel, *, raw: bool) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what runs the saved network on the same arrays in float64, the normalisation of raw ones included."""
    import torch

    run = _pytorch(saved.build(raw=raw, dtype=torch.float64))
    return run if raw else lambda x: run(x.astype("float64"))


def _locate(
    saved: SavedModel, model: nn.Module, session: Session, x: NDArray[Any], path: str, *, allow_fallback: bool
) -> Location:
    """Find the first fault on some inputs, a part of them after the other."""
    from dataclasses import replace

    import torch

    from smx.export.reference import in_parts
    from smx.runtime.parity.locate import locate

    exact = in_parts(saved.build(raw=session.takes_raw, dtype=torch.float64), torch.float64)
    float32 = in_parts(model)
    for start in range(0, len(x), CHUNK):
        location = locate(
            path,
            float32,
            exact,
            x[start : start + CHUNK],
            provider=session.provider,
            allow_fallback=allow_fallback,
        )
        if location.fault is not None:
            return replace(location, fault=replace(location.fault, example=location.fault.example + start))
    return location
