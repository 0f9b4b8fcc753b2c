"""What the paper fixes for everything here. Standard library only."""

from __future__ import annotations

PAPER_POOL = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")
"""The paper's activations, in its order; slopes and alphas are PyTorch's defaults."""

TEMPERATURE = 0.3
"""tau of eq. 2 (the paper's table 2)."""

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
