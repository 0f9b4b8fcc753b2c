"""`smx bench`: the mixed model against the fixed-activation baselines of its architecture."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress
from rich.table import Table

from smx.cli.options import Command, Numbers, OutputPath, console, json_option, logs, provider_option, write_json
from smx.errors import InputError, SmxError

if TYPE_CHECKING:
    from smx.runtime.latency import LatencyReport

REFERENCE = "relu"


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.option(
    "--layouts", default="scatter,sorted", show_default=True, metavar="NAME,...", help="Layouts of the mixed model."
)
@click.option(
    "--baselines",
    default="relu,sigmoid,tanh,leaky_relu,elu,selu",
    show_default=True,
    metavar="NAME,...",
    help="Activations of the fixed baselines; ratios refer to relu, or to the first.",
)
@click.option("--batch-sizes", type=Numbers(), default="1,16,128,1024", show_default=True, help="Examples a run.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads of ONNX Runtime for one operator.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    metavar="N",
    help="Rounds, in each of which every candidate is timed once.",
)
@provider_option
@json_option
@click.option("--plot", type=OutputPath(".png"), metavar="PATH.png", help="Draw the result.")
def bench(
    model_path: Path,
    layouts: str,
    baselines: str,
    batch_sizes: tuple[int, ...],
    threads: int,
    rounds: int,
    provider: str,
    json_path: str | None,
    plot: str | None,
) -> None:
    """Measure latency, beside the same network with one activation.

    All candidates are timed in turn, in one process without torch; the ratio to the ReLU network within a round is
    what to quote.

    \b
    smx bench runs/mnist/model.pt --json bench.json --plot bench.png
    """
    from smx.runtime.latency import measure_latency

    notes = logs()
    with tempfile.TemporaryDirectory() as folder:
        notes.print("exporting the candidates ...")
        candidates = _export_elsewhere(model_path, Path(folder), _names(layouts), _names(baselines))
        reference = REFERENCE if REFERENCE in candidates else _names(baselines)[0]
        with Progress(console=notes, disable=not notes.is_terminal) as progress:
            task = progress.add_task("measuring", total=len(batch_sizes) * rounds)
            report = measure_latency(
                candidates,
                baseline=reference,
                batch_sizes=batch_sizes,
                threads=threads,
                provider=provider,
                rounds=rounds,
                on_progress=lambda batch, _: progress.update(task, advance=1, description=f"measuring, batch {batch}"),
            )
    _show(report, model_path, json_path)
    if plot:
        from smx.figures.latency import draw_latency

        draw_latency(report, Path(plot))
    write_json(json_path, {"model": str(model_path), **report.to_dict()})


def _export_elsewhere(
    model_path: Path, folder: Path, layouts: tuple[str, ...], baselines: tuple[str, ...]
) -> dict[str, Path]:
    """Export in a process of its own: the one that measures never loads torch, whose threads would disturb it."""
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches both processes; this one answers it.
    with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as exporter:
        try:
            return exporter.submit(export_candidates, model_path, folder, layouts, baselines).result()
        except BrokenProcessPool as error:
            raise SmxError("the process that exports the candidates was killed; is there enough memory?") from error


def export_candidates(
    model_path: Path, folder: Path, layouts: tuple[str, ...], baselines: tuple[str, ...]
) -> dict[str, Path]:
    """Export a saved model in each layout, and its architecture with each fixed activation; return the files by name.

    The baselines are plain modules with the model's weights, as PyTorch's exporter writes them: latency does not depend
    on the weights' values.
    """
    from smx.activations import get
    from smx.cli.export import description, example_input
    from smx.export import export_onnx
    from smx.modelfile import load_model
    from smx.models import Fixed, mlp

    saved = load_model(model_path)
    trained = saved.build()
    paths = {}
    for layout in layouts:
        paths[layout] = folder / f"{layout}.onnx"
        export_onnx(
            trained,
            paths[layout],
            example_input=example_input(saved),
            layout=layout,
            describe=description(saved),
        )
    for name in baselines:
        try:
            function = get(name).function
        except ValueError as error:
            raise InputError(str(error)) from error
        model = mlp(saved.sizes, lambda _, function=function: Fixed(function))  # type: ignore[misc]
        model.load_state_dict(saved.weights)
        paths[name] = folder / f"baseline-{name}.onnx"
        export_onnx(model, paths[name], example_input=example_input(saved))
    return paths


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise InputError("--layouts and --baselines each need at least one name")
    return names


def _show(report: LatencyReport, model_path: Path, json_path: str | None) -> None:
    table = Table(
        title=f"{model_path}, {report.provider}, threads: {report.threads}, rounds: {report.rounds}",
        caption=f"microseconds a run; ratio to {report.baseline}, and its quartiles",
    )
    table.add_column("candidate")
    for heading in ("batch", "p50", "p90", "p99", "ratio", "quartiles"):
        table.add_column(heading, justify="right")
    batch = None
    for row in report.results:
        if batch not in (None, row.batch_size):
            table.add_section()
        batch = row.batch_size
        table.add_row(
            row.name,
            str(row.batch_size),
            f"{row.p50:,.1f}",
            f"{row.p90:,.1f}",
            f"{row.p99:,.1f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f} - {row.ratio_high:.2f}",
        )
    console(json_path).print(table)
