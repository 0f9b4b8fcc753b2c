"""Times of candidates measured in turn: ratios with confidence intervals, limits, the machine. Needs numpy alone."""
