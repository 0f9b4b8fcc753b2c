"""The page's files and what it asks: headers, no way out of the folder, and the neurons' values as PyTorch has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import smx as package
from smx.figures.style import COLOURS
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.page import RUNTIME_FILES, WEB, picture_size, read_file
from smx.runtime.serving.protocol import Refusal
from smx.runtime.serving.repository import stamp
from tests import reference
from tests.conftest import python, refused, smx
from tests.runtime.fakes import save_wide
from tests.runtime.serving.process import Running, serving

KEY = "a key of letters".replace(" ", "-")


def ask(
    server: Running, path: str, body: Any = None, method: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request as it is: the client does not touch the path."""
    connection = HTTPConnection(server.http, timeout=30)
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method or ("GET" if body is None else "POST"), path, sent, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, content


def request_for(x: np.ndarray[Any, Any], name: str = "input") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}]}


@pytest.fixture(scope="module")
def web_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that looks like onnxruntime-web's, with more in it than the page needs."""
    folder = tmp_path_factory.mktemp("ort") / "dist"
    folder.mkdir()
    for name in (*RUNTIME_FILES, "ort.js", "secret.txt"):
        (folder / name).write_text(f"this is {name}")
    (folder.parent / "secret.mjs").write_text("outside")
    return folder


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Running]:
    with serving(exported, grpc=False) as running:
        yield running


@pytest.fixture(scope="module")
def full_server(exported: Path, web_runtime: Path) -> Iterator[Running]:
    """Return a server with a key and with files for the browser."""
    with serving(exported, "--web-runtime", web_runtime, grpc=False, env=dict(os.environ, SMX_API_KEY=KEY)) as running:
        yield running


# --- files


def directives(policy: str) -> dict[str, set[str]]:
    return {name: {*values} for name, *values in (part.split() for part in policy.split(";"))}


STRICT = {name: {"'none'"} for name in ("default-src", "base-uri", "form-action", "frame-ancestors")} | {
    name: {"'self'"} for name in ("script-src", "style-src", "img-src", "connect-src")
}


def test_every_file_has_its_type_and_the_strict_headers(server: Running) -> None:
    names = sorted(path.name for path in WEB.iterdir())
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= {*names}
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path, name in [("/", "index.html"), *((f"/page/{name}", name) for name in names)]:
        status, headers, content = ask(server, path)
        assert (status, content) == (200, (WEB / name).read_bytes())
        assert headers["content-type"].partition(";")[0] == types[Path(name).suffix]
        assert directives(headers["content-security-policy"]) == STRICT
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_only_a_runtime_for_the_browser_allows_webassembly(full_server: Running) -> None:
    _, headers, _ = ask(full_server, "/")
    allowed = STRICT | {"script-src": {"'self'", "'wasm-unsafe-eval'"}}
    assert directives(headers["content-security-policy"]) == allowed


