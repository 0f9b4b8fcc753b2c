"""The command line: one file a command, thin over the packages that do the work."""

from __future__ import annotations

import click

from smx import __version__
from smx.cli.bench import bench
from smx.cli.bench_train import bench_train
from smx.cli.export import export
from smx.cli.group import Group
from smx.cli.inspect import inspect
from smx.cli.predict import predict
from smx.cli.train import train
from smx.cli.tune import tune
from smx.cli.verify import verify


@click.group(cls=Group, commands=[train, export, verify, bench, bench_train, tune, predict, inspect])
@click.version_option(__version__, prog_name="smx")
def main() -> None:
    """Networks whose neurons choose their own activation function.

    \b
    smx train                                # handwritten digits, through both phases
    smx export runs/digits-smartmixed/model.pt model.onnx
    smx verify runs/digits-smartmixed/model.pt model.onnx
    smx bench  runs/digits-smartmixed/model.pt
    smx tune   model.onnx
    """
