"""From a matplotlib figure to SVG that stands in a page: in the page's text colour and font, light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from markupsafe import escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from smx.figures.style import COLOURS

INK = "#010203"
"""Stands for the colour of the page's text while matplotlib draws."""
PAPER = "#040506"
"""Stands for the page's background."""
METHODS = {
    "smartmixed": "#b3004b",
    "shuffled": "#c77cff",
    "random": "#7f7f00",
    "majority": "#00a9b5",
    "relu_two_phases": "#1f4e79",
}
"""Colours of the methods that are no single activation."""
PALETTE = {name: colour for name, colour in (COLOURS | METHODS).items() if name != "identity"}
"""Colours of activations and methods: the page may set another `--c-NAME` where it is dark."""
OTHERS = ("#9467bd", "#bcbd22", "#17becf", "#e377c2", "#8c564b", "#7f7f7f")
"""Colours of a user's own activations and methods, one after the other."""
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "text.parse_math": False,  # names may have dollars
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "axes.unicode_minus": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK
    ),
}
MINUS = "\N{MINUS SIGN}"
POINTS = 72
"""In an inch."""


def colour(name: str, names: Sequence[str] = ()) -> str:
    """Return the colour of an activation or a method; one of a user's own has its place among `names`."""
    if name == "identity":
        return INK
    own = [each for each in names if each not in PALETTE]
    return PALETTE.get(name) or OTHERS[own.index(name) % len(OTHERS) if name in own else 0]


def on(shade: str) -> str:
    """Return the colour of text on a colour."""
    red, green, blue = to_rgb(shade)
    return "#111111" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else "white"


def draw(name: str, title: str, width: float, height: float, paint: Callable[[Figure], None]) -> str:
    """Draw a figure and return it as the text of one `<svg>` element.

    Args:
        name: of the figure; the ids inside begin with it, so that they are unique on a page.
        title: what the figure shows, for those who can't see it.
        width: in inches.
        height: in inches.
        paint: draws into the empty figure.
    """
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # matplotlib's font only measures: the page has its own
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return _inline(text.getvalue(), name, title, width, height)


def _inline(svg: str, name: str, title: str, width: float, height: float) -> str:
    """Make a document of matplotlib's an element of a page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = {*re.findall(r"url\(#([^)]+)\)", svg), *re.findall(r'xlink:href="#([^"]+)"', svg)}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg).replace('xlink:href="#', f'href="#{name}-')
    svg = re.sub(r' (d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]), svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, white)")
    for each, shade in PALETTE.items():
        svg = svg.replace(to_hex(shade), f"var(--c-{each.replace('_', '-')}, {shade})")
    heading = escape(" ".join(title.split()))
    size = f'viewBox="0 0 {width * POINTS:g} {height * POINTS:g}"'
    head = (
        f'<svg {size} role="img" aria-label="{heading}" style="--width: {width * POINTS:g}px"><title>{heading}</title>'
    )
    return re.sub(r"\n\s*", "\n", re.sub(r"^<svg[^>]*>", lambda _: head, svg, count=1))
