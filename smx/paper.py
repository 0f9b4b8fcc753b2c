"""What the paper fixes for everything here. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAPER_POOL = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")
"""The paper's activations, in its order; slopes and alphas are PyTorch's defaults."""

TEMPERATURE = 0.3
"""tau of eq. 2 (the paper's table 2)."""

PAPER, MATCHED = "paper", "matched"
SELECTIONS = (PAPER, MATCHED)
"""The rules by which phase 1 moves the logits: the paper's, and that of candidates matched to ReLU."""

NEURON, LAYER = "neuron", "layer"
"""What makes a choice of its own, unless a number of neurons does together."""

RANDOM, CURRENT = "random", "current"
STARTS = (RANDOM, CURRENT)
"""How neurons begin to choose: each with any activation, or with its present one. A name of the pool: all with that."""

KEEP = 0.9
"""The probability with which a neuron that does not begin at random has its first activation in a step at first."""


RECOMMENDED = "recommended"
RECOMMENDED_SETTINGS: Mapping[str, Any] = {
    "selection": MATCHED,
    "start": "relu",
    "hold": True,
    "per": LAYER,
    "price_weight": 0.1,
}
"""What `selection = recommended` stands for, where a setting is not given besides; docs/training.md says why."""


def default_selection(start: str) -> str:
    """Return the rule by which neurons choose where none is said."""
    return PAPER if start == RANDOM else MATCHED


TABLE_1 = {
    (512,): ("sigmoid", "tanh", "relu"),
    (512, 256, 128): ("smartmixed", "leaky_relu", "relu"),
    (512, 256, 128, 64): ("smartmixed", "leaky_relu", "tanh"),
    (512, 256, 256, 128): ("leaky_relu", "elu", "smartmixed"),
    (256, 128): ("smartmixed", "tanh", "relu"),
    (768,): ("tanh", "sigmoid", "leaky_relu"),
    (768, 512): ("relu", "leaky_relu", "smartmixed"),
    (768, 512, 512): ("relu", "smartmixed", "leaky_relu"),
    (768, 512, 512, 256): ("leaky_relu", "smartmixed", "elu"),
    (768, 512, 512, 256, 256): ("leaky_relu", "relu", "smartmixed"),
    (768, 512, 512, 256, 256, 128): ("smartmixed", "relu", "selu"),
    (768, 512, 512, 256, 256, 128, 128): ("leaky_relu", "smartmixed", "relu"),
    (768, 512, 512, 256, 256, 128, 128, 64): ("relu", "leaky_relu", "selu"),
    (768, 512, 512, 256, 256, 128, 128, 64, 64): ("relu", "leaky_relu", "selu"),
    (768, 512, 512, 256, 256, 128, 128, 64, 64, 32): ("leaky_relu", "relu", "smartmixed"),
    (768, 512, 512, 256, 256, 128, 128, 64, 64, 32, 32): ("relu", "smartmixed", "leaky_relu"),
    (768, 512, 512, 256, 256, 128, 128, 64, 64, 32, 32, 16): ("leaky_relu", "relu", "selu"),
    (768, 512, 512, 256, 256, 128, 128, 64, 64, 32, 32, 16, 16): ("smartmixed", "leaky_relu", "relu"),
}
"""The paper's 18 architectures, as hidden sizes, and the three best methods on each by test accuracy (its table 1)."""

TABLE_3 = {"phase1": (0.9567, 0.9573), "phase2": (0.9822, 0.9803)}
"""Validation and test accuracy of each phase on `LARGEST` (its table 3)."""

LARGEST = (784, 768, 512, 512, 256, 256, 128, 10)
"""Inputs, neurons of each hidden layer and classes of the paper's largest network."""

_FIRST = {"relu": 0.37, "leaky_relu": 0.34, "tanh": 0.10, "elu": 0.10, "selu": 0.06, "sigmoid": 0.03}
_LAST = {"selu": 0.64, "elu": 0.31, "relu": 0.02, "leaky_relu": 0.02, "tanh": 0.005, "sigmoid": 0.005}


def shares(depth: float) -> dict[str, float]:
    """Return what share of a hidden layer's neurons chose each of `PAPER_POOL`, about as the paper found it.

    Between the first hidden layer, depth 0 (ReLU 37 %, Leaky ReLU 34 %), and the last one, depth 1 (SELU 64 %,
    ELU 31 %), the shares are interpolated; what the paper does not say of the rest is spread over the activations that
    it calls avoided or rare.
    """
    return {name: _FIRST[name] + depth * (_LAST[name] - _FIRST[name]) for name in PAPER_POOL}
