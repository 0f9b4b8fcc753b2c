"""`smx serve` as a user runs it: its models, its answers, its key, its end."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
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

from tests.conftest import all_refused, refused, smx, smx_many
from tests.runtime.fakes import PLUS_ONE, PLUS_TWO, save
from tests.runtime.serving import models
from tests.runtime.serving.clients import KINDS, client
from tests.runtime.serving.process import Running, serving
from tests.test_nothing_outside import STRACE

RNG = np.random.default_rng(0)
KEY = "a-key-of-this-test"
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


def test_files_are_replaced_added_and_removed_while_the_server_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")

    def put(content: str | bytes, name: str = "m.onnx") -> None:
        fresh = tmp_path / ".fresh"
        fresh.write_bytes(content) if isinstance(content, bytes) else save(fresh, content)
        os.replace(fresh, tmp_path / name)  # noqa: PTH105

    with serving(tmp_path, "--poll", "0.05", grpc=False) as server:
        opened = http.InferenceServerClient(server.http)
        entry = http.InferInput("x", [1, 3], "FP32")
        entry.set_data_from_numpy(np.zeros((1, 3), np.float32))

        def answer(model: str = "m") -> float:
            return float(opened.infer(model, [entry]).as_numpy("y")[0, 0])

        assert answer() == 1
        put(PLUS_TWO)
        until(lambda: answer() == 2)
        put(b"hello")
        until(lambda: server.events("refused"))
        (event,) = server.events("refused")
        assert (event["model"], event["still_serving"]) == ("m", True)
        assert "m.onnx is no model that ONNX Runtime can load" in event["reason"]
        assert answer() == 2
        assert opened.is_server_ready()
        assert "m.onnx is no model" in opened.get_model_repository_index()[0]["reason"]
        put(PLUS_ONE)
        until(lambda: answer() == 1)
        put(PLUS_TWO, "new.onnx")
        until(lambda: opened.is_model_ready("new"))
        assert answer("new") == 2
        path.unlink()
        until(lambda: not opened.is_model_ready("m"))
        with pytest.raises(InferenceServerException, match="there is no model 'm' here"):
            answer()
        opened.close()
        assert server.end(signal.SIGINT) == 130


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    subprocess.run([*command.split(), *names, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    return made


def test_a_key_and_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    path = models.make(tmp_path / "m.onnx")
    x = RNG.random((2, 4), np.float32)
    wrong: tuple[dict[str, str], ...] = {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {}
    with serving(path, "--tls-cert", cert, "--tls-key", key, env={**os.environ, "SMX_API_KEY": KEY}) as server:
        assert server.url.startswith("https://")
        trusted = {"ssl": True, "ssl_context_factory": lambda: ssl.create_default_context(cafile=cert)}
        for module, address, options, names in (
            (http, server.http, trusted, ("Authorization", "UNAUTHENTICATED")),
            (grpc, server.grpc, {"ssl": True, "root_certificates": str(cert)}, ("authorization", "")),
        ):
            opened = module.InferenceServerClient(address, **options)
            entry = module.InferInput("x", [2, 4], "FP32")
            entry.set_data_from_numpy(x)
            assert opened.is_server_live()  # probes need no key
            assert opened.is_server_ready()
            found = opened.infer("m", [entry], headers={names[0]: f"Bearer {KEY}"}).as_numpy("y")
            np.testing.assert_allclose(found, x @ models.WEIGHTS["w"], rtol=1e-5, atol=1e-6)
            for headers in wrong:
                lower = {name.lower() if module is grpc else name: value for name, value in headers.items()}
                with pytest.raises(InferenceServerException, match="this server needs a key"):
                    opened.infer("m", [entry], headers=lower)
                with pytest.raises(InferenceServerException, match="this server needs a key"):
                    opened.get_model_metadata("m", headers=lower)
            opened.close()
        untrusted = http.InferenceServerClient(server.http, ssl=True)
        with pytest.raises(ssl.SSLError):
            untrusted.is_server_live()
        untrusted.close()
        assert KEY not in server.log.read_text()


def test_settings_that_are_wrong(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    path = models.make(tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "key").write_text("short")
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    (tmp_path / "m.onnx.tune.json").write_text("{")
    port = ("--port", "0")
    all_refused(
        (("serve", tmp_path / "none.onnx", *port), "none.onnx does not exist"),
        (("serve", tmp_path / "bad.onnx", *port), "bad.onnx is no model that ONNX Runtime can load"),
        (("serve", tmp_path / "empty", *port), "empty holds no NAME.onnx and no NAME/VERSION/model.onnx"),
        (("serve", path, *port), "m.onnx.tune.json can't be read"),
        (("serve", path, *port, "--tls-cert", cert), "TLS needs both a certificate and its key"),
        (("serve", path, *port, "--tls-cert", key, "--tls-key", cert), "are no certificate and key"),
        (("serve", path, *port, "--api-key-file", tmp_path / "key"), "key must hold a key of at least 8"),
        (("serve", path, *port, "--api-key-file", tmp_path / "binary"), "binary must hold a key of at least 8"),
        (
            ("serve", models.make(tmp_path / "n.onnx"), *port, "--provider", "tensorrt"),
            "the provider 'tensorrt' is not in this ONNX",
        ),
    )


def test_ports_that_are_in_use(tmp_path: Path) -> None:
    path = models.make(tmp_path / "m.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for result, part in zip(
            smx_many(
                ("serve", path, "--port", port),
                ("serve", path, "--port", "0", "--grpc-port", port),
                ("serve", path, "--port", "0", "--host", "192.0.2.1"),
            ),
            (f"can't listen on 127.0.0.1 port {port}: ", f"can't listen on 127.0.0.1:{port}", "192.0.2.1 port 0"),
            strict=True,
        ):
            refused(result, 1, part)
            assert result.stdout == ""


@pytest.mark.skipif(not STRACE, reason="needs strace")
def test_nothing_is_written_and_nobody_is_called(tmp_path: Path) -> None:
    """The server itself must get the signal, so that strace runs beside it (-D)."""
    path, trace, home = models.make(tmp_path / "m.onnx"), tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    calls = "openat,open,creat,mkdir,mkdirat,connect,sendto,sendmsg,sendmmsg"
    prefix = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(trace))
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    env |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(path, env=env, prefix=prefix) as server, client("http", server) as ask:
        ask("m", [{"x": np.zeros((1, 4), np.float32)}], ("y",))
    assert list(home.iterdir()) == []
    lines = trace.read_text(errors="replace").splitlines()
    assert any("m.onnx" in line for line in lines)
    written = [line for line in lines if re.search("O_WRONLY|O_RDWR|O_CREAT|mkdir|creat", line) and "= -1" not in line]
    allowed = ('"/dev/', '"/proc/', f'"{home}/')
    assert [line for line in written if not any(part in line for part in allowed)] == []
    # 127.0.0.1 and ::1 answer clients, or are tried by gRPC to learn which kinds of addresses there are.
    assert [line for line in lines if re.search(r"connect\(.*AF_INET", line) and "127.0.0.1" not in line] == []


def test_help_loads_no_server() -> None:
    result = smx("serve", "--help")
    assert result.returncode == 0
    code = "import sys, smx.cli.serve; print({'uvicorn', 'grpc', 'onnxruntime'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
