"""All of MNIST's test images through all clients; files replaced, and the server ended, while clients ask."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray

from tests.conftest import smx
from tests.runtime.fakes import HEAD, save
from tests.runtime.serving import models
from tests.runtime.serving.clients import KINDS, Arrays, client
from tests.runtime.serving.process import Running, serving

pytestmark = pytest.mark.serving


def images(folder: Path, which: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read MNIST's own files: images (B, 784) in [0, 1], and labels (B)."""
    raw = folder / "MNIST" / "raw"
    pixels = np.frombuffer((raw / f"{which}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((raw / f"{which}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return (pixels.reshape(-1, 784) / 255).astype(np.float32), labels


@pytest.fixture(scope="module")
def mnist(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported network that knows digits a little."""
    folder = tmp_path_factory.mktemp("mnist")
    options = ("--hidden", "64,32", "--lr", "0.003", "--phase1-epochs", "1", "--phase2-epochs", "1", "--device", "cpu")
    for arguments in (
        ("train", "--data", "mnist", *options, "--out", folder / "run"),
        ("export", folder / "run" / "model.pt", folder / "mnist.onnx"),
    ):
        result = smx(*arguments)
        assert result.returncode == 0, result.stderr
    return folder / "mnist.onnx"


@pytest.fixture(scope="module")
def expected(mnist: Path, mnist_dir: Path) -> Any:
    """Return images, labels and what onnxruntime makes of the images."""
    x, labels = images(mnist_dir, "t10k")
    assert x.shape == (10_000, 784)
    (scores,) = onnxruntime.InferenceSession(mnist).run(None, {"input": x})
    assert (scores.argmax(1) == labels).mean() > 0.85
    return x, labels, scores


@pytest.mark.parametrize("kind", KINDS)
def test_all_test_images(kind: str, mnist: Path, expected: Any) -> None:
    """Half of them one by one, the rest in batches of many sizes."""
    x, labels, scores = expected
    ends = [*range(5001), *itertools.takewhile(lambda end: end < 10_000, itertools.accumulate([5000, *range(1, 200)]))]
    parts = np.split(x, sorted({*ends[1:]} - {10_000}))
    assert sum(map(len, parts)) == 10_000
    with serving(mnist) as server, client(kind, server) as ask:
        answers = ask("mnist", [{"input": part} for part in parts if len(part)], ("output",))
    found = np.concatenate([answer["output"] for answer in answers])
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-4)
    assert (found.argmax(1) == labels).sum() == (scores.argmax(1) == labels).sum()


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    """Do all at once."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [each.result(120) for each in [pool.submit(each) for each in work]]


def test_fifty_replacements_under_load(tmp_path: Path) -> None:
    """One model adds 1 and the other takes away 1: every answer is wholly the one's or the other's."""
    texts = [
        HEAD + f"(float[b,3] x) => (float[b,3] y) <float one = {{{one}}}> {{ y = Add(x, one) }}" for one in (1, -1)
    ]
    path = save(tmp_path / "m.onnx", texts[0])
    done = threading.Event()
    random = np.random.default_rng(0)

    with serving(path, "--poll", "0.02", "--max-wait", "1") as server:

        def ask(kind: str) -> list[int]:
            """Ask until the end; return how much each answer added."""
            added = []
            x = random.integers(-100, 100, (4, 3)).astype(np.float32)
            inputs: list[Arrays] = [{"x": x[: 1 + i % 4]} for i in range(8)]
            with client(kind, server) as send:
                while not done.is_set():
                    for given, answer in zip(inputs, send("m", inputs, ("y",)), strict=True):
                        (difference,) = {*(answer["y"] - given["x"]).ravel().tolist()}
                        added.append(int(difference))
            return added

        def replace() -> list[int]:
            try:
                for i in range(1, 51):
                    fresh = save(tmp_path / ".fresh", texts[i % 2])
                    os.replace(fresh, path)  # noqa: PTH105
                    end = time.monotonic() + 60
                    while len(server.events("loaded")) <= i:
                        assert time.monotonic() < end
                        time.sleep(0.01)
                    time.sleep(0.05)
            finally:
                done.set()
            return []

        kinds = ("http", "grpc", "http-aio", "grpc-aio", "http-json")
        *answers, _ = in_threads([*(lambda kind=kind: ask(kind) for kind in kinds), replace])
        assert len(server.events("loaded")) == 51
        assert not server.events("refused")
    for kind, added in zip(kinds, answers, strict=True):
        assert {*added} == {1, -1}, kind
        assert len(added) > 20, kind


BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
EXPECTED = (np.array([[1, 2, 3, 4]], np.float32) @ models.WEIGHTS["w"])[0]


class Asker(threading.Thread):
    """Asks over connections that stay open until the server ends.

    Attributes:
        answered: requests with a right answer.
        lost: those that were sent on an accepted connection and not answered.
    """

    def __init__(self, server: Running) -> None:
        super().__init__()
        self.server = server
        self.answered = 0
        self.lost: list[str] = []


class HttpAsker(Asker):
    """Sends as soon as there is an answer; connects anew when the server says that it closes."""

    def run(self) -> None:
        """Ask until the server does not accept connections."""
        host, port = self.server.http.split(":")
        while True:
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                connection.connect()
            except OSError:
                return
            try:
                self.use(connection)
            except OSError as error:
                self.lost.append(repr(error))
                return
            except http.client.HTTPException as error:
                self.lost.append(repr(error))
                return
            finally:
                connection.close()

    def use(self, connection: http.client.HTTPConnection) -> None:
        """Ask until the server says that it closes the connection."""
        while True:
            connection.request("POST", "/v2/models/m/infer", BODY)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            np.testing.assert_allclose(content["outputs"][0]["data"], EXPECTED, rtol=1e-5)
            self.answered += 1
            if answer.will_close:
                return


class GrpcAsker(Asker):
    """Calls until the server takes no more calls: that is UNAVAILABLE, before a call is accepted."""

    def run(self) -> None:
        """Ask until a call is refused."""
        opened = triton.InferenceServerClient(self.server.grpc)
        entry = triton.InferInput("x", [1, 4], "FP32")
        entry.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.float32))
        while True:
            try:
                answer = opened.infer("m", [entry])
            except triton.InferenceServerException as error:
                if not re.search(r"UNAVAILABLE", str(error)):
                    self.lost.append(str(error))
                break
            np.testing.assert_allclose(answer.as_numpy("y")[0], EXPECTED, rtol=1e-5)
            self.answered += 1
        opened.close()


def slow(path: Path) -> Path:
    """Write a model whose runs take a while: a run is on its way whenever a signal comes."""
    body = "(float[b,4] x) => (float[b,3] y) { z0 = Identity(x) "
    body += "".join(
        f"n{i} = MatMul(z{i}, big) s{i} = MatMul(n{i}, back) z{i + 1} = Add(z{i}, s{i}) " for i in range(20)
    )
    weights = models.WEIGHTS | {"big": np.zeros((4, 20_000), np.float32), "back": np.zeros((20_000, 4), np.float32)}
    return models.make(path, body + "y = MatMul(z20, w) }", weights)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_all_that_was_asked_is_answered_at_the_end(by: signal.Signals, tmp_path: Path) -> None:
    with serving(slow(tmp_path / "m.onnx"), "--log-requests") as server:
        askers = [kind(server) for kind in (HttpAsker, GrpcAsker) for _ in range(8)]
        for asker in askers:
            asker.start()
        time.sleep(1)
        code = server.end(by)
        for asker in askers:
            asker.join(60)
        assert code == (0 if by is signal.SIGTERM else 130)
        for asker in askers:
            assert not asker.is_alive()
            assert asker.lost == []
            assert asker.answered > 0
        logged = [event for event in server.events("request") if event["status"] == 200]
        assert len(logged) == sum(asker.answered for asker in askers if isinstance(asker, HttpAsker))


def test_requests_on_idle_connections_are_answered_although_the_signal_came(tmp_path: Path) -> None:
    """They are written before the signal is sent, all at once; the server may see the signal first."""
    with serving(slow(tmp_path / "m.onnx")) as server:
        host, port = server.http.split(":")
        request = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        connections = [socket.create_connection((host, int(port)), 60) for _ in range(50)]
        channel = grpc.insecure_channel(server.grpc)
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        entry = triton.InferInput("x", [1, 4], "FP32")
        entry.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.float32))
        message = triton.service_pb2.ModelInferRequest(
            model_name="m", inputs=[entry._get_tensor()], raw_input_contents=[entry._get_content()]
        ).SerializeToString()
        infer(message)
        for connection in connections:
            connection.sendall(request)
        calls = [infer.future(message) for _ in range(20)]
        time.sleep(0.1)
        assert server.end() == 0
        for connection in connections:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            content = json.loads(answer.read())
            np.testing.assert_allclose(content["outputs"][0]["data"], EXPECTED, rtol=1e-5)
            answer.close()
            connection.close()
        for call in calls:
            answer_message = triton.service_pb2.ModelInferResponse.FromString(call.result(60))
            np.testing.assert_allclose(triton.InferResult(answer_message).as_numpy("y")[0], EXPECTED, rtol=1e-5)
        channel.close()
