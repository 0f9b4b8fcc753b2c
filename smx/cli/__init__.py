"""The command line: each command reads its options, makes one call of `smx.workflows`, and shows the report."""

from __future__ import annotations

import click

from smx import __version__
from smx.cli.bench import bench
from smx.cli.bench_train import bench_train
from smx.cli.completion import completion
from smx.cli.export import export
from smx.cli.group import Group
from smx.cli.inspect import inspect
from smx.cli.predict import predict
from smx.cli.price import price
from smx.cli.report import report
from smx.cli.serve import serve
from smx.cli.sweep import sweep
from smx.cli.train import train
from smx.cli.tune import tune
from smx.cli.verify import verify

COMMANDS = [train, sweep, report, export, verify, bench, bench_train, tune, price, predict, serve, inspect, completion]
"""In the order of the work; help lists them so."""


@click.group(cls=Group, commands=COMMANDS, context_settings={"show_default": True})
@click.version_option(__version__, prog_name="smx")
def main() -> None:
    """Networks whose neurons choose their own activation function.

    \b
    smx train                                # handwritten digits, through both phases
    smx export runs/digits-smartmixed/model.pt model.onnx
    smx verify runs/digits-smartmixed/model.pt model.onnx
    smx bench  runs/digits-smartmixed/model.pt
    smx tune   model.onnx
    smx serve  model.onnx
    """
