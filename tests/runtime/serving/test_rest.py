"""Bodies of requests and answers, against tritonclient's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client
import tritonclient.utils as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray

from smx.runtime.serving.protocol import (
    DTYPES,
    NUMERIC,
    Cause,
    InferRequest,
    InferResponse,
    Refusal,
    RequestedOutput,
    Tensor,
)
from smx.runtime.serving.rest import depth, parse, read_request, write_response

SHAPES = hn.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def arrays(name: str) -> st.SearchStrategy[NDArray[Any]]:
    """Draw finite arrays of a datatype."""
    dtype = DTYPES[name]
    numbers = hn.from_dtype(dtype, allow_nan=False, allow_infinity=False) if dtype.kind == "f" else hn.from_dtype(dtype)
    return hn.arrays(dtype, SHAPES, elements=st.text(max_size=4) if name == "BYTES" else numbers)


@st.composite
def named_arrays(draw: st.DrawFn, known: Iterable[str] = DTYPES) -> dict[str, tuple[str, NDArray[Any]]]:
    """Draw inputs or outputs."""
    datatypes = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3))
    return {f"x{i}": (datatype, draw(arrays(datatype))) for i, datatype in enumerate(datatypes)}


@given(named_arrays(NUMERIC), st.data())
def test_requests_as_tritonclient_writes_them(given: dict[str, tuple[str, NDArray[Any]]], data: st.DataObject) -> None:
    inputs = []
    for name, (datatype, array) in given.items():
        entry = client.InferInput(name, list(array.shape), datatype)
        entry.set_data_from_numpy(array, binary_data=datatype == "FP16" or data.draw(st.booleans()))
        inputs.append(entry)
    body, length = client.InferenceServerClient.generate_request_body(
        inputs, [client.InferRequestedOutput("y", binary_data=True, class_count=2)], "mine", parameters={"top_k": 3}
    )
    read = read_request(bytes(body), length, 8)
    assert [tensor.name for tensor in read.inputs] == list(given)
    for tensor, (datatype, array) in zip(read.inputs, given.values(), strict=True):
        assert tensor.datatype == datatype
        np.testing.assert_array_equal(tensor.array, array)
    assert (read.id, read.parameters) == ("mine", {"top_k": 3})
    (output,) = read.outputs
    assert output == RequestedOutput(name="y", parameters={"binary_data": True, "classification": 2})


@given(named_arrays(), st.data())
def test_answers_as_tritonclient_reads_them(given: dict[str, tuple[str, NDArray[Any]]], data: st.DataObject) -> None:
    binary = {name: data.draw(st.sampled_from([None, False, True])) for name in given}
    asked = [
        RequestedOutput(name=name, parameters={} if wanted is None else {"binary_data": wanted})
        for name, wanted in binary.items()
    ]
    by_default = data.draw(st.booleans())
    request = InferRequest(inputs=[], outputs=asked, parameters={"binary_data_output": by_default})
    outputs = [Tensor(name, array) for name, (_, array) in given.items()]
    answer = InferResponse(model_name="m", model_version="1", outputs=outputs, id="mine")
    body, length = write_response(answer, request)
    assert (length is None) == (not any(by_default if wanted is None else wanted for wanted in binary.values()))
    read = client.InferenceServerClient.parse_response_body(body, header_length=length)
    described = read.get_response()
    assert (described["id"], described["model_name"], described["model_version"]) == ("mine", "m", "1")
    for name, (datatype, array) in given.items():
        output = read.get_output(name)
        assert (output["datatype"], output["shape"]) == (datatype, list(array.shape))
        assert ("data" in output) != ("binary_data_size" in output.get("parameters", {}))
        if "data" in output:  # not by as_numpy, which knows neither FP16 nor texts in JSON
            found = np.array(output["data"], DTYPES[datatype]).reshape(array.shape)
        else:
            found = read.as_numpy(name)
            if datatype == "BYTES":
                found = np.array([text.decode() for text in found.flat], object).reshape(array.shape)
        np.testing.assert_array_equal(found, array)


NESTED = [
    ([2, 2], [1, 2, 3, 4]),
    ([2, 2], [[1, 2], [3, 4]]),
    ([1, 2, 2], [[[1, 2], [3, 4]]]),
    ([2, 0], [[], []]),
    ([2, 0, 3], [[], []]),
    ([0, 2], []),
    ([], [5]),
]


@pytest.mark.parametrize(("shape", "data"), NESTED)
def test_data_may_be_nested_or_flat(shape: list[int], data: list[Any]) -> None:
    body = {"inputs": [{"name": "x", "datatype": "INT32", "shape": shape, "data": data}]}
    (tensor,) = read_request(json.dumps(body).encode(), None, 8).inputs
    np.testing.assert_array_equal(tensor.array, np.array(data, np.int32).reshape(shape))


def with_input(**fields: Any) -> dict[str, Any]:
    """Return a request with one input, two numbers; fields that are `...` are left out."""
    entry = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | fields
    return {"inputs": [{key: value for key, value in entry.items() if value is not ...}]}


SIZE = {"binary_data_size": 8}
WRONG: list[tuple[Any, str]] = [
    (b"", "the body is no JSON"),
    (b"\xff{}", "the body is no JSON"),
    (b"{} {}", "the body is no JSON"),
    (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}', "the body is no JSON"),
    (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1e999]}]}', "the body is no JSON"),
    (b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}', "the body is no JSON"),
    ([], "must be a JSON object, got list"),
    ({}, "the request needs inputs, a list of tensors"),
    ({"inputs": []}, "the request needs inputs"),
    ({"inputs": {}}, "inputs must be a list of objects"),
    ({"inputs": [1]}, "inputs must be a list of objects"),
    (with_input() | {"outputs": "y"}, "outputs must be a list of objects"),
    (with_input() | {"outputs": [{"name": 1}]}, "each of the outputs needs a name, a text, got 1"),
    (with_input() | {"outputs": [{"name": "y", "parameters": []}]}, "parameters must be an object, got list"),
    (with_input() | {"id": 1}, "the request's id must be a text, got int"),
    (with_input() | {"parameters": 1}, "parameters must be an object, got int"),
    (with_input(name=...), "each of the inputs needs a name, a text, got None"),
    (with_input(parameters=[]), "parameters must be an object, got list"),
    (with_input(datatype=...), "'x' needs a datatype of BOOL"),
    (with_input(datatype="FP8"), "got 'FP8'"),
    (with_input(shape=...), "'x' needs a shape"),
    (with_input(shape=[-2]), "has the length -2"),
    (with_input(shape=[2**40, 2**40, 0], data=[]), "more than 2**60 elements"),
    (with_input(shape=[1] * 65, data=[1]), "a shape of 65 lengths"),
    (with_input(data=...), "needs data, a list, or binary_data_size"),
    (with_input(data=None), "needs data, a list"),
    (with_input(data="12"), "needs data, a list"),
    (with_input(data={"0": 1}), "needs data, a list"),
    (with_input(data=[1]), "of shape [2] needs 2 values, got 1"),
    (with_input(data=[1, 2, 3]), "needs 2 values, got 3"),
    (with_input(data=[[1], [2, 3]]), "nested data of unequal lengths"),
    (with_input(data=[[1], 2]), "nested data of unequal lengths"),
    (with_input(data=[[1], [2]]), "of shape [2] has nested data of the shape [2, 1]"),
    (with_input(shape=[2, 1], data=[[1, 2]]), "of shape [2, 1] has nested data of the shape [1, 2]"),
    (with_input(shape=[2, 0], data=[[]]), "of shape [2, 0] has nested data of the shape [1, 0]"),
    (with_input(data=[1, [2]]), "has data of the type list"),
    (with_input(data=[1, None]), "has data of the type NoneType"),
    (with_input(data=[1, "2"]), "of FP32 has data of the type str"),
    (with_input(data=[1, True]), "of FP32 has data of the type bool"),
    (with_input(data=[1, {}]), "has data of the type dict"),
    (with_input(data=[1, 1e39]), "has values that FP32 can't hold"),
    (with_input(data=[1, 10**39]), "has values that FP32 can't hold"),
    (with_input(datatype="FP16", data=[1, 65520]), "has values that FP16 can't hold"),
    (with_input(datatype="INT32", data=[1, 2.0]), "of INT32 has data of the type float"),
    (with_input(datatype="INT8", data=[1, 128]), "has values that INT8 can't hold"),
    (with_input(datatype="UINT8", data=[1, -1]), "has values that UINT8 can't hold"),
    (with_input(datatype="UINT64", data=[1, -1]), "has values that UINT64 can't hold"),
    (with_input(datatype="INT64", data=[1, 2**63]), "has values that INT64 can't hold"),
    (with_input(datatype="INT64", data=[1, 2**64]), "of INT64 has data of the type float"),
    (with_input(datatype="BOOL", data=[True, 1]), "of BOOL has data of the type int"),
    (with_input(datatype="BYTES", data=["a", 1]), "needs a datatype of BOOL, UINT8"),
    (with_input(datatype="BYTES", data=["a", "b"]), "got 'BYTES'"),
    (with_input(parameters=SIZE), "has the binary_data_size 8, and 0 bytes are left"),
]


@pytest.mark.parametrize(("body", "part"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_no_request(body: Any, part: str) -> None:
    with pytest.raises(Refusal, match=re.escape(part)) as caught:
        read_request(body if isinstance(body, bytes) else json.dumps(body).encode(), None, 8)
    assert caught.value.cause is Cause.INVALID


BINARY: list[tuple[dict[str, Any], int, bytes, str]] = [
    (with_input(data=..., parameters=SIZE), -1, bytes(8), "inference-header-content-length is -1"),
    (
        with_input(data=..., parameters=SIZE),
        1000,
        bytes(8),
        "inference-header-content-length is 1000, and the body has",
    ),
    (with_input(data=..., parameters=SIZE), 0, bytes(7), "binary_data_size 8, and 7 bytes are left"),
    (with_input(data=..., parameters=SIZE), 0, bytes(9), "1 bytes are left after the last input"),
    (with_input(parameters=SIZE), 0, bytes(8), "has both data and binary_data_size"),
    (with_input(), 0, bytes(1), "1 bytes are left after the last input"),
    (with_input(data=..., parameters={"binary_data_size": -1}), 0, bytes(8), "has the binary_data_size -1"),
    (with_input(data=..., parameters={"binary_data_size": True}), 0, bytes(8), "has the binary_data_size True"),
    (with_input(data=..., parameters={"binary_data_size": 8.0}), 0, bytes(8), "has the binary_data_size 8.0"),
    (with_input(data=..., shape=[3], parameters=SIZE), 0, bytes(8), "needs 12 bytes, got 8"),
    (with_input(data=..., shape=..., parameters=SIZE), 0, bytes(8), "needs a shape"),
    (with_input(data=..., datatype="BYTES", parameters=SIZE), 0, bytes(8), "got 'BYTES'"),  # two empty texts
]


@pytest.mark.parametrize(("content", "length", "raw", "part"), BINARY)
def test_binary_tensors_that_do_not_fit(content: dict[str, Any], length: int, raw: bytes, part: str) -> None:
    text = json.dumps(content).encode()
    with pytest.raises(Refusal, match=re.escape(part)):
        read_request(text + raw, length or len(text), 8)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
WORDS = st.sampled_from(["x", "FP32", "INT64", "BYTES", "BOOL", "binary_data_size", "data"])
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": WORDS | JSON,
        "datatype": WORDS | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(st.integers(0, 3) | st.floats() | JSON, max_size=4),
        "parameters": st.dictionaries(WORDS, st.integers(-1, 20) | JSON, max_size=2) | JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRY, max_size=3) | JSON},
    optional={"outputs": st.lists(ENTRY, max_size=2) | JSON, "id": JSON, "parameters": JSON},
)


@given(st.one_of(st.binary(), JSON, REQUEST), st.binary(max_size=20), st.none() | st.integers(-2, 300))
def test_any_body_is_read_or_refused(content: Any, raw: bytes, length: int | None) -> None:
    """Not even an unexpected error is raised."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with suppress(Refusal):
        assert read_request(text + raw, len(text) if length == 300 else length, 16).inputs


