"""`smx train`: both phases, or a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import console, data_dir_option, json_option, logs, write_json
from smx.cli.progress import training_progress
from smx.runtime.machine import machine
from smx.training.config import FIELDS, TrainConfig, from_values, parse, read_toml

if TYPE_CHECKING:
    from smx.training.run import TrainResult


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each training setting."""
    for name, setting in reversed(FIELDS.items()):
        default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        add = click.option(
            f"--{name.replace('_', '-')}",
            metavar=setting.metadata["metavar"],
            help=f"{setting.metadata['help']}  [default: {default}]",
        )
        command = add(command)
    return command


@click.command()
@setting_options
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Settings; options go before them.",
)
@data_dir_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run's folder.  [default: runs/DATA-ACTIVATION]",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint, if there is one.")
@json_option
def train(
    config_path: Path | None,
    data_dir: Path | None,
    out: Path | None,
    resume: bool,
    json_path: str | None,
    **settings: Any,
) -> None:
    """Train a network in which every neuron chooses its activation, then fix the choices and train on.

    RUN gets model.pt, checkpoint.pt, config.toml, metrics.csv and figures/.

    \b
    smx train
    smx train --data mnist --hidden 512,256,128 --phase1-epochs 5 --phase2-epochs 5 --out runs/mnist
    smx train --resume --out runs/mnist
    """
    from smx import data
    from smx.training.run import phases, stored_config
    from smx.training.run import train as run

    given = read_toml(config_path) if config_path else {}
    given |= {name: parse(name, value) for name, value in settings.items() if value is not None}
    if "device" in given or not resume:
        given["device"] = _resolve_device(given.get("device", "auto"))
    config = from_values(given)
    out = out or Path("runs") / f"{Path(config.data).stem}-{config.activation}"
    if resume:
        config = stored_config(out, given) or from_values({"device": _resolve_device("auto"), **given})
    dataset = data.load(config.data, data_dir)
    done = _epochs_done(out) if resume else {}
    try:
        with training_progress(phases(config), done) as on_epoch:
            result = run(config, dataset, out, resume=resume, on_epoch=on_epoch)
    except KeyboardInterrupt:
        logs().print(
            f"Stopped; the last finished epoch is kept. Continue with: smx train --resume --out {out}",
            soft_wrap=True,
        )
        raise
    figures = _draw(result, out)
    _show(result, config, out, json_path)
    summary = {
        "out": str(out),
        "model": str(out / "model.pt"),
        "figures": [str(figure) for figure in figures],
        "config": config.to_dict(),
        "metrics": result.model.metrics,
        "shares": result.rows[-1].shares,
        "machine": machine(),
        "seconds": round(sum(row.seconds for row in result.rows), 3),
    }
    write_json(json_path, summary)


def _resolve_device(name: str) -> str:
    import torch

    from smx.errors import InputError

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but this PyTorch finds no CUDA device; use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _epochs_done(out: Path) -> dict[int, int]:
    from smx.training.checkpoint import Checkpoint

    path = out / "checkpoint.pt"
    return dict(Counter(row.phase for row in Checkpoint.load(path).rows)) if path.exists() else {}


def _draw(result: TrainResult, out: Path) -> list[Path]:
    from smx.figures.training import draw_run
    from smx.files import make_folder

    return draw_run(result.rows, make_folder(out / "figures"))


def _show(result: TrainResult, config: TrainConfig, out: Path, json_path: str | None) -> None:
    table = Table(title=f"{config.data}, {result.model.architecture}, {config.activation}")
    for heading in ("phase", "best epoch", "validation accuracy", "test accuracy"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    names = {"phase1": "1, committed choice", "phase2": "2" if not config.is_baseline else "fixed"}
    for phase, metrics in result.model.metrics.items():
        figures = (metrics["validation_accuracy"], metrics["test_accuracy"])
        table.add_row(names[phase], str(metrics["best_epoch"]), *(f"{figure:.4f}" for figure in figures))
        if phase == "phase1":
            sampled = (metrics["validation_accuracy_sampled"], metrics["test_accuracy_sampled"])
            table.add_row("1, sampled choice", "", *(f"{figure:.4f}" for figure in sampled))
    people = console(json_path)
    people.print(table)
    people.print(f"{out / 'model.pt'}; figures in {out / 'figures'}", soft_wrap=True)
