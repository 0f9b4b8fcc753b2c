"""KServe's manifest; where SMX_KSERVE_CRD names the file of KServe's CRD, it is validated against that.

The file is `config/crd/full/serving.kserve.io_inferenceservices.yaml` of https://github.com/kserve/kserve.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from smx.errors import InputError
from smx.runtime.deploy.engine import Engine
from smx.runtime.deploy.kserve import manifest, service_name, write_manifest
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, fingerprint, tuning_path
from tests.edited import loaded

URI = "s3://bucket/models"


def test_the_manifest(exported: Path, tmp_path: Path) -> None:
    path = write_manifest(exported, tmp_path / "service.yaml", URI, Engine(instances=2, threads=3))
    resources = {"cpu": "6", "memory": "2Gi"}
    assert yaml.safe_load(path.read_text()) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "small"},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "onnx", "version": "1"},
                    "runtime": "kserve-tritonserver",
                    "protocolVersion": "v2",
                    "storageUri": URI,
                    "args": ["--disable-auto-complete-config"],
                    "resources": {"requests": resources, "limits": resources},
                }
            }
        },
    }


def test_resources_of_a_gpu_and_of_large_weights(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(loaded(exported), path, save_as_external_data=True, location="large.weights", size_threshold=0)
    os.truncate(tmp_path / "large.weights", 3 * 2**30)  # a sparse file
    resources = manifest(path, URI, Engine(device="gpu"))["spec"]["predictor"]["model"]["resources"]
    assert resources["limits"] == {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"}  # 1 + 2 * 3, and a little


@pytest.mark.parametrize(
    ("engine", "found", "cpu"),
    [
        (Engine(instances=2), 3, 6),
        (Engine(instances=2), None, 2 * len(os.sched_getaffinity(0))),
        (Engine(threads=2), 3, 2),
    ],
)
def test_threads_that_tune_found(engine: Engine, found: int | None, cpu: int, exported: Path, tmp_path: Path) -> None:
    """The configuration beside the manifest names them: see test_triton.py."""
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    settings = Settings(threads=found)
    tuning = Tuning(model=fingerprint(path), settings=settings, provider="cpu", batch_size=1, goal="p50")
    tuning_path(path).write_text(tuning.to_json())
    resources = manifest(path, URI, engine)["spec"]["predictor"]["model"]["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"] == str(cpu)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("mnist", "mnist"),
        ("MNIST_v2.1", "mnist-v2-1"),
        ("7b", "model-7b"),
        ("-_-", "model"),
        ("größe", "gr-e"),
        ("x" * 39 + "-y", "x" * 39),
    ],
)
def test_names(stem: str, name: str) -> None:
    assert service_name(stem) == name
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)  # KServe's own rule


@pytest.mark.parametrize("uri", ["", "models", "/models", "s3://", "s3://a b"])
def test_an_address_is_needed(uri: str, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --kserve-uri"):
        write_manifest(exported, tmp_path / "service.yaml", uri, Engine())
    assert list(tmp_path.iterdir()) == []


def closed(schema: Any) -> Any:
    """Forbid fields that the schema does not name: a cluster would drop them without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.skipif("SMX_KSERVE_CRD" not in os.environ, reason="SMX_KSERVE_CRD names no file")
def test_it_is_valid_for_kserve(exported: Path) -> None:
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    crd = yaml.load(Path(os.environ["SMX_KSERVE_CRD"]).read_text(), yaml.CSafeLoader)
    (schema,) = (each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1beta1")
    schema = closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    validator = jsonschema_rs.Draft202012Validator(schema)
    made = manifest(exported, URI, Engine(device="gpu"))
    assert [error.message for error in validator.iter_errors(made)] == []
    model = made["spec"]["predictor"]["model"]
    for wrong in ({"protocolVersion": 2}, {"protocol": "v2"}, {"modelFormat": {"version": "1"}}):
        assert not validator.is_valid(made | {"spec": {"predictor": {"model": model | wrong}}})
