"""The protocol's gRPC messages, made from a table when they are needed, so that nothing is generated or compiled.

Source of names, numbers and types: `specification/protocol/open_inference_grpc.proto` of
https://github.com/kserve/open-inference-protocol, and `RepositoryIndex` of Triton's `grpc_service.proto`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

METADATA = "name:1:string version:2:string"
INFER_TENSOR = (
    "name:1:string datatype:2:string shape:3:int64* parameters:4:InferParameter% contents:5:InferTensorContents"
)
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": METADATA,
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": f"{METADATA} extensions:3:string*",
    "ModelMetadataRequest": METADATA,
    "ModelMetadataResponse": "name:1:string versions:2:string* platform:3:string"
    " inputs:4:ModelMetadataResponse.TensorMetadata* outputs:5:ModelMetadataResponse.TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": "name:1:string datatype:2:string shape:3:int64*",
    "InferParameter": "bool_param:1:bool| int64_param:2:int64| string_param:3:string| double_param:4:double|"
    " uint64_param:5:uint64|",
    "InferTensorContents": "bool_contents:1:bool* int_contents:2:int32* int64_contents:3:int64* uint_contents:4:uint32*"
    " uint64_contents:5:uint64* fp32_contents:6:float* fp64_contents:7:double* bytes_contents:8:bytes*",
    "ModelInferRequest": "model_name:1:string model_version:2:string id:3:string parameters:4:InferParameter%"
    " inputs:5:ModelInferRequest.InferInputTensor* outputs:6:ModelInferRequest.InferRequestedOutputTensor*"
    " raw_input_contents:7:bytes*",
    "ModelInferRequest.InferInputTensor": INFER_TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "name:1:string parameters:2:InferParameter%",
    "ModelInferResponse": "model_name:1:string model_version:2:string id:3:string parameters:4:InferParameter%"
    " outputs:5:ModelInferResponse.InferOutputTensor* raw_output_contents:6:bytes*",
    "ModelInferResponse.InferOutputTensor": INFER_TENSOR,
    "RepositoryIndexRequest": "repository_name:1:string ready:2:bool",
    "RepositoryIndexResponse": "models:1:RepositoryIndexResponse.ModelIndex*",
    "RepositoryIndexResponse.ModelIndex": "name:1:string version:2:string state:3:string reason:4:string",
}
"""The fields of each message, `name:number:type`; after the type `*` is repeated, `%` a map from texts, `|` one of
several. A name with a dot is a message inside another."""

Field = descriptor_pb2.FieldDescriptorProto
TYPES = {name.removeprefix("TYPE_").lower(): number for name, number in Field.Type.items()}


def _make() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name in sorted(MESSAGES, key=lambda name: name.count(".")):  # the outer ones first
        outer, _, short = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=short)
    for name, fields in MESSAGES.items():
        for field in fields.split():
            _add_field(made[name], name, *field.split(":"))
    pool: Any = (
        descriptor_pool.DescriptorPool()
    )  # its own, so that a client's copy of the messages may be in this process
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


def _add_field(message: descriptor_pb2.DescriptorProto, owner: str, name: str, number: str, kind: str) -> None:
    mark, kind = kind[-1], kind.rstrip("*%|")
    label = Field.LABEL_REPEATED if mark in "*%" else Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    if mark == "%":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, owner, "key", "1", "string")
        _add_field(entry, owner, "value", "2", kind)
        kind = f"{owner}.{entry.name}"
    if mark == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind in TYPES:
        field.type = TYPES[kind]
    else:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


CLASSES = _make()
"""The class of each message."""
