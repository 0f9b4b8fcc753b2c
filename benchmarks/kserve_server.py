"""The same model behind the KServe SDK's server, for `serving_load.py`; it runs where `kserve` is installed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server

parser = argparse.ArgumentParser(parents=[model_server.parser])
parser.add_argument("--onnx", required=True, type=Path)
arguments, _ = parser.parse_known_args()


class OnnxModel(Model):  # type: ignore[misc]
    """A model that runs each request by itself, as the SDK calls it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options)
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        """Answer one request with a binary tensor."""
        (given,) = payload.inputs
        (y,) = self.session.run(None, {given.name: given.as_numpy()})
        output = InferOutput(name="output", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(np.ascontiguousarray(y), binary_data=True)
        return InferResponse(model_name=self.name, response_id=payload.id or "none", infer_outputs=[output])


ModelServer(workers=1, enable_grpc=False, access_log_format=None).start([OnnxModel(arguments.onnx)])
