"""The steps of the Dockerfile, in a clean virtual environment: no docker is needed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime as ort
import pytest

from tests.test_house import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def listed(instruction: str) -> list[str]:
    """Return the arguments of an instruction in exec form, which no shell stands before."""
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    arguments: list[str] = json.loads(found)
    return arguments


def context(folder: Path) -> Path:
    """Copy what .dockerignore lets through."""
    nothing, *kept, caches = (ROOT / ".dockerignore").read_text().split()
    assert (nothing, caches) == ("*", "**/__pycache__")
    folder.mkdir()
    for name in kept:
        source, target = ROOT / name.removeprefix("!"), folder / name.removeprefix("!")
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def test_the_container_runs_as_nobody_special_and_ends_gently() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.MULTILINE)
    assert listed("ENTRYPOINT")[:2] == ["smx", "serve"]
    assert '.whl)[serve]"' in last


@pytest.mark.install
@pytest.mark.timeout(900)
def test_the_steps_of_the_image(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the wheel from the context, install it with [serve] alone, serve, ask, and end it as docker does."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # nothing but what is installed
    source = context(tmp_path / "source")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    programs = tmp_path / "env" / "bin"
    pip: list[str | Path] = [programs / "python", "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", source], check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run([*pip, "install", "-q", "-c", source / "constraints.txt", f"{wheel}[serve]"], check=True)
    for absent in ("torch", "onnx", "sklearn", "tritonclient"):
        tried = subprocess.run([programs / "python", "-c", f"import {absent}"], capture_output=True, check=False)
        assert tried.returncode != 0, absent
    files = [path for path in (tmp_path / "env" / "lib").rglob("*") if path.is_file()]
    print(f"\n[serve] without torch: {sum(path.stat().st_size for path in files) / 1e6:.0f} MB with pip and setuptools")
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(exported, models / "digits.onnx")
    program, *arguments = listed("ENTRYPOINT")
    command: list[str | Path] = [programs / program, *arguments, models, "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()  # when it is ready
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url, line
        python, *check = healthcheck(url[0])
        assert subprocess.run([programs / python, *check], check=False).returncode == 0
        assert_it_answers(url[0], exported)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0, server.communicate()
    finally:
        server.kill()
        server.communicate()
    assert subprocess.run([programs / python, *check], capture_output=True, check=False).returncode == 1


def healthcheck(url: str) -> list[str]:
    """Return the command of HEALTHCHECK, for another port."""
    (found,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    command: list[str] = json.loads(found.replace("http://127.0.0.1:8080", url))
    return command


def assert_it_answers(url: str, model: Path) -> None:
    x = np.random.default_rng(0).random((3, 64), np.float32)
    tensor = {"name": "input", "datatype": "FP32", "shape": [3, 64], "data": x.ravel().tolist()}
    request = Request(f"{url}/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode(), method="POST")
    with urlopen(request, timeout=30) as response:
        (output,) = json.loads(response.read())["outputs"]
    expected = ort.InferenceSession(model).run(None, {"input": x})[0]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, rtol=1e-5, atol=1e-6)
