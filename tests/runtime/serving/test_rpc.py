"""gRPC's requests and answers, against tritonclient's compiled messages; and its calls, in this process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from smx.runtime.serving import rpc
from smx.runtime.serving.messages import CLASSES, SERVICE
from smx.runtime.serving.model import Loading
from smx.runtime.serving.protocol import NUMERIC, Cause, InferRequest, InferResponse, Refusal, Tensor
from smx.runtime.serving.rpc import MAX_FIELDS, STATUS, check_fields, make_server, read_request, write_response
from smx.runtime.serving.service import Limits, Service
from tests.runtime.serving import models
from tests.runtime.serving.test_app import KEY, Log, errors

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
BYTES = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1])


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
    (message(tensor("BYTES", [1], bytes_contents=[b"a"])), "got 'BYTES'"),
    (message(BYTES, raw=(b"\1\0\0\0a",)), "got 'BYTES'"),
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


UNKNOWN = {b"\x78\x96\x01": 1, b"\x79" + bytes(8): 1, b"\x7d" + bytes(4): 1, b"\x7b\x08\x01\x7c": 3, b"\x7a\x01\x00": 1}
"""Fields that no request has, a number of each kind, a group and bytes, and how many tags they have."""


@settings(max_examples=50)
@given(st.data())
def test_fields_are_counted_as_protobuf_writes_them(data: st.DataObject) -> None:
    raw = data.draw(st.lists(st.binary(max_size=2) | st.integers(0, 20_000).map(bytes), max_size=4))
    names = data.draw(st.lists(st.text(max_size=200), max_size=4))
    unknown = data.draw(st.lists(st.sampled_from(sorted(UNKNOWN)), max_size=3))
    asked = service_pb2.ModelInferRequest(model_name="m", id="mine", raw_input_contents=raw)
    for name in names:
        asked.inputs.add(name=name, datatype="FP32", shape=[1, 300])
        asked.outputs.add(name=name)
    asked.parameters["timeout"].int64_param = 5
    content = b"".join(unknown) + asked.SerializeToString()
    assert CLASSES["ModelInferRequest"].FromString(content).id == "mine"
    count = 3 + len(raw) + 2 * len(names) + sum(UNKNOWN[each] for each in unknown)
    check_fields(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpc, "MAX_FIELDS", count)
        check_fields(content)
        patch.setattr(rpc, "MAX_FIELDS", count - 1)
        with pytest.raises(Refusal, match=f"a message may have {count - 1} fields"):
            check_fields(content)


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"\x0a", b"\xff" * 10, b"\x2a\x00", b"\x0b"])).map(b"".join))
def test_any_bytes_are_counted(content: bytes) -> None:
    check_fields(content)
    with pytest.MonkeyPatch.context() as patch, suppress(Refusal):
        patch.setattr(rpc, "MAX_FIELDS", 2)
        check_fields(content)


@asynccontextmanager
async def listening(
    folder: Path, text: str = models.PLAIN, **options: Any
) -> AsyncIterator[tuple[grpc.aio.Channel, Service, Log]]:
    """Start a server in this process, and open a channel to it."""
    log = Log()
    service = Service(models.make(folder / "m.onnx", text), Loading(threads=1), Limits(), log)
    log.clear()
    server, port = make_server(service, "127.0.0.1:0", tls=None, log=log, **{"api_key": None, **options})
    await server.start()
    try:
        async with asyncio.timeout(60), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, service, log
    finally:
        await server.stop(0)


async def ask(channel: grpc.aio.Channel, asked: Any, **metadata: str) -> tuple[str, str, str]:
    """Call `ModelInfer` with a message or bytes; return the status, what is said of it, and the id."""
    content = asked if isinstance(asked, bytes) else asked.SerializeToString()
    sent = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(content, metadata=sent)
    ended = {name: str(value) for name, value in await call.trailing_metadata() or ()}
    return (await call.code()).name, await call.details(), ended["x-request-id"]


GOOD = service_pb2.ModelInferRequest(
    model_name="m", inputs=[typed("x", "FP32", np.zeros((1, 4), np.float32))], outputs=[{"name": "y"}]
)


@pytest.mark.parametrize("log_all", [False, True])
def test_calls_have_ids_and_refused_ones_are_logged_and_counted_once(log_all: bool, tmp_path: Path) -> None:
    other = service_pb2.ModelInferRequest(model_name="none", inputs=GOOD.inputs)
    key = {"authorization": f"Bearer {KEY}"}

    async def test() -> None:
        async with listening(tmp_path, api_key=KEY, log_all=log_all) as (channel, service, log):
            found = [
                await ask(channel, GOOD, authorization=f"Bearer {KEY}x", x_request_id="mine.1"),
                await ask(channel, other, x_request_id="no id", **key),
                await ask(channel, service_pb2.ModelInferRequest(model_name="m"), **key),
                await ask(channel, b"\xff", **key),
                await ask(channel, GOOD, x_request_id="mine.2", **key),
            ]
            statuses = ["UNAUTHENTICATED", "NOT_FOUND", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "OK"]
            assert [status for status, _, _ in found] == statuses
            ids = [each for _, _, each in found]
            assert (ids[0], ids[4]) == ("mine.1", "mine.2")
            assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids[1:4])
            assert len({*ids}) == 5
            while len(log) < 4 + log_all:
                await asyncio.sleep(0.01)
            logged = [(each["event"], each["method"], each["status"], each["id"]) for each in log]
            expected = [("call", "ModelInfer", *each) for each in zip(statuses, ids, strict=True)]
            assert logged == (expected if log_all else expected[:4])
            assert [each["error"] for each in log[:4]] == [text for _, text, _ in found[:4]]
            assert KEY not in str(log)
            assert errors(service) == {
                ("unauthenticated", "", "grpc"): 1,
                ("not_found", "", "grpc"): 1,
                ("invalid", "m", "grpc"): 1,
                ("invalid", "", "grpc"): 1,
            }

    asyncio.run(test())


def test_messages_of_calls_take_room_and_have_a_number_of_fields(tmp_path: Path) -> None:
    many = service_pb2.ModelInferRequest(inputs=[{}] * (MAX_FIELDS + 1)).SerializeToString()

    async def test() -> None:
        async with listening(tmp_path) as (channel, service, _):
            service.bodies.room = len(GOOD.SerializeToString()) + 10
            with service.bodies.whole(bytes(11)):
                status, said, _ = await ask(channel, GOOD)
                assert (status, "try again later" in said) == ("RESOURCE_EXHAUSTED", True)
            with service.bodies.whole(bytes(10)):
                assert (await ask(channel, GOOD))[0] == "OK"
            assert service.bodies.size == 0
            service.bodies.room = len(many) + 1
            status, said, _ = await ask(channel, many + b"\xff")  # which protobuf could not read
            assert (status, said) == ("INVALID_ARGUMENT", f"a message may have {MAX_FIELDS} fields")
            assert errors(service) == {("busy", "", "grpc"): 1, ("invalid", "", "grpc"): 1}
            assert service.bodies.size == 0

    asyncio.run(test())


def test_a_call_for_which_there_is_no_memory_is_a_failure_of_the_server(tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(tmp_path, models.SIZED) as (channel, service, log):
            asked = [
                service_pb2.ModelInferRequest(model_name="m", inputs=[typed("n", "INT64", np.array([n]))])
                for n in (models.TOO_MANY, -1)
            ]
            assert [(await ask(channel, each))[0] for each in asked] == ["INTERNAL", "INVALID_ARGUMENT"]
            assert [each["event"] for each in log] == ["failed", "call", "call"]
            assert "Failed to allocate memory" in log[0]["error"]
            assert errors(service) == {("internal", "m", "grpc"): 1, ("invalid", "m", "grpc"): 1}

    asyncio.run(test())


def test_a_call_whose_client_is_gone_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with listening(tmp_path, log_all=True) as (channel, service, log):
            batcher = service.repository.find("m").batcher
            monkeypatch.setattr(batcher, "_dispatch", lambda: None)
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(GOOD.SerializeToString())
            while not batcher.waiting:
                await asyncio.sleep(0.01)
            call.cancel()
            while not log:
                await asyncio.sleep(0.01)
            assert [(each["event"], each["status"]) for each in log] == [("call", "CANCELLED")]
            assert (len(batcher.waiting), service.bodies.size, errors(service)) == (0, 0, {})

    asyncio.run(test())
