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
    "relu_two_phases": "ReLU in two phases",
}


def short(name: object, longest: int = LONGEST) -> str:
    """Return a method's or an activation's name for people, on one line and cut where it is long."""
    text = " ".join(WORDS.get(str(name), str(name)).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
