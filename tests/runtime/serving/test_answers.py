"""A running `smx serve`: what every client gets."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.runtime.fakes import PLUS_ONE, PLUS_TWO, save
from tests.runtime.serving import models
from tests.runtime.serving.clients import KINDS, client
from tests.runtime.serving.process import Running, serving

RNG = np.random.default_rng(0)
EMPTY: Mapping[str, str] = {}


@pytest.fixture(scope="module")
def folder(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models: single ones, and one in two versions."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(exported, folder / "digits.onnx")
    models.make(folder / "plain.onnx")
    models.make(folder / "grün & 1%2f.onnx")
    models.make(folder / "lstm.onnx", models.LSTM, models.LSTM_WEIGHTS)
    models.make(folder / "pair" / "1" / "model.onnx", models.PAIR)
    for version, text in (("3", PLUS_ONE), ("12", PLUS_TWO)):
        (folder / "plus" / version).mkdir(parents=True)
        save(folder / "plus" / version / "model.onnx", text)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with serving(folder, "--poll", "0.05", "--threads", "1", "--log-requests", "--max-rows", "99") as running:
        yield running


def get(url: str, body: bytes | None = None, headers: Mapping[str, str] = EMPTY) -> tuple[int, Any, Any]:
    """Return status, content and headers of an answer."""
    request = urllib.request.Request(url, body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "null"), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), error.headers


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


CASES: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("digits", "digits.onnx", [{"input": RNG.random((n, 64), np.float32)} for n in (1, 7, 0, 64)]),
    ("plain", "plain.onnx", [{"x": RNG.random((n, 4), np.float32)} for n in (3, 1)]),
    ("lstm", "lstm.onnx", [{"x": RNG.random((n, 5, 3), np.float32)} for n in (1, 4)]),
    (
        "pair",
        "pair/1/model.onnx",
        [{"v": RNG.integers(-9, 9, (n, 3)), "u": RNG.random((n, 2), np.float32)} for n in (2, 5)],
    ),
    ("grün & 1%2f", "plain.onnx", [{"x": RNG.random((2, 4), np.float32)}]),
    ("plus", "plus/12/model.onnx", [{"x": RNG.random((2, 3), np.float32)}]),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_gets_what_onnxruntime_returns(kind: str, server: Running, folder: Path) -> None:
    with client(kind, server) as ask:
        for model, file, inputs in CASES:
            session = onnxruntime.InferenceSession(folder / file)
            names = tuple(output.name for output in session.get_outputs())
            for example, answer in zip(inputs, ask(model, inputs, names), strict=True):
                for name, expected in zip(names, session.run(None, example), strict=True):
                    assert (answer[name].dtype, answer[name].shape) == (expected.dtype, expected.shape)
                    np.testing.assert_allclose(answer[name], expected, rtol=1e-5, atol=1e-5)


def test_an_empty_batch_into_a_recurrent_network(server: Running) -> None:
    for kind in KINDS:
        with client(kind, server) as ask:
            (answer,) = ask("lstm", [{"x": np.zeros((0, 5, 3), np.float32)}], ("y",))
            assert answer["y"].shape == (0, 2)


def test_metadata_and_readiness(server: Running) -> None:
    over_http, over_grpc = http.InferenceServerClient(server.http), grpc.InferenceServerClient(server.grpc)
    for each in (over_http, over_grpc):
        assert each.is_server_live()
        assert each.is_server_ready()
        assert each.is_model_ready("plus")
        assert each.is_model_ready("plus", "3")
        assert not each.is_model_ready("plus", "4")
        assert not each.is_model_ready("none")
    expected = {
        "name": "plus",
        "versions": ["3", "12"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert over_http.get_model_metadata("plus") == expected
    found = over_grpc.get_model_metadata("plus", as_json=True)
    for tensor in (*found["inputs"], *found["outputs"]):
        tensor["shape"] = list(map(int, tensor["shape"]))  # protobuf's JSON has texts for int64
    assert found == expected
    described = over_http.get_server_metadata()
    assert described["name"] == "smx"
    assert over_grpc.get_server_metadata(as_json=True) == described
    index = over_http.get_model_repository_index()
    assert {(each["name"], each["version"], each["state"]) for each in index} == {
        (name, version, "READY")
        for name, version in [
            ("grün & 1%2f", "1"),
            ("digits", "1"),
            ("lstm", "1"),
            ("pair", "1"),
            ("plain", "1"),
            ("plus", "3"),
            ("plus", "12"),
        ]
    }
    assert over_grpc.get_model_repository_index(as_json=True)["models"] == index
    over_http.close()
    over_grpc.close()


def test_a_version_can_be_asked_for(server: Running) -> None:
    x = np.zeros((1, 3), np.float32)
    for module, address in ((http, server.http), (grpc, server.grpc)):
        opened = module.InferenceServerClient(address)
        entry = module.InferInput("x", [1, 3], "FP32")
        entry.set_data_from_numpy(x)
        answers = [opened.infer("plus", [entry], model_version=version) for version in ("3", "12", "")]
        assert [answer.as_numpy("y")[0, 0] for answer in answers] == [1, 2, 2]
        opened.close()


def test_classes(server: Running, folder: Path) -> None:
    x = RNG.random((2, 64), np.float32)
    (scores,) = onnxruntime.InferenceSession(folder / "digits.onnx").run(None, {"input": x})
    order = np.argsort(-scores, axis=1)[:, :3]
    for module, address in ((http, server.http), (grpc, server.grpc)):
        opened = module.InferenceServerClient(address)
        entry = module.InferInput("input", [2, 64], "FP32")
        entry.set_data_from_numpy(x)
        wanted = module.InferRequestedOutput("output", class_count=3)
        found = opened.infer("digits", [entry], outputs=[wanted]).as_numpy("output")
        parts = [[text.decode().split(":") for text in row] for row in found]
        assert [[int(part[1]) for part in row] for row in parts] == order.tolist()
        np.testing.assert_allclose(
            [[float(part[0]) for part in row] for row in parts], np.take_along_axis(scores, order, 1), atol=1e-5
        )
        found = opened.infer("digits", [entry], parameters={"probabilities": True, "top_k": 2})
        odds = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
        probabilities = odds / odds.sum(1, keepdims=True)
        np.testing.assert_allclose(found.as_numpy("probabilities"), probabilities, rtol=1e-4)
        assert found.as_numpy("class_indices").tolist() == order[:, :2].tolist()
        assert [[int(text) for text in row] for row in found.as_numpy("class_names")] == order[:, :2].tolist()
        opened.close()


def test_an_image(server: Running, folder: Path) -> None:
    pixels = RNG.integers(0, 256, (8, 8), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    url = f"{server.url}/v2/models/digits/classify"
    status, answer, _ = get(f"{url}?top_k=2&invert=true", file.getvalue())
    x = (255 - pixels.reshape(1, 64)).astype(np.float32) / 255
    (scores,) = onnxruntime.InferenceSession(folder / "digits.onnx").run(None, {"input": x})
    assert status == 200
    assert [each["index"] for each in answer["classes"]] == np.argsort(-scores[0])[:2].tolist()
    for query, body, part in (
        ("", b"hello", "is no image"),
        ("?top_k=-1", b"", "top_k a whole number"),
        ("?invert=perhaps", b"", "invert must be true or false"),
    ):
        status, answer, _ = get(url + query, body)
        assert (status, set(answer)) == (400, {"error"})
        assert part in answer["error"]


def test_errors_have_the_shape_of_the_protocol(server: Running) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    for path, content, status, part in (
        ("models/plain/infer", b"{", 400, "is no JSON"),
        ("models/plain/infer", json.dumps(body | {"id": 1}).encode(), 400, "id must be a text"),
        ("models/none/infer", json.dumps(body).encode(), 404, "there is no model 'none' here"),
        ("models/plus/versions/9/infer", json.dumps(body).encode(), 404, "there is no version '9' of the model 'plus'"),
        ("models/..%2f..%2fetc/infer", json.dumps(body).encode(), 404, ""),
        ("models/plain/infer", None, 405, ""),
        ("nothing", None, 404, ""),
        ("models/none", None, 404, "there is no model 'none' here"),
    ):
        found, answer, headers = get(f"{server.url}/v2/{path}", content)
        assert (found, set(answer), headers["content-type"]) == (status, {"error"}, "application/json"), path
        assert part in answer["error"]
    opened = grpc.InferenceServerClient(server.grpc)
    for model, shape, code, part in (
        ("none", [1, 4], "NOT_FOUND", "there is no model 'none' here"),
        ("plain", [1, 5], "INVALID_ARGUMENT", "must have the shape [-1, 4], got [1, 5]"),
        ("plain", [100, 4], "INVALID_ARGUMENT", "a request may have 99 rows, got 100"),
    ):
        entry = grpc.InferInput("x", shape, "FP32")
        entry.set_data_from_numpy(np.zeros(shape, np.float32))
        with pytest.raises(InferenceServerException, match=re.escape(part)) as caught:
            opened.infer(model, [entry])
        assert caught.value.status() == f"StatusCode.{code}"
    opened.close()


def test_requests_have_ids_in_answers_and_in_the_log(server: Running) -> None:
    _, _, headers = get(f"{server.url}/v2/models/plain", headers={"X-Request-Id": "from-a-client.7"})
    assert headers["x-request-id"] == "from-a-client.7"
    _, _, headers = get(f"{server.url}/v2/models/plain", headers={"X-Request-Id": "no id"})
    made = headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)

    def logged() -> list[str]:
        return [event["id"] for event in server.events("request")]

    until(lambda: {"from-a-client.7", made} <= set(logged()))
    (event,) = [event for event in server.events("request") if event["id"] == made]
    assert (event["method"], event["path"], event["status"]) == ("GET", "/v2/models/plain", 200)


def test_calls_are_logged_like_requests(server: Running) -> None:
    opened = grpc.InferenceServerClient(server.grpc)
    opened.get_model_metadata("plain", headers={"x-request-id": "from-a-client.8"})
    with pytest.raises(InferenceServerException):
        opened.get_model_metadata("none", headers={"x-request-id": "from-a-client.9"})
    opened.close()

    def logged() -> dict[str, tuple[str, str]]:
        return {event["id"]: (event["method"], event["status"]) for event in server.events("call")}

    until(lambda: {"from-a-client.8", "from-a-client.9"} <= logged().keys())
    assert logged()["from-a-client.8"] == ("ModelMetadata", "OK")
    assert logged()["from-a-client.9"] == ("ModelMetadata", "NOT_FOUND")


def test_metrics(server: Running) -> None:
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        text = answer.read().decode()
    for part in (
        'smx_requests_total{model="plain",protocol="rest"}',
        'smx_requests_total{model="plain",protocol="grpc"}',
        'smx_model_loads_total{model="plus",outcome="loaded"} 2.0',
        'smx_batch_rows_count{model="digits"}',
    ):
        assert part in text


def test_the_log_says_how_models_are_run(server: Running) -> None:
    (event,) = [event for event in server.events("loaded") if event["model"] == "plain"]
    assert event["settings"] == "1 thread, not spinning, sequential, optimisation all"
    assert event["batched"] is True
    assert server.models == "digits, grün & 1%2f, lstm, pair, plain, plus"
