"""What stands in an ONNX file, read without the onnx package, which the base install does not have.

The messages declare only the fields that are used; protobuf passes over the others. Numbers as in onnx.proto.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from smx.errors import InputError

_Field = descriptor_pb2.FieldDescriptorProto
_TEXT, _INT64 = _Field.TYPE_STRING, _Field.TYPE_INT64

# message -> (field, number, type or message name, repeated)
_MESSAGES: dict[str, list[tuple[str, int, Any, bool]]] = {
    "Opset": [("domain", 1, _TEXT, False), ("version", 2, _INT64, False)],
    "Tensor": [("dims", 1, _INT64, True), ("data_type", 2, _Field.TYPE_INT32, False)],
    "Node": [("name", 3, _TEXT, False), ("op_type", 4, _TEXT, False), ("domain", 7, _TEXT, False)],
    "Graph": [("node", 1, "Node", True), ("initializer", 5, "Tensor", True)],
    "Model": [
        ("producer_name", 2, _TEXT, False),
        ("producer_version", 3, _TEXT, False),
        ("graph", 7, "Graph", False),
        ("opset_import", 8, "Opset", True),
    ],
}

FLOATS = (1, 10, 11, 16)
"""TensorProto.DataType: FLOAT, FLOAT16, DOUBLE, BFLOAT16."""


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """The outline of an ONNX graph.

    Attributes:
        producer: name and version of the tool that wrote it.
        opsets: version of each operator domain; the standard one is `ai.onnx`.
        operators: how often each operator occurs.
        parameters: floating-point values of all initializers; indices and shapes don't count.
    """

    producer: str
    opsets: dict[str, int]
    operators: dict[str, int]
    parameters: int


def summarise(path: str | os.PathLike[str]) -> GraphSummary:
    """Read the outline of the ONNX file at `path`.

    Raises:
        InputError: the file is missing or no ONNX model.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; expected an ONNX model")
    model = _model_class()()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except DecodeError as error:
        raise InputError(f"{path} is no ONNX model: {error}") from error
    operators = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return GraphSummary(
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        operators=dict(operators.most_common()),
        parameters=sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in FLOATS),
    )


@cache
def _model_class() -> Any:
    package = "smx.onnx"
    file = descriptor_pb2.FileDescriptorProto(name="smx_onnx_outline.proto", package=package, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                message.field.add(
                    name=field,
                    number=number,
                    label=label,
                    type=_Field.TYPE_MESSAGE,
                    type_name=f".{package}.{kind}",
                )
            else:
                message.field.add(name=field, number=number, label=label, type=kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))
