"""Names as figures and tables show them."""

from __future__ import annotations

import re

LONGEST = 24
WORDS = {
    "smartmixed": "SmartMixed",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "leaky_relu": "Leaky ReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "identity": "Identity",
    "shuffled": "shuffled",
    "random": "random",
    "majority": "majority",
    "relu_two_phases": "ReLU in two phases",
}


def short(name: object, longest: int = LONGEST) -> str:
    """Return a method's or an activation's name for people, on one line and cut where it is long.

    Several names with ` = `, ` + ` or ` - ` between are each written so.
    """
    parts = re.split(r"( = | \+ | - )", str(name)[: 20 * longest])
    words = [WORDS.get(part, part) for part in parts]
    return one_line("".join(words).replace(" - ", " \N{MINUS SIGN} "), longest)


def one_line(text: object, longest: int) -> str:
    """Return a text on one line, cut where it is long, without characters that can't be seen."""
    line = " ".join(str(text)[: 4 * longest].split())
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
    return line if len(line) <= longest else f"{line[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