def deep(content: Any) -> int:
    """Return the depth by recursion."""
    if not isinstance(content, (list, dict)):
        return 0
    return 1 + max(map(deep, content.values() if isinstance(content, dict) else content), default=0)


@given(st.recursive(JSON | st.text('[]{}\\"'), lambda inner: st.lists(inner, max_size=3)), st.booleans())
def test_depth_is_that_of_the_content(content: Any, ascii_only: bool) -> None:
    text = json.dumps(content, ensure_ascii=ascii_only).encode()
    assert depth(text) == deep(content)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 20_000 + b"]" * 20_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"[" * 20_000,
        b"[" * 33 + b'"' + rb"\"" * 4_000_000,  # a text that never ends, and might at each of its letters
        b"[" * 33 + b'"' + b"\\" * 8_000_001,
        b'"' * 8_000_000 + b"[" * 33,
    ],
    ids=["lists", "objects", "unclosed", "quotes", "backslashes", "texts"],
)
def test_json_that_is_too_deep_is_not_parsed(text: bytes) -> None:
    with pytest.raises(Refusal, match="the JSON is deeper than 32 lists and objects"):
        parse(text, 32)


def test_brackets_in_texts_are_not_deep() -> None:
    assert parse(json.dumps({"a": "[" * 100, "b": '\\"[{' * 50}).encode(), 1)["a"] == "[" * 100


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_json_can_not_say_goes_as_bytes(value: float, dtype: type) -> None:
    output = Tensor("y", np.array([1, value], dtype))
    answer = InferResponse(model_name="m", model_version="1", outputs=[output])
    with pytest.raises(Refusal, match="the output 'y' is not finite, which JSON can't say; ask for binary data"):
        write_response(answer, InferRequest(inputs=[]))
    body, length = write_response(answer, InferRequest(inputs=[], parameters={"binary_data_output": True}))
    read = client.InferenceServerClient.parse_response_body(body, header_length=length).as_numpy("y")
    np.testing.assert_array_equal(read, output.array)


@pytest.mark.parametrize("value", ["true", 1, None])
def test_flags_are_true_or_false(value: object) -> None:
    answer = InferResponse(model_name="m", model_version="1", outputs=[Tensor("y", np.zeros(1))])
    for request in (
        InferRequest(inputs=[], parameters={"binary_data_output": value}),
        InferRequest(inputs=[], outputs=[RequestedOutput(name="y", parameters={"binary_data": value})]),
    ):
        with pytest.raises(Refusal, match=rf"binary_data\w* must be true or false, got {value!r}"):
            write_response(answer, request)


def test_floats_come_back_as_they_were() -> None:
    """The shortest text of a float32 is not that of the same number as float64."""
    x = np.random.default_rng(0).random(1000, np.float32)
    body, _ = write_response(
        InferResponse(model_name="m", model_version="1", outputs=[Tensor("y", x)]), InferRequest(inputs=[])
    )
    (output,) = json.loads(body)["outputs"]
    assert output["datatype"] == triton.np_to_triton_dtype(np.float32)
    np.testing.assert_array_equal(np.array(output["data"], np.float32), x)
