"""The time of a run by layer and operator."""
