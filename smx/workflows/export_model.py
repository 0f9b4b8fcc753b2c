"""From a saved network to an ONNX file. (`smx.export.export_onnx` does the same for any module.)"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError

if TYPE_CHECKING:
    from smx.export import ExportReport
    from smx.export.sizes import Dynamic

SEARCH = {"for_batch": None, "measure": True, "price": None, "provider": "cpu", "allow_fallback": False}
CALIBRATION = 10_000
"""At most this many training examples calibrate int8."""


def export_model(
    model_path: str | os.PathLike[str],
    onnx_path: str | os.PathLike[str],
    *,
    layout: str = "scatter",
    for_batch: int | None = None,
    measure: bool = True,
    price: str | os.PathLike[str] | None = None,
    provider: str = "cpu",
    allow_fallback: bool = False,
    batch: int | None = None,
    dynamic: Dynamic | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = 18,
    precision: str = "float32",
    normalize: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    triton: str | os.PathLike[str] | None = None,
    triton_device: str = "cpu",
    kserve: str | os.PathLike[str] | None = None,
    kserve_uri: str | None = None,
) -> ExportReport:
    """Export the network of a `model.pt`, with what the file says of it in the ONNX metadata.

    Args:
        model_path: of `model.pt`.
        onnx_path: of the file to write.
        for_batch, measure, price, provider, allow_fallback: how the layout `fastest` is searched, see
            `smx.export.fastest.Search`.
        layout, batch, dynamic, input_names, output_names, opset, precision: see `smx.export.export_onnx`. float16 and
            int8 count the predictions that change on the test set of the network's data; int8 is calibrated on its
            training set.
        normalize: let the file take raw uint8 values and normalise them itself.
        data_dir: where downloaded data sets are, see `smx.data.load`.
        trust_code: see `smx.workflows.network.open_network`.
        triton, triton_device, kserve, kserve_uri: also write what Triton and KServe need, see
            `smx.workflows.deploy.deploy`, which has more settings and takes ONNX files that are there already.

    Raises:
        InputError, ParityError, SmxError: see `smx.export.export_onnx`.
    """
    from smx.export import Search, export_onnx
    from smx.modelfile import load_model
    from smx.workflows.deploy import check, deploy

    check(onnx_path, triton, kserve, kserve_uri, triton_device)
    saved = load_model(Path(model_path), trust_code=trust_code)
    wanted: dict[str, Any] = {
        "for_batch": for_batch,
        "measure": measure,
        "price": price,
        "provider": provider,
        "allow_fallback": allow_fallback,
    }
    dataset = None
    if precision in ("float16", "int8"):
        from smx import data as datasets

        if not saved.data["name"]:
            raise InputError(
                f"{model_path} names no data set to try {precision} on; use smx.export.export_onnx with calibration="
            )
        dataset = datasets.load(saved.data["name"], data_dir)
    report = export_onnx(
        saved.build(raw=normalize),
        onnx_path,
        example_input=saved.example_input(raw=normalize),
        layout=layout,
        search=Search(**wanted) if layout == "fastest" or wanted != SEARCH else None,  # refused for other layouts
        batch=batch,
        dynamic=dynamic,
        input_names=input_names or None,
        output_names=output_names or None,
        opset=opset,
        precision=precision,
        calibration=saved.examples(dataset, dataset.train.x[:CALIBRATION], raw=normalize) if dataset else None,
        evaluation=saved.examples(dataset, dataset.test.x, raw=normalize) if dataset else None,
        describe=saved.description(),
    )
    deploy(onnx_path, triton=triton, device=triton_device, kserve=kserve, kserve_uri=kserve_uri)
    return report
