"""Neurons that share an activation come to lie side by side (`sort`); which can't, and why (`refusals`)."""

from smx.sorting.neurons import refusals as refusals
from smx.sorting.neurons import sort as sort
