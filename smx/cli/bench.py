"""`smx bench`: the mixed model against the fixed-activation baselines of its architecture, or files with each other."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress

from smx.cli.options import (
    Command,
    Names,
    Numbers,
    OutputPath,
    fallback_option,
    json_option,
    logs,
    provider_option,
    rounds_option,
    trust_code_option,
    write_json,
)
from smx.errors import InputError

if TYPE_CHECKING:
    from smx.timing.runners import Runner

REFERENCE = "relu"
PYTORCH = {"eager": "pytorch", "compiled": "pytorch compiled"}
"""How PyTorch can run the model, and what the candidate is called."""


@click.command(cls=Command)
@click.argument("paths", metavar="MODEL.pt|MODEL.onnx...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--layouts", type=Names(), default="scatter,sorted", show_default=True, help="Layouts of the mixed model."
)
@click.option(
    "--baselines",
    type=Names(),
    default="relu,sigmoid,tanh,leaky_relu,elu,selu",
    show_default=True,
    help="Activations of the fixed baselines.",
)
@click.option("--pytorch", type=Names(), default="", help="Run MODEL.pt in PyTorch, too: eager, compiled.")
@click.option(
    "--reference", metavar="NAME", help="The candidate that ratios refer to.  [default: relu, or the first one]"
)
@click.option("--batch-sizes", type=Numbers(), default="1,16,128,1024", show_default=True, help="Examples a run.")
@rounds_option
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads for one operator."
)
@click.option("--spinning/--no-spinning", default=True, show_default=True, help="Let idle threads wait actively.")
@click.option("--execution-mode", default="sequential", show_default=True, help="sequential or parallel.")
@click.option(
    "--optimization", default="all", show_default=True, help="Of the graph: disabled, basic, extended or all."
)
@click.option(
    "--io-binding/--no-io-binding",
    default=None,
    help="Keep tensors on the provider's device.  [default: where it has memory of its own]",
)
@provider_option
@fallback_option
@click.option("--profile", is_flag=True, help="Tell where the time goes, by layer and operator.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="A/B<=X[@BATCH]",
    help="End with exit code 3 if A's time is surely above X times B's; sorted/relu<=1.10, for example.",
)
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="OLD.json", help="Tell what changed since an earlier bench."
)
@trust_code_option
@json_option
@click.option("--plot", type=OutputPath(".png"), metavar="PATH.png", help="Draw the distributions.")
def bench(
    paths: tuple[Path, ...],
    layouts: tuple[str, ...],
    baselines: tuple[str, ...],
    pytorch: tuple[str, ...],
    reference: str | None,
    batch_sizes: tuple[int, ...],
    rounds: int,
    threads: int,
    spinning: bool,
    execution_mode: str,
    optimization: str,
    io_binding: bool | None,
    provider: str,
    allow_fallback: bool,
    profile: bool,
    limits: tuple[str, ...],
    compare: Path | None,
    trust_code: bool,
    json_path: str | None,
    plot: str | None,
) -> None:
    """Measure latency, beside the same network with one activation.

    All candidates are timed in turn, in a process without torch; the ratio to the ReLU network within a round is what
    to quote, with its 99 % confidence interval. ONNX files are candidates as they are, under their names; a MODEL.pt is
    exported in each layout and with each baseline.

    \b
    smx bench runs/mnist/model.pt --json bench.json --plot bench.png
    smx bench before.onnx after.onnx --limit "after/before<=1.02"
    """
    from smx.cli.bench_tables import show_changes, show_report, show_verdicts
    from smx.cli.candidates import export_candidates
    from smx.runtime.latency.measure import measure_latency
    from smx.runtime.profile.run import profile as profile_model
    from smx.runtime.providers import execution_providers
    from smx.runtime.settings import Settings
    from smx.subprocesses import in_subprocess
    from smx.timing.changes import check_baseline, compare_reports, read_report
    from smx.timing.interleave import in_blocks
    from smx.timing.intervals import MIN_ROUNDS
    from smx.timing.limits import Limit, judge
    from smx.timing.machine import machine

    before = machine()
    if limits and rounds < MIN_ROUNDS:
        raise InputError(f"a limit needs at least {MIN_ROUNDS} rounds to be judged, got {rounds}")
    if plot:
        from smx.figures.latency import draw_latency
    parsed = [Limit.parse(limit) for limit in limits]
    old = read_report(compare) if compare else None
    settings = Settings(threads=threads, spinning=spinning, execution_mode=execution_mode, optimization=optimization)
    execution_providers(provider)
    saved, files = _sorted_out(paths, pytorch, (*layouts, *baselines))
    notes = logs()
    with tempfile.TemporaryDirectory() as folder:
        if saved is not None and (layouts or baselines):
            notes.print("exporting the candidates ...")
            exported = in_subprocess(export_candidates, saved, Path(folder), layouts, baselines, trust_code=trust_code)
            files = {**exported, **files}
        if not files:
            raise InputError("there are no candidates: name at least one of --layouts or --baselines, or an ONNX file")
        candidates: dict[str, Path | Runner] = {**files, **_in_pytorch(saved, pytorch, provider, threads, trust_code)}
        reference = reference or next(name for name in (REFERENCE, *baselines, *candidates) if name in candidates)
        if old is not None:
            check_baseline(old, reference)
        for limit in parsed:
            limit.check(candidates, batch_sizes)
        with Progress(console=notes, disable=not notes.is_terminal) as progress:
            task = progress.add_task("measuring", total=len(batch_sizes) * math.prod(in_blocks(rounds)))
            report = measure_latency(
                candidates,
                baseline=reference,
                batch_sizes=batch_sizes,
                provider=provider,
                settings=settings,
                io_binding=io_binding,
                allow_fallback=allow_fallback,
                rounds=rounds,
                before=before,
                on_progress=lambda batch: progress.update(task, advance=1, description=f"measuring, batch {batch}"),
            )
        profiles = {
            name: [profile_model(path, size, provider=provider, settings=settings) for size in batch_sizes]
            for name, path in (files.items() if profile else ())
        }
    title = ", ".join(map(str, paths))
    show_report(report, title, json_path)
    for name, tables in profiles.items():
        from smx.cli.profile_tables import show_profile

        for table in tables:
            show_profile(name, table, json_path)
    verdicts = [verdict for limit in parsed for verdict in judge(limit, report)]
    show_verdicts(verdicts, json_path)
    changes = compare_reports(old, report.to_dict()) if old is not None else None
    if changes is not None:
        show_changes(changes, compare, json_path)
    content: dict[str, Any] = {"model": title, **report.to_dict(), "limits": [asdict(verdict) for verdict in verdicts]}
    if profiles:
        content["profiles"] = {name: [table.to_dict() for table in tables] for name, tables in profiles.items()}
    if changes is not None:
        content["changes"] = asdict(changes)
    write_json(json_path, content)
    if plot:
        draw_latency(report, Path(plot))
    if any(verdict.exceeded for verdict in verdicts):
        raise click.exceptions.Exit(3)


def _in_pytorch(
    saved: Path | None, kinds: tuple[str, ...], provider: str, threads: int, trust_code: bool
) -> dict[str, Runner]:
    """Return what runs the saved model in PyTorch, each in a process of its own, by name."""
    from smx.cli.candidates import pytorch_runner
    from smx.runtime.providers import DEVICES
    from smx.timing.runners import ProcessRunner

    if saved is None:
        return {}
    options = {"device": DEVICES.get(provider, "cpu"), "threads": threads, "trust_code": trust_code}
    return {
        PYTORCH[kind]: ProcessRunner(partial(pytorch_runner, saved, compiled=kind == "compiled", **options))
        for kind in kinds
    }


def _sorted_out(
    paths: tuple[Path, ...], pytorch: tuple[str, ...], exported: tuple[str, ...]
) -> tuple[Path | None, dict[str, Path]]:
    """Return the saved model, if there is one, and the ONNX files by names that nothing exported has."""
    saved = [path for path in paths if path.suffix == ".pt"]
    others = [path for path in paths if path.suffix != ".pt"]
    if len(saved) > 1:
        raise InputError(f"smx bench takes one MODEL.pt and any number of ONNX files, got {', '.join(map(str, saved))}")
    if unknown := [kind for kind in pytorch if kind not in PYTORCH]:
        raise InputError(f"--pytorch can be {', '.join(PYTORCH)}, got {', '.join(unknown)}")
    if pytorch and not saved:
        raise InputError("--pytorch needs a MODEL.pt: an ONNX file does not run in PyTorch")
    for path in saved:
        if not path.is_file():
            raise InputError(f"{path} does not exist; expected a model, as smx train writes it")
    taken = {*exported, *PYTORCH.values()} if saved else set()
    stems = [path.stem for path in others]
    names = [path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}-{path.stem}" for path in others]
    for path, name in zip(others, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path} is given twice, or has another's name; copy it under a name of its own")
        if name in taken:
            raise InputError(f"{path} has the name of another candidate, {name}; copy it under a name of its own")
    return saved[0] if saved else None, dict(zip(names, others, strict=True))
