"""docs/serving.md is true: its requests are answered by a real server, and its defaults are the command's."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from smx.cli import main
from tests.conftest import python
from tests.test_house import ROOT

TEXT = (ROOT / "docs" / "serving.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHELL = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", "")
OPTIONS = {name: option for option in main.commands["serve"].params for name in option.opts}


class Served(NamedTuple):
    """A server, and the folder in which it was started."""

    folder: Path
    http: str
    grpc: str

    def here(self, text: str) -> str:
        """Return a text with the addresses of this server."""
        return text.replace("localhost:8080", self.http).replace("localhost:8001", self.grpc)


@pytest.fixture(scope="module")
def served(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the digits as the text does, on free ports."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(exported, folder / "digits.onnx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc_port = free.getsockname()[1]
    arguments = ["serve", "digits.onnx", "--port", "0", "--grpc-port", str(grpc_port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(
        [sys.executable, "-m", "smx", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = re.search(r"http://(127\.0\.0\.1:\d+)", server.stdout.readline())
        assert address
        yield Served(folder, address[1], f"127.0.0.1:{grpc_port}")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0  # as the text says
    finally:
        server.kill()
        server.communicate()


def test_the_length_is_bounded() -> None:
    prose = re.sub(r"```.*?```|^\|.*?$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert 500 <= len(prose.split()) <= 900


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_gets_answers(protocol: str, served: Served) -> None:
    """Over gRPC too, with the same calls."""
    snippet, _ = SNIPPETS
    if protocol == "grpc":
        snippet = snippet.replace("tritonclient.http as http", "tritonclient.grpc as http").replace("8080", "8001")
    done = python("-c", served.here(snippet), cwd=served.folder)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"-?\d+\.\d+:\d:\d'", done.stdout)) == 6  # score:index:name, three for each of two


def test_the_requests_of_curl_are_answered(served: Served) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl and bash are needed")
    digits = load_digits()
    Image.fromarray((digits.images[7] * 255 / 16).astype(np.uint8)).resize((64, 64)).save(served.folder / "seven.png")
    lines = [line for line in SHELL.splitlines() if line.startswith("curl ")]
    assert len(lines) == 4
    answers = []
    for line in lines:
        command = ["bash", "-c", served.here(line).replace("curl ", "curl -sS --fail --noproxy '*' ", 1)]
        done = subprocess.run(command, cwd=served.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        answers.append(done.stdout)
    metadata, answer, classes = map(json.loads, answers[:3])
    assert metadata["name"] == "digits"
    assert answer["outputs"][0]["shape"] == [1, 10]
    assert len(classes["classes"]) == 3
    named = set(re.findall(r"`(smx_[a-z_]+)`", TEXT))
    assert named
    assert named <= {
        re.sub("_(bucket|sum|count|created)$", "", name)
        for name in re.findall("^# TYPE ([a-z_]+)", answers[3], re.MULTILINE)
    }


def test_the_snippet_of_deploy_runs(served: Served, tmp_path: Path) -> None:
    _, snippet = SNIPPETS
    shutil.copy(served.folder / "digits.onnx", tmp_path)
    done = python("-c", snippet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "digits" / "2" / "model.onnx").is_file()


def test_every_option_exists_and_has_the_default_that_is_shown() -> None:
    for command, arguments in re.findall(r"^smx (\w+) (.*)$", SHELL, re.MULTILINE):
        known = {name for option in main.commands[command].params for name in option.opts}
        assert set(re.findall(r"--[\w-]+", arguments)) <= known
    rows = re.findall(r"^\| `(--[\w-]+)` \| (\d+)", TEXT, re.MULTILINE)
    assert len(rows) == 8
    rows += re.findall(r"`(--[\w-]+)` (?:is|rows|seconds)?\s?\(?(\d+)", TEXT)
    for name, default in rows:
        assert OPTIONS[name].default == float(default), name
    exists = set(OPTIONS) | {name for option in main.commands["export"].params for name in option.opts}
    assert set(re.findall(r"`(--[\w-]+)", TEXT)) <= exists
