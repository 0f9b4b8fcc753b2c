"""`smx train`: both phases, or a baseline."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smx.cli import options
from smx.cli.output import table, write_json
from smx.cli.progress import training_progress
from smx.ending import is_secondary, say_how_to_go_on
from smx.training.config import FIELDS, SMARTMIXED, TrainConfig

if TYPE_CHECKING:
    from smx.training.metrics import EpochMetrics
    from smx.workflows.train import TrainReport

REPORT_WAIT = 5.0
"""Seconds in which torchrun ends the other ranks after rank 0 has shown an error."""

_run_option = partial(click.option, cls=options.Option, group="Run")


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each training setting."""
    for name, setting in reversed(FIELDS.items()):
        default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
        option, help, choices = name.replace("_", "-"), setting.metadata["help"], setting.metadata["choices"]
        shared: dict[str, Any] = {"cls": options.Option, "group": setting.metadata["group"]}
        if isinstance(default, bool):
            add = click.option(f"--{option}/--no-{option}", default=None, help=f"{help}  [default: off]", **shared)
        else:
            kind = {"type": click.Choice(choices)} if choices else {"metavar": setting.metadata["metavar"]}
            add = click.option(f"--{option}", help=f"{help}  [default: {default}]", **kind, **shared)
        command = add(command)
    return command


@click.command(cls=options.Command)
@setting_options
@_run_option(
    "--config",
    "config_path",
    type=options.PATH,
    metavar="FILE.toml",
    help="Read settings from a file; options given beside it win.",
)
@options.data_dir
@_run_option(
    "--out",
    type=options.PATH,
    metavar="RUN",
    help="The run's folder.  [default: runs/DATA-ACTIVATION, with the model between if it is no mlp]",
)
@_run_option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint, if there is one.")
@_run_option("--report/--no-report", "write_page", default=True, help="At the end write RUN/report.html (extra study).")
@options.trust_code
@options.json
def train(config_path: Path | None, write_page: bool, json_path: str | None, **options: Any) -> None:
    """Train through both phases, or a baseline.

    Every neuron chooses its activation; then the choices are fixed and training goes on. RUN gets model.pt,
    checkpoint.pt, config.toml, metrics.csv, figures/ and report.html.

    \b
    smx train
    smx train --data mnist --hidden 512,256,128 --phase1-epochs 5 --phase2-epochs 5 --out runs/mnist
    smx train --resume --out runs/mnist
    smx train --data cifar10 --model my_network:Net --lr 1e-3
    smx train --init runs/relu/model.pt --start current --selection matched --out runs/tuned
    """
    from smx.training.denormals import flush_other_threads
    from smx.workflows.report import report as make_page
    from smx.workflows.train import train

    flush_other_threads()
    main = not is_secondary()
    given = {name: value for name, value in options.items() if value is not None}
    show: list[Callable[[EpochMetrics], None]] = []

    with _one_voice(main), ExitStack() as stack:

        def on_start(config: TrainConfig, folder: Path, rows: Sequence[EpochMetrics]) -> None:
            again = partial(_how_to_continue, config, folder, options["data_dir"], options["trust_code"])
            say_how_to_go_on(again)
            show.append(stack.enter_context(training_progress(config, rows)))

        report = train(config_path, on_start=on_start, on_epoch=lambda row: show[0](row), **given)
    if main:
        _show(report, json_path)
        if write_page and all(map(find_spec, ("jinja2", "pandas", "scipy"))):
            make_page(report.out, data_dir=options["data_dir"])


@contextmanager
def _one_voice(main: bool) -> Iterator[None]:
    """Let rank 0 show an error that all ranks meet; torchrun ends the others while they wait here."""
    try:
        yield
    except Exception:
        if not main:
            time.sleep(REPORT_WAIT)
        raise  # one that waited in vain is alone with its error, and shows it


def _how_to_continue(config: TrainConfig, out: Path, data_dir: Path | None, trust_code: bool) -> str:
    """Return what Ctrl-C says: the command that continues the run."""
    from smx.training.run import CHECKPOINT

    if not (out / CHECKPOINT).exists():
        return ""
    again = ["smx", "train", "--resume", "--out", str(out)]
    if trust_code or ":" in config.model:
        again.append("--trust-code")
    if data_dir and str(data_dir) != os.environ.get("SMX_DATA_DIR"):
        again += ["--data-dir", str(data_dir)]
    return f"the finished epochs are kept. Continue with: {shlex.join(again)}"


def _show(report: TrainReport, json_path: str | None) -> None:
    people = write_json(json_path, report.to_dict())
    settings, rows = report.model.training, []
    for phase, metrics in report.model.metrics.items():
        baseline = settings["activation"] != SMARTMIXED
        name = "1, committed choice" if phase == "phase1" else "fixed" if baseline else "2"
        rows.append((name, str(metrics["best_epoch"]), *_accuracies(metrics)))
        if phase == "phase1":
            rows.append(("1, sampled choice", "", *_accuracies(metrics, "_sampled")))
    title = f"{settings['data']}, {report.model.architecture}, {settings['activation']}"
    people.print(table(("phase", ">best epoch", ">validation accuracy", ">test accuracy"), rows, title=title))
    first = report.model.metrics.get("phase1", {})
    if "moved" in first:
        people.print(f"{100 * first['moved']:.1f} % of the neurons chose another activation than they began with.")
    if "groups" in first:
        people.print(
            f"{first['groups_dissolved']} of {first['groups']} groups were dissolved:"
            f" {first['neurons_moved']} neurons took another activation."
        )
    people.print(f"{report.out / 'model.pt'}; figures in {report.out / 'figures'}", soft_wrap=True)


def _accuracies(metrics: dict[str, Any], how: str = "") -> tuple[str, str]:
    return f"{metrics['validation_accuracy' + how]:.4f}", f"{metrics['test_accuracy' + how]:.4f}"
