"""Limits on what a file or an option may ask for, so that no small number takes all memory or hours."""

from __future__ import annotations

THREADS = 256
"""Of one operator. ONNX Runtime's idle threads wait actively: a thousand on two cores take half a minute to start."""
BATCH = 2**20
"""Examples a run."""
NEURONS = 2**20
"""Neurons of one layer, or channels."""
LAYERS = 1000
"""Layers of a network that smx builds."""
VALUES = 2**26
"""Values of one example, such as the pixels of an image times its colours."""
NODES, MOST_CALLS = 2**14, 64
"""Operators for which a model with functions stands at most, or multiples of those that its file has."""
RANDOM_VALUES = 2**28
"""Values of the random inputs of one run."""
EPOCHS = 1_000_000
"""Epochs of a phase."""
POOL = 256
"""Activations of a pool."""
ROUNDS = 1_000_000
"""Of a measurement."""
NAME = 10_000
"""Characters of a name in a file, such as that of a class."""
TEXT = 2**26
"""Bytes of a file of settings, prices or measurements."""
JOBS = 1024
"""Cells that are trained side by side."""
