"""Figures of a report: each function takes a data frame and returns SVG text."""

import smx.figures  # noqa: F401  which must come before matplotlib: it says where matplotlib may write
