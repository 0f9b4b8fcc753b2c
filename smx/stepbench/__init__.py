"""The cost of a training step: time and memory of both phases, beside fixed activations and the plain formulas."""
