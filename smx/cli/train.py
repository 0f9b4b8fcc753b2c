"""`smx train`: both phases, or a baseline."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.group import INTERRUPTED
from smx.cli.options import (
    Command,
    Option,
    console,
    data_dir_option,
    json_option,
    logs,
    trust_code_option,
    write_json,
)
from smx.cli.progress import training_progress
from smx.errors import InputError
from smx.training.config import AUTO, FIELDS, TrainConfig, from_values, parse, read_toml

REPORT_WAIT = 5.0
"""Seconds in which torchrun ends the other ranks after rank 0 has shown an error."""

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics
    from smx.training.parallel import Ranks
    from smx.training.run import TrainResult


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each training setting."""
    for name, setting in reversed(FIELDS.items()):
        default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        option, help, choices = name.replace("_", "-"), setting.metadata["help"], setting.metadata["choices"]
        shared: dict[str, Any] = {"cls": Option, "group": setting.metadata["group"]}
        if isinstance(default, bool):
            add = click.option(f"--{option}/--no-{option}", default=None, help=f"{help}  [default: off]", **shared)
        else:
            kind = {"type": click.Choice(choices)} if choices else {"metavar": setting.metadata["metavar"]}
            add = click.option(f"--{option}", help=f"{help}  [default: {default}]", **kind, **shared)
        command = add(command)
    return command


@click.command(cls=Command)
@setting_options
@click.option(
    "--config",
    "config_path",
    cls=Option,
    group="Run",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Read settings from a file; options given beside it win.",
)
@data_dir_option
@click.option(
    "--out",
    cls=Option,
    group="Run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run's folder.  [default: runs/DATA-ACTIVATION, with the model between if it is no mlp]",
)
@click.option(
    "--resume",
    cls=Option,
    group="Run",
    is_flag=True,
    help="Continue the run in --out from its last checkpoint, if there is one.",
)
@trust_code_option
@json_option
def train(**options: Any) -> None:
    """Train through both phases, or a baseline.

    Every neuron chooses its activation; then the choices are fixed and training goes on. RUN gets model.pt,
    checkpoint.pt, config.toml, metrics.csv and figures/.

    \b
    smx train
    smx train --data mnist --hidden 512,256,128 --phase1-epochs 5 --phase2-epochs 5 --out runs/mnist
    smx train --resume --out runs/mnist
    smx train --data cifar10 --model my_network:Net --lr 1e-3
    """
    from smx.training.parallel import joined

    with joined() as ranks, _one_voice(ranks):
        _train(ranks, **options)


def _train(
    ranks: Ranks,
    config_path: Path | None,
    data_dir: Path | None,
    out: Path | None,
    resume: bool,
    trust_code: bool,
    json_path: str | None,
    **settings: Any,
) -> None:
    from smx import data
    from smx.timing.machine import machine
    from smx.training.parallel import require_device
    from smx.training.run import CHECKPOINT, load_checkpoint, require_same
    from smx.training.run import train as run

    given = read_toml(config_path) if config_path else {}
    given |= {name: parse(name, value) for name, value in settings.items() if value is not None}
    if given.get("device") == "auto":
        del given["device"]
    data_name, model, activation = (given.get(name, FIELDS[name].default) for name in ("data", "model", "activation"))
    parts = (Path(data_name).stem, *((model.rpartition(":")[2],) if model != "mlp" else ()), activation)
    out = out or Path("runs") / "-".join(parts)
    checkpoint = load_checkpoint(out) if resume else None
    if checkpoint:
        require_same(checkpoint, given, out)
        config = checkpoint.config
    else:
        config = from_values({"device": _best_device(), **given})
    if ":" in config.model and not (trust_code or settings["model"]):
        raise InputError(f"the settings name code of yours, {config.model}; give --trust-code to run it")
    require_device(config.device, ranks)
    if settings["hidden"] is not None and config.model != "mlp":
        raise InputError(f"--hidden is for the mlp, and the model is {config.model}; leave it out")
    with ranks.main_first():  # it may download what the others then find
        dataset = data.load(config.data, data_dir)
    done = Counter(row.phase for row in checkpoint.rows) if checkpoint else {}
    try:
        with _progress(config, done, ranks) as on_epoch:
            result = run(config, dataset, out, checkpoint=checkpoint, on_epoch=on_epoch, ranks=ranks)
    except KeyboardInterrupt:
        if ranks.main and (out / CHECKPOINT).exists():
            again = ["smx", "train", "--resume", "--out", str(out)]
            if trust_code or ":" in config.model:
                again.append("--trust-code")
            if data_dir and "SMX_DATA_DIR" not in os.environ:
                again += ["--data-dir", str(data_dir)]
            logs().print(f"Stopped; the finished epochs are kept. Continue with: {shlex.join(again)}", soft_wrap=True)
        raise
    if not ranks.main:
        return
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


def _progress(
    config: TrainConfig, done: Mapping[int, int], ranks: Ranks
) -> AbstractContextManager[Callable[[EpochMetrics], None]]:
    if not ranks.main:
        return nullcontext(lambda row: None)
    at_most = config.phase1_epochs == AUTO or config.patience > 0
    return training_progress(config.phases, done, at_most=at_most)


@contextmanager
def _one_voice(ranks: Ranks) -> Iterator[None]:
    """Let rank 0 show an error that all ranks meet; torchrun ends the others while they wait here."""
    try:
        yield
    except KeyboardInterrupt:
        if ranks.main:
            raise
        raise click.exceptions.Exit(INTERRUPTED) from None
    except Exception:
        if not ranks.main:
            time.sleep(REPORT_WAIT)
        raise  # one that waited in vain is alone with its error, and shows it


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
