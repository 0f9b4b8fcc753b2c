"""Figures of runs and measurements, drawn with matplotlib."""
