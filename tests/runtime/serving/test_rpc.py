"""gRPC's requests and answers, against tritonclient's compiled messages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from smx.runtime.serving.messages import CLASSES
from smx.runtime.serving.protocol import NUMERIC, Cause, InferRequest, InferResponse, Refusal, Tensor
from smx.runtime.serving.rpc import STATUS, read_request, write_response

SHAPES = hn.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
"""As the protocol's description says it; FP16 has no field."""


def arrays(name: str) -> st.SearchStrategy[NDArray[Any]]:
    """Draw arrays of a datatype, NaN among them."""
    return hn.arrays(NUMERIC[name], SHAPES, elements=hn.from_dtype(NUMERIC[name]))


def received(message: Any) -> InferRequest:
    """Read an official message as the server gets it."""
    return read_request(CLASSES["ModelInferRequest"].FromString(message.SerializeToString()))


def typed(name: str, datatype: str, array: NDArray[Any]) -> Any:
    """Return an input with its values in the field of their type."""
    contents = service_pb2.InferTensorContents(**{TYPED[datatype]: array.ravel().tolist()})
    return service_pb2.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=array.shape, contents=contents
    )


@pytest.mark.parametrize("datatype", TYPED)
@settings(max_examples=20)
@given(data=st.data())
def test_typed_contents(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    (tensor,) = received(service_pb2.ModelInferRequest(inputs=[typed("x", datatype, array)])).inputs
    assert tensor.datatype == datatype
    np.testing.assert_array_equal(tensor.array, array)


@settings(max_examples=50)
@given(st.data())
def test_raw_contents_as_tritonclient_writes_them_and_reads_them(data: st.DataObject) -> None:
    datatypes = data.draw(st.lists(st.sampled_from(sorted(NUMERIC)), min_size=1, max_size=3))
    given = {f"x{i}": data.draw(arrays(datatype)) for i, datatype in enumerate(datatypes)}
    message = service_pb2.ModelInferRequest(model_name="m", id="mine")
    for datatype, (name, array) in zip(datatypes, given.items(), strict=True):
        entry = client.InferInput(name, list(array.shape), datatype)
        entry.set_data_from_numpy(array)
        message.inputs.append(entry._get_tensor())
        message.raw_input_contents.append(entry._get_content() or b"")
    message.outputs.append(client.InferRequestedOutput("y", class_count=3)._get_tensor())
    message.parameters["timeout"].int64_param = 5
    message.parameters["probabilities"].bool_param = True
    message.parameters["none"].SetInParent()
    read = received(message)
    assert read.id == "mine"
    assert read.parameters == {"timeout": 5, "probabilities": True}
    assert [(each.name, each.parameters) for each in read.outputs] == [("y", {"classification": 3})]
    for tensor, datatype in zip(read.inputs, datatypes, strict=True):
        assert tensor.datatype == datatype
        np.testing.assert_array_equal(tensor.array, given[tensor.name])
    answer = write_response(InferResponse(model_name="m", model_version="1", outputs=read.inputs, id=read.id))
    back = client.InferResult(service_pb2.ModelInferResponse.FromString(answer.SerializeToString()))
    assert back.get_response().id == "mine"
    for datatype, (name, array) in zip(datatypes, given.items(), strict=True):
        np.testing.assert_array_equal(back.as_numpy(name), array)
        assert back.get_output(name).datatype == datatype


X = np.array([1, 2], np.float32)
RAW = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2])


def message(*inputs: Any, raw: tuple[bytes, ...] = ()) -> Any:
    """Return an official request."""
    return service_pb2.ModelInferRequest(inputs=inputs, raw_input_contents=raw)


def tensor(datatype: str, shape: list[int], **contents: Any) -> Any:
    """Return an official input."""
    return service_pb2.ModelInferRequest.InferInputTensor(
        name="x", datatype=datatype, shape=shape, contents=service_pb2.InferTensorContents(**contents)
    )


WRONG = [
    (message(), "the request needs inputs"),
    (message(raw=(b"1",)), "there are 1 raw_input_contents for 0 inputs"),
    (message(RAW, RAW, raw=(bytes(8),)), "there are 1 raw_input_contents for 2 inputs"),
    (message(typed("x", "FP32", X), raw=(X.tobytes(),)), "'x' has both contents and raw_input_contents"),
    (message(RAW, raw=(bytes(7),)), "needs 8 bytes, got 7"),
    (message(RAW), "of shape [2] needs 2 fp32_contents, got 0"),
    (message(tensor("FP32", [2], fp64_contents=[1, 2])), "of FP32 takes fp32_contents alone"),
    (message(tensor("FP32", [2], fp32_contents=[1])), "of shape [2] needs 2 fp32_contents, got 1"),
    (message(tensor("FP32", [2], fp32_contents=[1, 2], int_contents=[1])), "of FP32 takes fp32_contents alone"),
    (message(tensor("FP32", [0], int_contents=[1])), "of FP32 takes fp32_contents alone"),
    (message(tensor("FP16", [1], fp32_contents=[1])), "of FP16 needs raw_input_contents"),
    (message(tensor("INT8", [1], int_contents=[128])), "has values that INT8 can't hold"),
    (message(tensor("UINT16", [1], uint_contents=[65536])), "has values that UINT16 can't hold"),
    (message(tensor("BYTES", [1], bytes_contents=[b"\xff"])), "got 'BYTES'"),
    (message(tensor("FP32", [-1], fp32_contents=[1])), "has the length -1"),
    (message(tensor("FP32", [2**40, 2**40, 0])), "more than 2**60 elements"),
    (message(tensor("FP32", [1] * 65, fp32_contents=[1])), "a shape of 65 lengths"),
    (message(tensor("", [1])), "needs a datatype"),
]  # fmt: skip


@pytest.mark.parametrize(("request_message", "part"), WRONG)
def test_what_is_no_request(request_message: Any, part: str) -> None:
    with pytest.raises(Refusal, match=re.escape(part)) as caught:
        received(request_message)
    assert caught.value.cause is Cause.INVALID


def test_every_cause_has_a_status_that_is_an_error() -> None:
    assert STATUS.keys() == set(Cause)
    assert all(status.value[0] != 0 for status in STATUS.values())


def test_answers_hold_the_tensors_in_order() -> None:
    outputs = [Tensor("a", np.arange(3)), Tensor("b", np.zeros((0, 2), np.float32))]
    answer = write_response(InferResponse(model_name="m", model_version="7", outputs=outputs))
    assert [output.name for output in answer.outputs] == ["a", "b"]
    assert [len(raw) for raw in answer.raw_output_contents] == [24, 0]
