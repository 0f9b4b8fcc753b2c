"""Names as figures and tables show them."""

from __future__ import annotations

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
    "relu_two_phases": "ReLU, two phases",
}


def short(name: object, longest: int = LONGEST) -> str:
    """Return a method's or an activation's name for people, on one line and cut where it is long."""
    text = " ".join(WORDS.get(str(name), str(name)).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def layers(hidden: object) -> str:
    """Return hidden sizes for people: `768, 512 x 2, 256`."""
    sizes = str(hidden).split(",")
    runs: list[list[str]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1].append(size)
        else:
            runs.append([size])
    return short(", ".join(run[0] if len(run) == 1 else f"{run[0]} × {len(run)}" for run in runs), 60)