def test_nothing_in_the_page_is_inline_or_elsewhere() -> None:
    html = (WEB / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    for path in WEB.iterdir():
        text = path.read_text()
        addresses = re.findall(r"https?://[^\s\"'`]+", text)
        assert {*addresses} <= {"http://www.w3.org/2000/svg"}, path.name  # a namespace, which nothing loads
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_the_colours_are_those_of_the_figures() -> None:
    found = dict(re.findall(r'(\w+): "(#[0-9a-f]{6})"', (WEB / "colours.js").read_text()))
    assert found == {name: colour for name, colour in COLOURS.items() if name != "identity"}


PATHS = (
    "/page/../page.py",
    "/page/..%2fpage.py",
    "/page/%2e%2e/page.py",
    "/page/..%5cpage.py",
    "/page//etc/passwd",
    "/page/%2fetc%2fpasswd",
    "/page/index.html%00.js",
    "/page/",
    "/page/nothing.js",
    "/web-runtime/secret.txt",
    "/web-runtime/ort.js",
    "/web-runtime/../secret.mjs",
    "/web-runtime/..%2fsecret.mjs",
    "/web-runtime/%2e%2e%2fsecret.mjs",
    "/web-runtime/",
)


def test_no_path_leads_out_of_the_folders(server: Running, full_server: Running) -> None:
    for path in PATHS:
        for each in (server, full_server):
            status, _, content = ask(each, path)
            assert status == 404, path
            assert "error" in json.loads(content)
    for name in RUNTIME_FILES:
        status, headers, content = ask(full_server, f"/web-runtime/{name}")
        assert (status, content) == (200, f"this is {name}".encode())
        assert (
            headers["content-type"].partition(";")[0]
            == {".mjs": "text/javascript", ".wasm": "application/wasm"}[Path(name).suffix]
        )
        assert ask(server, f"/web-runtime/{name}")[0] == 404


def test_the_page_needs_no_key_and_what_it_asks_does(full_server: Running) -> None:
    assert ask(full_server, "/")[0] == ask(full_server, "/page/app.js")[0] == 200
    for path, body in (("about", None), ("file", None), ("neurons", {}), ("infer", {})):
        status, _, content = ask(full_server, f"/v2/models/small/{path}", body)
        assert status == 401, path
        assert "key" in json.loads(content)["error"]
    assert ask(full_server, "/v2/models/small/about", authorization=f"Bearer {KEY}")[0] == 200


def test_the_file_is_given_only_for_the_browser(server: Running, full_server: Running, exported: Path) -> None:
    status, headers, content = ask(full_server, "/v2/models/small/file", authorization=f"Bearer {KEY}")
    assert (status, content) == (200, exported.read_bytes())
    assert headers["content-type"] == "application/octet-stream"
    assert ask(server, "/v2/models/small/file")[0] == 404


@pytest.mark.parametrize("name", ["m.onnx.data", "of any name"])
def test_a_file_is_not_given_without_its_weights(name: str, tmp_path: Path) -> None:
    path = save_wide(tmp_path / "m.onnx", 300, save_as_external_data=True, location=name, size_threshold=0)
    model = ServedModel(path, "m", "1", Loading())
    model.stamp = stamp(path)
    with pytest.raises(Refusal, match="the weights of m are in another file, which is not sent"):
        read_file(model)
    path.write_bytes(b"hello")
    with pytest.raises(Refusal, match="the file of m is no model any more"):
        read_file(model)


def test_a_folder_without_the_runtime_is_refused(exported: Path, tmp_path: Path) -> None:
    refused(smx("serve", exported, "--port", "0", "--web-runtime", tmp_path), 2, "holds no ort.wasm.min.mjs")


# --- about a model


def test_about_says_what_the_file_says(server: Running, exported: Path) -> None:
    about = json.loads(ask(server, "/v2/models/small/about")[2])
    info = package.runtime.Session(exported).info
    assert info is not None
    assert about["architecture"] == info.architecture
    assert about["picture"] == [8, 8]
    assert about["maximum"] == 16
    assert about["class_names"] == list("0123456789")
    assert [(layer["name"], layer["groups"]) for layer in about["layers"]] == [
        (layer.name, layer.groups) for layer in info.layers
    ]
    assert about["neurons"] is True
    assert about["in_browser"] is False
    assert ask(server, "/v2/models/small/versions/1/about")[0] == 200
    assert ask(server, "/v2/models/other/about")[0] == ask(server, "/v2/models/small/versions/2/about")[0] == 404


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [(["b", 10], [8, 8]), ([1, "classes"], [8, 8]), (["b", 1], None), (["b"], None), (["b", 10, 1], None), ([], None)],
)
def test_pictures_are_for_classifiers(outputs: list[object], expected: list[int] | None) -> None:
    shapes = {"inputs": [SimpleNamespace(shape=["b", 64])], "outputs": [SimpleNamespace(shape=outputs)]}
    model: Any = SimpleNamespace(info=SimpleNamespace(sample_shape=(8, 8)), session=SimpleNamespace(**shapes))
    assert picture_size(model) == expected


