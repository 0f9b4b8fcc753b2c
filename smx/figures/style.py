"""What all figures share: colours by activation, and saving whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from smx import files

COLOURS = {
    "relu": "#0072b2",
    "sigmoid": "#999999",
    "tanh": "#e69f00",
    "leaky_relu": "#56b4e9",
    "elu": "#d55e00",
    "selu": "#009e73",
    "gelu": "#cc79a7",
    "silu": "#f0e442",
    "mish": "#8c510a",
    "hardswish": "#5e3c99",
    "identity": "#000000",
}
"""Of the activations that come with smx; distinguishable with colour-blind eyes for the paper's six."""


def colour(name: str, position: int = 0) -> Any:
    """Return an activation's colour; a user's own gets one of matplotlib's cycle."""
    return COLOURS.get(name, f"C{position}")


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches, without touching matplotlib's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG file, atomically. Names in it are no formulas, whatever dollars they have."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path


def bare(axes: Any) -> None:
    """Take away the frame's upper and right side, and draw a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
