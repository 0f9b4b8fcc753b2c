"""Times of candidates measured in turn: ratios with confidence intervals, limits, the machine. Needs numpy alone."""

BATCH_SIZES = (1, 16, 128, 1024)
"""Examples a run, where nobody says which."""
