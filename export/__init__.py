"""The compiler: a committed PyTorch module becomes a plain ONNX file."""

from __future__ import annotations

from smx.export.exporter import ExportReport as ExportReport
from smx.export.exporter import export_onnx as export_onnx
from smx.export.fastest import Search as Search
