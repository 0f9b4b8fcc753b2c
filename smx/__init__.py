"""Networks whose neurons choose their own activation function.

Names load on first use: `import smx` alone loads no torch, so that a serving host can do without it.
"""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False  # `typing` takes a while to load, and this comes before smx.__main__ heeds signals
if TYPE_CHECKING:
    from typing import Any

    from smx import convert as convert
    from smx import data as data
    from smx import export as export
    from smx import functional as functional
    from smx import hooks as hooks
    from smx import models as models
    from smx import runtime as runtime
    from smx import sorting as sorting
    from smx import timing as timing
    from smx.activations import Activation as Activation
    from smx.activations import op as op
    from smx.activations import register as register
    from smx.convert import commit as commit
    from smx.convert import select as select
    from smx.layers import Mixed as Mixed
    from smx.layers import Selective as Selective
    from smx.layers import sampling as sampling
    from smx.paper import PAPER_POOL as PAPER_POOL
    from smx.parameters import parameter_groups as parameter_groups
    from smx.prices import Prices as Prices
    from smx.prices import load_prices as load_prices
    from smx.saving import load as load
    from smx.saving import save as save
    from smx.sorting import sort as sort
    from smx.workflows.bench import bench as bench
    from smx.workflows.bench_train import bench_train as bench_train
    from smx.workflows.classify import classify as classify
    from smx.workflows.deploy import deploy as deploy
    from smx.workflows.describe import describe as describe
    from smx.workflows.export_model import export_model as export_model
    from smx.workflows.plan import plan as plan
    from smx.workflows.price import price as price
    from smx.workflows.report import report as report
    from smx.workflows.serve import serve as serve
    from smx.workflows.sweep import sweep as sweep
    from smx.workflows.train import train as train
    from smx.workflows.tune import tune as tune
    from smx.workflows.verify import verify as verify

__version__ = "0.1.0"

# The wheels of ONNX Runtime send telemetry unless this is set before they are loaded. Child processes inherit it.
if "ORT_DISABLE_TELEMETRY" not in os.environ:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "onnxruntime" in sys.modules:  # loaded by the user before smx
        sys.modules["onnxruntime"].disable_telemetry_events()

_NAMES = {
    "smx.paper": ("PAPER_POOL",),
    "smx.activations": ("Activation", "op", "register"),
    "smx.layers": ("Mixed", "Selective", "sampling"),
    "smx.convert": ("commit", "select"),
    "smx.parameters": ("parameter_groups",),
    "smx.prices": ("Prices", "load_prices"),
    "smx.saving": ("load", "save"),
    "smx.sorting": ("sort",),
}
_WORKFLOWS = (
    "train",
    "sweep",
    "export_model",
    "verify",
    "bench",
    "bench_train",
    "tune",
    "plan",
    "price",
    "classify",
    "describe",
    "report",
    "serve",
    "deploy",
)
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
_HOMES |= {name: f"smx.workflows.{name}" for name in _WORKFLOWS}
_MODULES = ("convert", "data", "export", "functional", "hooks", "models", "pricing", "runtime", "sorting", "timing")

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"smx.{name}")
    else:
        raise AttributeError(f"module 'smx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
