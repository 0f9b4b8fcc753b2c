"""Figures of a report: each function takes a data frame and returns SVG text."""
