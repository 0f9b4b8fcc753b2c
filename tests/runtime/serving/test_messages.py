"""The messages that are made from a table, against those that tritonclient brings compiled."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2

from smx.runtime.serving.messages import CLASSES, MESSAGES, PACKAGE, SERVICE

OFFICIAL = service_pb2.DESCRIPTOR
CALLS = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex"]


def described(message: Any) -> dict[str, Any]:
    """Return all that a message's bytes depend on, of its fields and those of the messages inside it."""

    def field(each: FieldDescriptor) -> tuple[Any, ...]:
        inner = each.message_type
        choice = each.containing_oneof
        return (
            each.number,
            each.type,
            each.is_repeated,
            inner and (inner.full_name, inner.GetOptions().map_entry),
            choice and choice.name,
            each.has_presence,
        )

    fields = {each.name: field(each) for each in message.fields}
    return {"name": message.full_name, "fields": fields} | {
        nested.name: described(nested) for nested in message.nested_types
    }


@pytest.mark.parametrize("name", [name for name in MESSAGES if "." not in name])
def test_a_message_has_the_fields_of_the_official_one(name: str) -> None:
    assert described(CLASSES[name].DESCRIPTOR) == described(OFFICIAL.message_types_by_name[name])


def test_the_calls_are_the_official_ones() -> None:
    service = OFFICIAL.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    for name in CALLS:
        call = service.methods_by_name[name]
        assert call.input_type.full_name == f"{PACKAGE}.{name}Request"
        assert call.output_type.full_name == f"{PACKAGE}.{name}Response"
        assert {f"{name}Request", f"{name}Response"} <= CLASSES.keys()