def test_requests_are_counted_and_those_for_neurons_are_not(server: Running) -> None:
    def live() -> dict[str, Any]:
        counts: dict[str, Any] = json.loads(ask(server, "/v2/models/small/about")[2])["live"]
        return counts

    before, body = live(), request_for(np.zeros((3, 64), np.float32))
    assert ask(server, "/v2/models/small/infer", body)[0] == 200
    assert ask(server, "/v2/models/small/infer", {})[0] == 400
    assert ask(server, "/v2/models/small/neurons", request_for(np.zeros((1, 64), np.float32)))[0] == 200
    after = live()
    grown = {name: after[name] - before[name] for name in ("requests", "errors", "runs", "rows")}
    assert grown == {"requests": 1, "errors": 1, "runs": 1, "rows": 3}
    assert after["buckets"][-1] == [None, after["requests"]]
    counts = [count for _, count in after["buckets"]]
    assert counts == sorted(counts)


# --- neurons


def check_neurons(server: Running, model: str, module: torch.nn.Module, x: np.ndarray[Any, Any]) -> None:
    """Compare z and h with what PyTorch's layers get and return, and h with the formulas."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    mixed = {name: layer for name, layer in module.named_modules() if isinstance(layer, package.Mixed)}
    assert mixed
    for name, layer in mixed.items():
        layer.register_forward_hook(lambda _, z, h, name=name: seen.update({name: (z[0], h)}))
    with torch.no_grad():
        module.eval()(torch.from_numpy(x))
    status, _, content = ask(server, f"/v2/models/{model}/neurons", request_for(x))
    assert status == 200, content
    layers = json.loads(content)["layers"]
    assert [layer["name"] for layer in layers] == list(mixed)
    for layer in layers:
        z, h = (np.moveaxis(each.double().numpy(), 1, -1) for each in seen[layer["name"]])
        z, h = (each.reshape(-1, each.shape[-1]) for each in (z, h))
        assert layer["positions"] == len(z)
        np.testing.assert_allclose(layer["z"], z.mean(0), atol=2e-5)
        np.testing.assert_allclose(layer["h"], h.mean(0), atol=2e-5)
        by_formula = [reference.FUNCTIONS[name](z[:, i]).mean() for i, name in enumerate(layer["activations"])]
        np.testing.assert_allclose(layer["h"], by_formula, atol=2e-5)


def test_neurons_are_pytorchs(run: Path, exported: Path, tmp_path: Path) -> None:
    """Of a run, and of a network with channels in the sorted layout, where the neurons stand in another order."""
    torch.manual_seed(0)
    conv = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1),
        package.Mixed(torch.randint(6, (6,))),
        torch.nn.Flatten(),
        torch.nn.Linear(384, 9),
        package.Mixed(torch.randint(6, (9,))),
        torch.nn.Linear(9, 4),
    ).eval()
    x = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    shutil.copy(exported, tmp_path / "run.onnx")
    package.export.export_onnx(conv, tmp_path / "conv.onnx", example_input=torch.from_numpy(x), layout="sorted")
    info = package.runtime.Session(tmp_path / "conv.onnx").info
    assert info is not None
    for layer in info.layers:
        assert layer.provenance is not None
        assert [*layer.provenance.neurons] != sorted(layer.provenance.neurons)
    with serving(tmp_path, grpc=False) as server:
        check_neurons(server, "run", package.load(run / "model.pt"), x.reshape(1, 64))
        check_neurons(server, "conv", conv, x)


def test_a_replaced_file_is_asked_anew(run: Path, exported: Path, tmp_path: Path) -> None:
    """The neurons belong to the model that answers, not to the file that lies there."""
    path, fresh = tmp_path / "m.onnx", tmp_path / "fresh.onnx"
    shutil.copy(exported, path)
    x = np.random.default_rng(1).random((1, 64), np.float32)
    other = package.load(run / "model.pt")
    with torch.no_grad():
        other.get_parameter("layer1.linear.weight").mul_(0.5)
    package.export.export_onnx(other.eval(), fresh, example_input=torch.from_numpy(x))
    with serving(path, "--poll", "0", grpc=False) as server:
        fresh.replace(path)
        status, _, content = ask(server, "/v2/models/m/neurons", request_for(x))
        assert (status, "was replaced" in json.loads(content)["error"]) == (429, True)
    with serving(path, "--poll", "0.05", grpc=False) as server:
        check_neurons(server, "m", other, x)
        state = json.loads(ask(server, "/v2/models/m/about")[2])["state"]
        shutil.copy(exported, fresh)
        fresh.replace(path)
        while json.loads(ask(server, "/v2/models/m/about")[2])["state"] == state:
            pass
        check_neurons(server, "m", package.load(run / "model.pt"), x)


def test_requests_for_neurons_that_are_refused(server: Running) -> None:
    one = np.zeros((1, 64), np.float32)
    cases: list[tuple[Any, str]] = [
        (request_for(np.zeros((2, 64), np.float32)), "one example"),
        (request_for(np.zeros((0, 64), np.float32)), "one example"),
        (request_for(np.zeros((1, 63), np.float32)), "must have the shape [-1, 64]"),
        (request_for(one, "other"), "takes the inputs ['input']"),
        ({}, "needs inputs"),
        (b"no JSON", "no JSON"),
        (b"[" * 20_000, "deeper"),
    ]
    for body, reason in cases:
        status, _, content = ask(server, "/v2/models/small/neurons", body)
        assert (status, reason in json.loads(content)["error"]) == (400, True), content
    assert ask(server, "/v2/models/small/neurons", {}, method="PUT")[0] == 405
    assert ask(server, "/v2/models/other/neurons", request_for(one))[0] == 404


def test_values_that_are_not_finite_are_null(server: Running) -> None:
    for size in (3e38, -3e38):
        status, _, content = ask(server, "/v2/models/small/neurons", request_for(np.full((1, 64), size, np.float32)))
        assert status == 200, content
        values = [value for layer in json.loads(content)["layers"] for value in layer["z"] + layer["h"]]
        assert None in values
        assert all(value is None or isinstance(value, float) for value in values)
    assert "Warning" not in server.log.read_text()


def test_a_model_of_another_tool_has_a_page_too(tmp_path: Path) -> None:
    from onnx import parser, save

    text = '<ir_version: 9, opset_import: ["" : 18]> m (float[n,3] x) => (float[n,3] y) { y = Relu(x) }'
    save(parser.parse_model(text), tmp_path / "m.onnx")
    with serving(tmp_path / "m.onnx", grpc=False) as server:
        about = json.loads(ask(server, "/v2/models/m/about")[2])
        assert (about["layers"], about["picture"], about["neurons"], about["architecture"]) == ([], None, False, None)
        status, _, content = ask(server, "/v2/models/m/neurons", request_for(np.zeros((1, 3), np.float32), "x"))
        assert (status, "no mixed layers" in json.loads(content)["error"]) == (400, True)


def test_the_page_needs_no_torch(exported: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
sys.modules["torch"] = None
import numpy as np
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.neurons import Neurons
from smx.runtime.serving.page import describe
from smx.runtime.serving.protocol import InferRequest, Tensor
from smx.runtime.serving.repository import stamp
model = ServedModel(Path(sys.argv[1]), "m", "1", Loading())
model.stamp = stamp(model.path)
request = InferRequest(inputs=[Tensor("input", np.zeros((1, 64), np.float32))])
print(len(asyncio.run(Neurons(model).read(request))), describe(model)["picture"])
"""
    result = python("-c", code, exported)
    assert result.stdout == "2 [8, 8]\n", result.stderr
    assert sys.modules["torch"] is not None
