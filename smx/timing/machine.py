"""The machine that a measurement was taken on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BUSY = 0.5
"""A load above this on each core, before a measurement, is the work of other processes."""

PACKAGES = ("numpy", "onnxruntime", "onnx", "torch", "triton", "torchvision", "sklearn")


def machine() -> dict[str, Any]:
    """Return the processor, its cores and governor, the load average, and the versions of loaded packages.

    Values are plain, for JSON; None for what the system does not report.
    """
    return {
        "processor": _processor(),
        "cores": cores(),
        "governor": _governor(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: sys.modules[name].__version__ for name in PACKAGES if sys.modules.get(name)},
    }


def cores() -> int | None:
    """Return how many cores this process may use; None if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _governor() -> str | None:
    """Return Linux's policy for the processor's frequency."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def busy(before: Mapping[str, Any]) -> str | None:
    """Return a warning if the load in what `machine` returned before a measurement is high, else None."""
    load, cores = before["load"], before["cores"]
    if load is None or load[0] <= BUSY * cores:
        return None
    return f"the machine was busy before the measurement began: load {load[0]:.2f} on {cores} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
