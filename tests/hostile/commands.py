"""Every command that works for a while, on small things, as the attacks on processes run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smx.files import TEMPORARY
from smx.modelfile import load_model
from smx.prices import load_prices
from smx.runtime import Session
from smx.study import table
from tests.conftest import SMALL
from tests.study.grids import SMALL as GRID
from tests.study.grids import written


@dataclass(frozen=True)
class Command:
    """A command with what it leaves.

    Attributes:
        name: of the command.
        arguments: of `python -m smx`; `OUT` in them stands for an empty folder.
        leaves: the files that must be there at the end, below that folder, each with what reads it. A command that
            was stopped leaves none of them or whole ones.
        resumes: run again, it goes on where it was stopped.
        exact: however often it was stopped, its files have the same bits in the end.
        ends: it ends by itself.
    """

    name: str
    arguments: tuple[str, ...]
    leaves: dict[str, Callable[[Path], object]]
    resumes: bool = False
    exact: bool = False
    ends: bool = True

    def line(self, out: Path) -> list[str]:
        """Return the command line for a folder."""
        return [sys.executable, "-m", "smx", *(part.replace("OUT", str(out)) for part in self.arguments)]

    def run(
        self, out: Path, temporary: Path, limit: Callable[[], None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, with TMPDIR; `limit` is called in the new process before."""
        return subprocess.run(
            self.line(out),
            env=environment(temporary),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=600,
            check=False,
            preexec_fn=limit,
        )

    def fault(self, out: Path, *, done: bool) -> str | None:
        """Say what is wrong with the files that the command has left; None if nothing is. `done`: all must be there."""
        for name, read in self.leaves.items():
            if not (out / name).exists():
                if done:
                    return f"{name} is missing at the end"
                continue
            try:
                read(out / name)
            except BaseException as error:  # whatever reading a half-written file raises
                return f"{name} is not whole: {error}"
        return None

    def leftovers(self, *places: Path) -> list[Path]:
        """Return temporary files of this program below some folders."""
        return [path for place in places for path in place.rglob("*") if TEMPORARY.fullmatch(path.name)]


def commands(folder: Path, run: Path, exported: Path) -> list[Command]:
    """Return all commands; `folder` is for what they need."""
    model = str(run / "model.pt")
    grid = written(folder / "grid.toml", {**GRID, "grid": {**GRID["grid"], "seed": [0]}})
    quick = ("--batch-sizes", "1", "--rounds", "30")
    return [
        Command("train", ("train", *SMALL, "--resume", "--out", "OUT/run"), {"run/model.pt": load_model}, True, True),
        Command("export", ("export", model, "OUT/m.onnx"), {"m.onnx": Session}),
        Command("verify", ("verify", model, str(exported), "--json", "OUT/v.json"), {"v.json": _json}),
        Command(
            "bench",
            ("bench", model, *quick, "--baselines", "relu", "--json", "OUT/b.json", "--plot", "OUT/b.png"),
            {"b.json": _json, "b.png": _png},
        ),
        Command(
            "tune",
            ("tune", str(_copied(folder, exported)), "--max-threads", "1", "--rounds", "50", "--json", "OUT/t.json"),
            {"t.json": _json},
        ),
        Command(
            "price",
            ("price", "--batch-sizes", "1,2", "--widths", "4,8", "--rounds", "3", "--out", "OUT/prices.json"),
            {"prices.json": load_prices},
        ),
        Command(
            "sweep",
            ("sweep", "--config", str(grid), "--jobs", "2", "--out", "OUT/study", "--collect", "OUT/all.csv"),
            {"all.csv": table.read},
            resumes=True,
        ),
        Command("report", ("report", str(run), "--out", "OUT/r.html"), {"r.html": _html}),
        Command("predict", ("predict", str(exported), str(_pixels(folder)), "--json", "OUT/p.json"), {"p.json": _json}),
        Command("serve", ("serve", str(exported), "--port", "0"), {}, ends=False),
    ]


def environment(temporary: Path) -> dict[str, str]:
    """Return that of a command, with a folder for temporary files; it is a HOME, too."""
    return {**os.environ, "TMPDIR": str(temporary), "HOME": str(temporary), "OMP_NUM_THREADS": "1"}


def _copied(folder: Path, exported: Path) -> Path:
    """Return a copy, beside which `smx tune` may leave its file."""
    path = folder / "tuned.onnx"
    path.write_bytes(exported.read_bytes())
    return path


def _pixels(folder: Path) -> Path:
    np.save(folder / "x.npy", np.zeros((2, 64), np.uint8))
    return folder / "x.npy"


def _json(path: Path) -> None:
    json.loads(path.read_text())


def _png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _html(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")
