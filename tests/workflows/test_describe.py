from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from smx.workflows.describe import describe

HUGE = """
<ir_version: 10, opset_import: ["" : 18]>
huge (float[N, 8000] x) => (float[N, 8000] y) {
    size = Constant <value_ints = [8000, 8000]> ()
    %s
    y = MatMul (x, w30)
}"""


@pytest.mark.timeout(60)
def test_nothing_is_computed(tmp_path: Path) -> None:
    """ONNX Runtime's optimisation would compute thirty products of large constants, for many minutes."""
    products = "\n".join(f"w{i + 1} = MatMul (w{i}, w{i})" for i in range(30))
    model = onnx.parser.parse_model(HUGE % ("w0 = ConstantOfShape (size)\n" + products))
    onnx.save(model, tmp_path / "huge.onnx")
    assert describe(tmp_path / "huge.onnx").facts["operators"]["MatMul"] == 31
