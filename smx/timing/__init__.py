"""Interleaved timing: candidates measured in turn, ratios with intervals, the machine. Needs numpy alone."""
