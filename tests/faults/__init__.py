"""Kinds of faults, to be planted in what was exported of a small network, and where each must be found.

A fault is in the file, or in PyTorch's network where the file is older than that. Neurons are counted as in PyTorch;
where they are in the file is found by comparing weights, not from the file's own metadata.
"""

from __future__ import annotations

from tests.faults import activations as activations
from tests.faults import graph as graph
from tests.faults import weights as weights
from tests.faults.catalogue import KINDS as KINDS
from tests.faults.catalogue import LAYOUTS as LAYOUTS
from tests.faults.catalogue import Kind as Kind
from tests.faults.catalogue import Planted as Planted
from tests.faults.exported import Array as Array
from tests.faults.exported import Export as Export
from tests.faults.networks import NETWORKS as NETWORKS
from tests.faults.networks import choice as choice
from tests.faults.networks import convolutional as convolutional
from tests.faults.networks import one_thread as one_thread
