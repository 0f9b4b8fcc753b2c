"""Read and change the graph of an ONNX file without the onnx package, which the base install does not have.

The messages declare only the fields that are used; protobuf keeps the others as they are. Source of the numbers:
onnx.proto.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from smx.errors import InputError, no_file
from smx.limits import MOST_CALLS, NODES

_Field = descriptor_pb2.FieldDescriptorProto
_TEXT, _INT64 = _Field.TYPE_STRING, _Field.TYPE_INT64

# message -> (field, number, type or message name, repeated)
_MESSAGES: dict[str, list[tuple[str, int, Any, bool]]] = {
    "Opset": [("domain", 1, _TEXT, False), ("version", 2, _INT64, False)],
    "Entry": [("key", 1, _TEXT, False), ("value", 2, _TEXT, False)],
    "Tensor": [
        ("dims", 1, _INT64, True),
        ("data_type", 2, _Field.TYPE_INT32, False),
        ("external_data", 13, "Entry", True),
    ],
    "Value": [("name", 1, _TEXT, False)],
    "Node": [
        ("input", 1, _TEXT, True),
        ("output", 2, _TEXT, True),
        ("name", 3, _TEXT, False),
        ("op_type", 4, _TEXT, False),
        ("attribute", 5, "Attribute", True),
        ("domain", 7, _TEXT, False),
    ],
    "Attribute": [("g", 6, "Graph", False), ("graphs", 11, "Graph", True)],
    "Function": [("name", 1, _TEXT, False), ("node", 7, "Node", True), ("domain", 10, _TEXT, False)],
    "Graph": [
        ("node", 1, "Node", True),
        ("initializer", 5, "Tensor", True),
        ("input", 11, "Value", True),
        ("output", 12, "Value", True),
    ],
    "Model": [
        ("producer_name", 2, _TEXT, False),
        ("producer_version", 3, _TEXT, False),
        ("graph", 7, "Graph", False),
        ("opset_import", 8, "Opset", True),
        ("metadata_props", 14, "Entry", True),
        ("functions", 25, "Function", True),
    ],
}

FLOATS = (1, 10, 11, 16)
"""TensorProto.DataType: FLOAT, FLOAT16, DOUBLE, BFLOAT16."""


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """The outline of an ONNX graph.

    Attributes:
        producer: name and version of the tool that wrote it.
        opsets: version of each operator domain; the standard domain is `ai.onnx`.
        operators: how often each operator occurs.
        parameters: number of floating-point values in all initializers, so without indices and shapes.
    """

    producer: str
    opsets: dict[str, int]
    operators: dict[str, int]
    parameters: int


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """A node of a graph.

    Attributes:
        name: "" for a node without a name.
        operator, domain: the standard domain is "".
        inputs, outputs: names of values; "" for an optional one that is not used.
    """

    name: str
    operator: str
    domain: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def summarise(path: str | os.PathLike[str]) -> GraphSummary:
    """Read the outline of the ONNX file at `path`.

    Raises:
        InputError: the file is missing or no ONNX model.
    """
    model = _read(path)
    operators = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return GraphSummary(
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opsets={opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        operators=dict(operators.most_common()),
        parameters=sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in FLOATS),
    )


def nodes(model: str | os.PathLike[str] | bytes) -> list[NodeInfo]:
    """Return the nodes of a model, the file's path or its bytes, in the order of the file; not those of subgraphs.

    Raises:
        InputError: the file is missing or no ONNX model.
    """
    return [
        NodeInfo(name=n.name, operator=n.op_type, domain=n.domain, inputs=tuple(n.input), outputs=tuple(n.output))
        for n in _read(model).graph.node
    ]


def weight_files(path: str | os.PathLike[str]) -> list[str]:
    """Return the files of weights that a model refers to, relative to its folder; none where they are in the model.

    Raises:
        InputError: the file is missing or no ONNX model, or refers to files outside its folder.
    """
    entries = (entry for tensor in _read(path).graph.initializer for entry in tensor.external_data)
    found = sorted({entry.value for entry in entries if entry.key == "location"})
    for name in found:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path} refers to weights outside its folder: {name!r}")
    return found


def check_functions(model: str | os.PathLike[str] | bytes) -> None:
    """Refuse functions that call each other so often that a small file stands for very many operators.

    ONNX Runtime replaces each call by the function's operators before it looks at the model.

    Raises:
        InputError: there are more operators, or a function calls itself; or the file is missing or no ONNX model.
    """
    message = _read(model)
    bodies = {(function.domain, function.name): function.node for function in message.functions}
    sizes: dict[tuple[str, str], int] = {}
    most = max(NODES, MOST_CALLS * sum(map(len, (message.graph.node, *bodies.values()))))

    def size(nodes: Any, callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in callers:
                raise InputError(f"its function {called[1]} calls itself")
            if called in bodies and called not in sizes:
                sizes[called] = size(bodies[called], (*callers, called))
            total += sizes.get(called, 1)
            for attribute in node.attribute:
                total += sum(size(graph.node, callers) for graph in (attribute.g, *attribute.graphs))
        return min(total, most + 1)

    try:
        if bodies and size(message.graph.node, ()) > most:
            raise InputError(f"its functions stand for more than {most} operators")
    except RecursionError as error:
        raise InputError("its functions and subgraphs are nested too deep") from error


def expose(path: Path, values: Sequence[str]) -> bytes:
    """Return the model as bytes, with some of its values as additional outputs, after its own and in this order.

    ONNX Runtime infers their types and shapes. The digests are left out, because they are those of the file. Weights in
    a file beside the model stay there; the session option `session.model_external_initializers_file_folder_path` must
    then name the folder.

    Args:
        path: the file.
        values: names of outputs of nodes, or of inputs of the model; one that is an output already is not added again.

    Raises:
        InputError: the file is missing or no ONNX model, or does not have such a value.
    """
    model = _read(path)
    graph = model.graph
    made = {value.name for value in graph.input} | {name for node in graph.node for name in node.output if name}
    outputs = {value.name for value in graph.output}
    for value in dict.fromkeys(values):
        if value not in made:
            raise InputError(f"{path} has no value {value!r}; expected the output of a node, or an input")
        if value not in outputs:
            graph.output.add(name=value)
    kept = [entry for entry in model.metadata_props if not entry.key.endswith("sha256")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return bytes(model.SerializeToString())


def _read(model: str | os.PathLike[str] | bytes) -> Any:
    name = "the model" if isinstance(model, bytes) else model
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise InputError(f"{no_file(Path(model))}; expected an ONNX model")
    message = _model_class()()
    try:
        message.ParseFromString(model if isinstance(model, bytes) else Path(model).read_bytes())
    except DecodeError as error:
        raise InputError(f"{name} is no ONNX model: {error}") from error
    return message


@cache
def _model_class() -> Any:
    package = "smx.onnx"
    # proto2, like onnx.proto: it tells an empty text from none, so that what is read can be written back unchanged.
    file = descriptor_pb2.FileDescriptorProto(name="smx_onnx_outline.proto", package=package, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added.type = _Field.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                added.type_name = f".{package}.{kind}"
    pool: Any = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))
