"""`smx train`: both phases, or a baseline."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import Command, console, data_dir_option, json_option, logs, write_json
from smx.cli.progress import training_progress
from smx.errors import InputError
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


@click.command(cls=Command)
@setting_options
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Read settings from a file; options given beside it win.",
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
    """Train through both phases, or a baseline.

    Every neuron chooses its activation; then the choices are fixed and training goes on. RUN gets model.pt,
    checkpoint.pt, config.toml, metrics.csv and figures/.

    \b
    smx train
    smx train --data mnist --hidden 512,256,128 --phase1-epochs 5 --phase2-epochs 5 --out runs/mnist
    smx train --resume --out runs/mnist
    """
    from smx import data
    from smx.runtime.machine import machine
    from smx.training.run import CHECKPOINT, load_checkpoint, phases, require_same
    from smx.training.run import train as run

    given = read_toml(config_path) if config_path else {}
    given |= {name: parse(name, value) for name, value in settings.items() if value is not None}
    if given.get("device") == "auto":
        del given["device"]
    data_name, activation = (given.get(name, FIELDS[name].default) for name in ("data", "activation"))
    out = out or Path("runs") / f"{Path(data_name).stem}-{activation}"
    checkpoint = load_checkpoint(out) if resume else None
    if checkpoint:
        require_same(checkpoint, given, out)
        config = checkpoint.config
    else:
        config = from_values({"device": _best_device(), **given})
    _require_device(config.device)
    dataset = data.load(config.data, data_dir)
    done = Counter(row.phase for row in checkpoint.rows) if checkpoint else {}
    try:
        with training_progress(phases(config), done) as on_epoch:
            result = run(config, dataset, out, checkpoint=checkpoint, on_epoch=on_epoch)
    except KeyboardInterrupt:
        if (out / CHECKPOINT).exists():
            again = ["smx", "train", "--resume", "--out", str(out)]
            if data_dir and "SMX_DATA_DIR" not in os.environ:
                again += ["--data-dir", str(data_dir)]
            logs().print(f"Stopped; the finished epochs are kept. Continue with: {shlex.join(again)}", soft_wrap=True)
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


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _require_device(name: str) -> None:
    if name == "cuda" and _best_device() != "cuda":
        raise InputError("the device is cuda, but this PyTorch finds no CUDA device; start a new run with --device cpu")


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
