"""Exported files that tests change on purpose."""

from __future__ import annotations

from pathlib import Path

import onnx

from smx.runtime.digest import MODEL, WEIGHTS


def loaded(path: Path) -> onnx.ModelProto:
    """Return an exported model without its digest, by which a change would be noticed."""
    proto = onnx.load(path)
    kept = [entry for entry in proto.metadata_props if entry.key not in (MODEL, WEIGHTS)]
    assert len(kept) == len(proto.metadata_props) - 1
    proto.ClearField("metadata_props")
    proto.metadata_props.extend(kept)
    return proto
