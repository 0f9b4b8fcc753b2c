"""ONNX Runtime: sessions, parity with a reference, latency, prediction. Needs no torch and loads none.

Imports numpy, onnxruntime, pillow, protobuf, `smx.errors` and itself.
"""

from __future__ import annotations

from smx.runtime.latency.measure import LatencyReport as LatencyReport
from smx.runtime.latency.measure import measure_latency as measure_latency
from smx.runtime.metadata import ModelInfo as ModelInfo
from smx.runtime.parity.check import ParityReport as ParityReport
from smx.runtime.parity.check import check_parity as check_parity
from smx.runtime.session import Session as Session
