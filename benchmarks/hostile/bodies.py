"""Hostile bodies of inference requests: JSON, binary tensors, and what compresses well."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from random import Random
from typing import Any

from hostile.talk import Case, Kind, Target, request

INFER = "/v2/models/image/infer"
SHAPE = [1, 1, 28, 28]
SIZE = 784
ANSWERED = frozenset({200})


def valid() -> dict[str, Any]:
    """Return a request that is right."""
    return {"inputs": [{"name": "x", "shape": SHAPE, "datatype": "FP32", "data": [0.5] * SIZE}]}


def post(content: Any, may: frozenset[int] = frozenset(), path: str = INFER) -> Case:
    """Return a request with a body, or with JSON of something."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Case(send=[request("POST", path, body)], may=may)


def binary(content: dict[str, Any], raw: bytes, length: bytes | None = None, may: frozenset[int] = frozenset()) -> Case:
    """Return a request with binary tensors."""
    text = json.dumps(content).encode()
    header = b"Inference-Header-Content-Length: " + (str(len(text)).encode() if length is None else length)
    return Case(send=[request("POST", INFER, text + raw, header)], may=may)


def with_input(**changes: Any) -> dict[str, Any]:
    """Return the right request with another input."""
    return {"inputs": [valid()["inputs"][0] | changes]}


def truncated_json(random: Random, target: Target) -> Case:
    """JSON that ends early."""
    text = json.dumps(valid()).encode()
    return post(text[: random.randrange(len(text))])


def garbage(random: Random, target: Target) -> Case:
    """Bytes of any value."""
    return post(random.randbytes(random.choice([1, 10, 1000, 100_000])))


