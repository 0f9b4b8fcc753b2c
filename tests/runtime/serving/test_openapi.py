"""The protocol's published OpenAPI description, with schemathesis.

`SMX_OIP_SPEC` is the path of `specification/protocol/open_inference_rest.yaml` of
https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.serving import models
from tests.runtime.serving.process import Running, serving

pytestmark = pytest.mark.serving
TEXT = "(double[b,4] x) => (double[b,4] y) { y = Identity(x) }"
"""A model that every finite number goes through: JSON can say what comes out."""


@pytest.fixture
def description() -> Any:
    """Return the description with its paths spelled as OpenAPI says, and bound to the model m, version 1."""
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("schemathesis")
    path = os.environ.get("SMX_OIP_SPEC")
    if not path:
        pytest.skip("set SMX_OIP_SPEC to the protocol's description")
    found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    paths = {}
    for name, item in found["paths"].items():
        bound = name.replace("${MODEL_NAME}", "m").replace("${MODEL_VERSION}", "1")
        assert "$" not in bound
        paths[bound] = {key: value for key, value in item.items() if key != "parameters"}
    assert len(paths) == 6
    return found | {"paths": paths}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with serving(models.make(tmp_path / "m.onnx", TEXT), "--threads", "1", grpc=False) as running:
        yield running


def run(server: Running, description: Any, folder: Path, *options: str) -> None:
    """Run schemathesis with all its checks; it must find nothing."""
    file = folder / "description.json"
    file.write_text(json.dumps(description))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(file), "--url", server.url]
    command += ["--checks", "all", "--max-examples", "100", "--continue-on-failure", "--no-color", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 selected" in done.stdout


def test_the_description_as_it_is(description: Any, server: Running, tmp_path: Path) -> None:
    """It does not know a model's inputs, so that what it allows may be refused."""
    run(server, description, tmp_path, "--exclude-checks", "positive_data_acceptance")


def test_the_description_of_this_model(description: Any, server: Running, tmp_path: Path) -> None:
    """What fits the model is answered, and nothing else.

    The description lets a request have no body at all, although `inputs` is required in it.
    """
    (infer,) = [item["post"] for item in description["paths"].values() if "post" in item]
    infer["requestBody"]["required"] = True
    schemas = description["components"]["schemas"]
    row = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    nested = {"type": "array", "items": row, "minItems": 1, "maxItems": 1}
    schemas["request_input"]["properties"] |= {
        "name": {"enum": ["x"]},
        "shape": {"enum": [[1, 4]]},
        "datatype": {"enum": ["FP64"]},
        "data": {"anyOf": [row, nested]},
    }
    schemas["request_output"]["properties"]["name"] = {"enum": ["y"]}
    schemas["inference_request"]["properties"]["inputs"] |= {"minItems": 1, "maxItems": 1}
    schemas["inference_request"]["properties"]["outputs"] |= {"maxItems": 1}
    run(server, description, tmp_path)
