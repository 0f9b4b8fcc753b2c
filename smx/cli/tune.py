"""`smx tune`: the threads and the layout that run a model fastest here. Runs on the base install, but for --model."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress
from rich.table import Table

from smx import files
from smx.cli.options import Command, console, fallback_option, json_option, logs, provider_option, write_json
from smx.errors import InputError

if TYPE_CHECKING:
    from smx.runtime.session import Session
    from smx.runtime.tune.search import TuningReport

SHOWN = 6
"""Rows of the table at most; the JSON has all."""


@click.command(cls=Command)
@click.argument("onnx_path", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    metavar="MODEL.pt",
    help="Try the other layout, too: what MODEL.onnx was exported from.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Examples a run.  [default: what the file is made for, or 1]",
)
@click.option(
    "--goal",
    type=click.Choice(["p50", "p99", "throughput"]),
    default="p50",
    show_default=True,
    help="Percentile of the time of a run, or throughput.",
)
@provider_option
@fallback_option
@click.option(
    "--rounds",
    type=click.IntRange(min=20),
    default=60,
    show_default=True,
    metavar="N",
    help="Rounds at least, of the search and of the last measurement against the defaults.",
)
@click.option(
    "--max-threads", type=click.IntRange(min=1), metavar="N", help="Threads at most.  [default: the number of cores]"
)
@json_option
def tune(
    onnx_path: Path,
    model_path: Path | None,
    batch_size: int | None,
    goal: str,
    provider: str,
    allow_fallback: bool,
    rounds: int,
    max_threads: int | None,
    json_path: str | None,
) -> None:
    """Find the fastest settings for a model on this machine.

    The number of threads is searched, and with --model the layout. The fastest is measured against ONNX Runtime's
    defaults once more. If it is certainly faster, it is written to MODEL.onnx.tune.json, which predict and
    smx.runtime.Session read, and a faster layout to MODEL.tuned.onnx beside it; if not, the file says that the defaults
    stay. Runs are measured one after the other without a pause.

    \b
    smx tune mnist.onnx --model runs/mnist/model.pt --batch-size 16 --goal p99
    """
    from smx.runtime.session import Session
    from smx.runtime.settings import Settings
    from smx.runtime.tune import search
    from smx.runtime.tuning import fingerprint
    from smx.timing.machine import machine

    machine_before = machine()
    session = Session(onnx_path, provider, settings=Settings(), allow_fallback=allow_fallback)
    batch_size = batch_size or session.batch or 1
    _check_outputs(onnx_path, model_path, json_path)
    notes, before = logs(), fingerprint(onnx_path)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"": onnx_path}
        if model_path is not None:
            with notes.status("exporting") if notes.is_terminal else nullcontext():
                paths |= _other_layouts(session, onnx_path, model_path, Path(folder))
        del session
        with Progress(console=notes, disable=not notes.is_terminal) as progress:
            task = progress.add_task("", total=None)
            report = search.tune(
                paths,
                goal=goal,
                batch_size=batch_size,
                provider=provider,
                allow_fallback=allow_fallback,
                rounds=rounds,
                max_threads=max_threads,
                before=machine_before,
                on_progress=lambda what, done, total: progress.update(
                    task, description=what, completed=done, total=total
                ),
            )
        _leave(onnx_path, before, report, paths[report.winner.file])
    _show(onnx_path, report, json_path)
    for warning in report.warnings:
        notes.print(f"Warning: {warning}", soft_wrap=True)
    write_json(json_path, {"model": str(onnx_path), **report.to_dict()})


def _check_outputs(onnx_path: Path, model_path: Path | None, json_path: str | None) -> None:
    """Refuse early what could not be written in the end, or would be written over."""
    from smx.runtime.tuning import has_own_variant, tuning_path, variant_path

    outputs = [tuning_path(onnx_path), variant_path(onnx_path)]
    for path in outputs:
        files.check_writable(path)
        if json_path is not None and Path(json_path).absolute() == path.absolute():
            raise InputError(f"{json_path} is what smx tune writes itself; choose another path for --json")
    if model_path is not None and outputs[1].exists() and not has_own_variant(onnx_path):
        raise InputError(
            f"{outputs[1]} is there, but not from an earlier smx tune of {onnx_path}, which could write over it; move"
            " or remove it"
        )


def _other_layouts(session: Session, onnx_path: Path, model_path: Path, folder: Path) -> dict[str, Path]:
    """Export what a file was exported from in the other layouts, by their names, and check that they are the same.

    In a process of its own: the one that measures never loads torch, whose threads would disturb it.
    """
    from smx.runtime.graph import summarise
    from smx.subprocesses import in_subprocess

    info = session.info
    if info is None:
        raise InputError(f"{onnx_path} was not written by smx export; tune it without --model")
    if info.precision != "float32":
        raise InputError(
            f"--model goes with float32 alone, {onnx_path} is {info.precision}: export it in both layouts and tune each"
        )
    paths = in_subprocess(
        export_layouts,
        model_path,
        folder,
        without=info.layout,
        batch=session.batch,
        opset=summarise(onnx_path).opsets["ai.onnx"],
        raw=session.takes_raw,
    )
    if any(folder.glob("*.data")):
        raise InputError(f"{model_path} is so large that its weights lie beside the file; tune each layout by itself")
    for path in paths.values():
        _check_same(session, path, f"{onnx_path} was not exported from {model_path}")
    return paths


def export_layouts(
    model_path: Path, folder: Path, *, without: str, batch: int | None, opset: int, raw: bool
) -> dict[str, Path]:
    """Export a saved model in all layouts but one; return the files by layout."""
    from smx.export import export_onnx
    from smx.export.compiler import LAYOUTS
    from smx.modelfile import load_model

    saved = load_model(model_path)
    paths = {layout: folder / f"{layout}.onnx" for layout in LAYOUTS if layout != without}
    for layout, path in paths.items():
        export_onnx(
            saved.build(raw=raw),
            path,
            example_input=saved.example_input(raw=raw),
            layout=layout,
            batch=batch,
            opset=opset,
            describe=saved.description(),
        )
    return paths


def _check_same(session: Session, path: Path, otherwise: str) -> None:
    """Compare the layers and the answers of two exports, each of which may differ from PyTorch by its tolerance."""
    from smx.runtime.parity.check import check_parity
    from smx.runtime.session import Session
    from smx.runtime.settings import Settings

    other = Session(path, settings=Settings(), name="its export")
    infos = (session.info, other.info)
    layers = [[(layer.name, layer.groups) for layer in info.layers] for info in infos if info is not None]
    if layers[0] != layers[1]:
        raise InputError(f"{otherwise}: their mixed layers differ")
    tolerances = [info.tolerance for info in infos if info is not None]
    atol = sum(limit.get("atol", 0.0) for limit in tolerances)
    rtol = sum(limit.get("rtol", 0.0) for limit in tolerances)
    inputs = tuple(session.random_inputs(session.batch or 16))
    found = check_parity(session.run_all, other, {"random": inputs}, atol=atol, rtol=rtol, batch_sizes=[len(inputs[0])])
    if not found.passed:
        raise InputError(f"{otherwise}: their answers differ by up to {found.max_abs:.3g}")


def _leave(onnx_path: Path, before: str, report: TuningReport, fastest: Path) -> None:
    """Write the settings, and the file to be run if that is another one; remove what an earlier tuning left.

    Args:
        onnx_path: the model.
        before: its fingerprint before it was measured.
        report: what was found.
        fastest: the winner's file.
    """
    from smx.runtime.tuning import Tuning, fingerprint, has_own_variant, tuning_path, variant_path

    variant, stale = variant_path(onnx_path), False
    if fastest == onnx_path:
        stale = has_own_variant(onnx_path)
    else:
        files.write_bytes(variant, fastest.read_bytes())
    tuning = Tuning(
        model=before,
        settings=report.winner.settings,
        provider=report.provider,
        batch_size=report.batch_size,
        goal=report.goal,
        file=None if fastest == onnx_path else variant.name,
        file_hash=None if fastest == onnx_path else fingerprint(variant),
        gain=report.gain,
        machine=report.machine,
    )
    files.write_text(tuning_path(onnx_path), tuning.to_json())
    if stale:
        variant.unlink()


def _show(onnx_path: Path, report: TuningReport, json_path: str | None) -> None:
    from smx.runtime.tuning import tuning_path

    people = console(json_path)
    table = Table(
        title=f"{onnx_path}, {report.provider}, batch {report.batch_size}, goal {report.goal}",
        caption="ratio to the defaults in the search; the best one is measured again",
    )
    table.add_column("configuration")
    for heading in ("ratio", "interval"):
        table.add_column(heading, justify="right")
    for one in report.measured[:SHOWN]:
        table.add_row(one.name, f"{one.ratio:.3f}", f"{one.low:.3f} - {one.high:.3f}")
    people.print(table)
    people.print(_sentence(report) + f"; written to {tuning_path(onnx_path)}", soft_wrap=True)


def _sentence(report: TuningReport) -> str:
    statistic = "mean time" if report.goal == "throughput" else report.goal
    unit = "examples a second" if report.goal == "throughput" else "microseconds"
    figures = f"{report.best_figure:,.1f} instead of {report.default_figure:,.1f} {unit}"
    interval = f"{report.ratio:.3f} ({report.low:.3f} to {report.high:.3f}, {report.level:.0%} interval)"
    measured = f"{report.best.describe()} takes {interval} of their {statistic} ({figures})"
    if report.kept_default:
        return f"The defaults stay, nothing was certainly faster: {measured}"
    return f"Faster than the defaults: {measured}"