def deep_json(random: Random, target: Target) -> Case:
    """JSON of 20,000 lists and objects in each other, closed or not, here and there."""
    deep, opening, closing = 20_000, *random.choice([("[", "]"), ('{"a":', "}"), ('[{"":[', "]}]")])
    nested = opening * deep + "1" + closing * random.choice([deep, 0, deep // 2])
    hiding = "[" * 40 + '"' + '\\"' * 100_000 + "%s"  # quotes, in a text without an end
    forms = [
        "%s",
        '{"inputs": %s}',
        '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": %s}]}',
        hiding,
    ]
    forms += ['{"parameters": {"a": %s}}', '{"inputs": [{"name": "x", "shape": %s}]}', '{"id": "\\"[[[", "inputs": %s}']
    form = random.choice(forms)
    return post((form % nested).encode())


WRONG: list[Any] = [None, True, -1, 1.5, 2**63, 10**30, "", "x", [], {}, [[]], [None], {"a": {}}]


def wrong_types(random: Random, target: Target) -> Case:
    """A field of another type than the protocol's."""
    content = valid()
    place, key, right = random.choice(
        [
            (content, "inputs", ()),
            (content, "outputs", ([],)),
            (content, "parameters", ({}, {"a": {}})),
            (content, "id", ("", "x")),
            (content["inputs"][0], "name", ()),
            (content["inputs"][0], "shape", ()),
            (content["inputs"][0], "datatype", ()),
            (content["inputs"][0], "data", ()),
            (content["inputs"][0], "parameters", ({}, {"a": {}})),
        ]
    )
    place[key] = random.choice([value for value in WRONG if not any(value == each for each in right)])
    return post(content)


def wrong_datatypes(random: Random, target: Target) -> Case:
    """A datatype that the model does not take, or that there is not."""
    names = [
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP64",
        "BYTES",
        "BF16",
        "fp32",
        "FP32\x00",
        "float32",
        "FP32;",
    ]
    datatype = random.choice([*names, "F" * 100_000, "\x1b[2J", "\u202e"])
    if random.random() < 0.5:
        return post(with_input(datatype=datatype, data=random.choice([[0] * SIZE, [True] * SIZE, ["x"] * SIZE])))
    entry = {"name": "x", "shape": SHAPE, "datatype": datatype, "parameters": {"binary_data_size": 4 * SIZE}}
    return binary({"inputs": [entry]}, bytes(4 * SIZE))


def wrong_shapes(random: Random, target: Target) -> Case:
    """A shape that the data do not have, or the model does not take."""
    shape = random.choice(
        [
            [],
            [SIZE],
            [1, SIZE],
            [1, 28, 28, 1],
            [1, 1, 28, 27],
            [2, *SHAPE[1:]],
            [-1, *SHAPE[1:]],
            [1, -1, -28, 28],
            [1.0, *SHAPE[1:]],
            [True, *SHAPE[1:]],
            ["1", *SHAPE[1:]],
            [None],
            [[1], 1, 28, 28],
            [1, 1, 28, 0],
            [1] * 200,
        ]
    )
    return post(with_input(shape=shape))


def empty_batches(random: Random, target: Target) -> Case:
    """No rows at all; to such a request an answer without rows is right."""
    shape = random.choice([[0, *SHAPE[1:]], [0], [0, 0, 0, 0], [0, 1, 28, 2**40], [1, 0, 28, 28]])
    return post(with_input(shape=shape, data=[]), ANSWERED)


def overflowing_shapes(random: Random, target: Target) -> Case:
    """Products of lengths beyond 64 bits, or beyond any memory."""
    shape = random.choice(
        [
            [2**32, 2**32],
            [2**31, 2**31, 4],
            [2**63 - 1],
            [2**63],
            [2**64 + 1],
            [3] * 60,
            [0, 2**62],
            [2**62, 0, 2**62],
            [1] * 100000,
            [2**63 - 1] * 20000,
            [65536] * 4,
            [2**40, *SHAPE[1:]],
            [-(2**63)],
        ]
    )
    if random.random() < 0.5:
        return post(with_input(shape=shape))
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": 0}}
    return binary({"inputs": [entry]}, b"")


def many_rows(random: Random, target: Target) -> Case:
    """More rows than the server takes."""
    rows = random.choice([4097, 10_000])
    entry = {"name": "i", "shape": [rows], "datatype": "INT64", "data": [0] * rows}
    return post({"inputs": [entry]}, path="/v2/models/lookup/infer")


def not_finite(random: Random, target: Target) -> Case:
    """NaN and infinities, as JSON's texts and as bytes; bytes may be answered."""
    if random.random() < 0.5:
        word = random.choice(["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "3.5e38", "1" + "0" * 400])
        return post(json.dumps(with_input(data=[7777] * SIZE)).replace("7777", word).encode())
    entry = {"name": "x", "shape": SHAPE, "datatype": "FP32", "parameters": {"binary_data_size": 4 * SIZE}}
    value = struct.pack("<f", random.choice([float("nan"), float("inf"), float("-inf"), 3e38]))
    return binary({"inputs": [entry]}, value * SIZE, may=ANSWERED)


def unusable_values(random: Random, target: Target) -> Case:
    """Numbers that the model's operators refuse: indices of nothing."""
    value = random.choice([-(2**63), 2**63 - 1, 10, -11, 2**40, 2**63, 1.5, 1e30, "1", None, True])
    entry = {"name": "i", "shape": [2], "datatype": "INT64", "data": [0, value]}
    return post({"inputs": [entry]}, path="/v2/models/lookup/infer")


def binary_lengths(random: Random, target: Target) -> Case:
    """Lengths of JSON and tensors that the body does not have."""
    sizes = [-1, 0, 1, 4 * SIZE - 1, 4 * SIZE + 1, 2**31, 2**63 - 1, 2**64, 10**30, 1.5, "3136", None, True, [1], {}]
    size = random.choice([4 * SIZE, *sizes])
    raw = bytes(random.choice([0, 4 * SIZE - 1, 4 * SIZE + 1]) if size == 4 * SIZE else 4 * SIZE)
    lengths = [b"-1", b"1e3", b"0x10", b"99999999", b"9" * 5000, b"", b"\xb2", b"1, 2", b"+5", b"0", b"12"]
    length = random.choice([None, random.choice(lengths)])
    entry = {"name": "x", "shape": SHAPE, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    return binary({"inputs": [entry]}, raw, length)


def bytes_tensors(random: Random, target: Target) -> Case:
    """Texts whose lengths are wrong, or that are none."""
    raw = random.choice(
        [
            b"\xff\xff\xff\xff",
            b"\1\0\0",
            b"\5\0\0\0abc",
            b"\1\0\0\0\xff",
            b"\0\0\0\0" * 3,
            bytes(400_000),
            b"\1\0\0\0a\0",
        ]
    )
    entry = {"name": "x", "datatype": "BYTES", "shape": random.choice([[1], [0], [2**40], [1, 1]])}
    return binary({"inputs": [entry | {"parameters": {"binary_data_size": len(raw)}}]}, raw)


def inputs_and_outputs(random: Random, target: Target) -> Case:
    """Inputs and outputs that are missing, unknown, there twice, or many."""
    good, content = valid()["inputs"][0], valid()
    content["inputs"] = random.choice(
        [
            [],
            [good, good],
            [good | {"name": "y"}],
            [good, good | {"name": "y"}],
            [good | {"name": "x" * 100000}],
            [{"name": str(i), "shape": [1], "datatype": "FP32", "data": [1]} for i in range(5000)],
            [good | {"parameters": {"binary_data_size": 4}}],
            [{"name": "x"}],
            [{}],
            [good],
        ]
    )
    if content["inputs"] == [good]:
        content["outputs"] = random.choice(
            [
                [{"name": "z"}],
                [{"name": "y"}] * 2,
                [{"name": str(i)} for i in range(20_000)],
                [{}],
                [{"name": "\x1b[1m"}],
            ]
        )
    return post(content)


def bad_parameters(random: Random, target: Target) -> Case:
    """Parameters that are no numbers or flags; a k beyond all classes may be answered."""
    content, values = valid(), [-1, 1.5, "x", None, [], {}, 2**63, -(2**63)]
    key = random.choice(["classification", "binary_data", "top_k", "probabilities", "timeout", "binary_data_output"])
    value = random.choice(values)
    if key in ("classification", "binary_data"):
        content["outputs"] = [{"name": "y", "parameters": {key: value}}]
        kind = key
    else:
        content["parameters"] = {key: value}
        kind = key
    may = ANSWERED if value == 2**63 or (value is None and kind in ("classification",)) else frozenset()
    return post(content, may)


def huge_texts(random: Random, target: Target) -> Case:
    """Long ids, and texts of controls and escapes; an id comes back as it is."""
    text = random.choice(["x" * 500_000, "\x1b]0;owned\x07" * 1000, "\r\nSet-Cookie: a=b\r\n", "\0", "\u202e", '"}'])
    if random.random() < 0.5:
        return post(valid() | {"id": text}, ANSWERED)
    return post(with_input(name=text))


def odd_json(random: Random, target: Target) -> Case:
    """JSON that parsers do not agree on; the last of two equal keys counts, or nothing."""
    text = json.dumps(valid())
    bodies = [text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.encode() + b"{}", b"", b"null", b"[]", b"1"]
    bodies += [b'"\\ud800"', b'{"id": "\\ud800"}', b'{"id": "\xff"}', text.replace("}]", "},]").encode(), b"{'a': 1}"]
    bodies += [b'{"inputs": [' + b"{}," * 300_000 + b"{}]}", b'{"inputs": [' + b"[]," * 300_000 + b"[]]}"]
    bodies += [b'{"id": "a", ' + text.encode()[1:].replace(b'"inputs"', b'"inputs": 5, "inputs"')]
    chosen = random.choice(bodies)
    return post(chosen, ANSWERED if chosen is bodies[-1] else frozenset())


def bombs(random: Random, target: Target) -> Case:
    """Bodies that are compressed, and small for what is in them."""
    packed = gzip.compress(bytes(8 * target.max_body) if random.random() < 0.1 else json.dumps(valid()).encode())
    name = random.choice([b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"compress", b"x" * 5000, b"\x1b[2J"])
    return Case(send=[request("POST", INFER, packed, b"Content-Encoding: " + name)])


def oversized(random: Random, target: Target) -> Case:
    """A body that is too large, declared or in chunks, sent or not."""
    size = target.max_body + random.choice([1, 2**20, 2**40, 2**60])
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n" % INFER.encode()
    whole = [b"x" * min(size, target.max_body + 2**20)]
    if random.random() < 0.3:
        chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
        return Case(send=[head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * (target.max_body // 2**16 + 3)])
    return Case(send=[head + b"Content-Length: %d\r\n\r\n" % size, *random.choice([[], whole])])


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        truncated_json,
        garbage,
        deep_json,
        wrong_types,
        wrong_datatypes,
        wrong_shapes,
        empty_batches,
        overflowing_shapes,
        many_rows,
        not_finite,
        unusable_values,
        binary_lengths,
        bytes_tensors,
        inputs_and_outputs,
        bad_parameters,
        huge_texts,
        odd_json,
        bombs,
        oversized,
    )
}


def for_neurons(random: Random, target: Target) -> Case:
    """Any of these bodies, to where the page asks what neurons did."""
    case = random.choice([*KINDS.values()])(random, target)
    first, *rest = case.send
    assert isinstance(first, bytes)
    return replace(case, send=[first.replace(b"/infer HTTP", b"/neurons HTTP", 1), *rest])
