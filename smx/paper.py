"""What the paper fixes for everything here. Standard library only."""

from __future__ import annotations

PAPER_POOL = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")
"""The paper's activations, in its order; slopes and alphas are PyTorch's defaults."""

TEMPERATURE = 0.3
"""tau of eq. 2 (the paper's table 2)."""
