"""A manifest for KServe: an InferenceService whose model Triton serves from an uploaded model repository.

KServe's ONNX runtimes are its Triton and its OpenVINO Model Server; both speak protocol v2. Without a name KServe takes
the one with the higher priority, which differs between its releases, so the manifest names one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from smx import files
from smx.errors import InputError
from smx.runtime.deploy.engine import Engine, threads_of
from smx.runtime.graph import weight_files

RUNTIME = "kserve-tritonserver"
"""The ClusterServingRuntime that comes with KServe. Its name differs where a cluster has its own."""
ARGUMENTS = ["--disable-auto-complete-config"]
"""Of Triton, beside KServe's own: it would make batches for a model whose `max_batch_size` of 0 forbids them."""
LONGEST = 40
"""Characters of a name: KServe appends `-predictor` and more, and labels of the DNS have at most 63."""
GIB = 2**30
URI = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def write_manifest(
    model: str | os.PathLike[str], path: str | os.PathLike[str], uri: str, engine: Engine, runtime: str = RUNTIME
) -> Path:
    """Write the manifest of a model's service, and return its path.

    Args:
        model: the ONNX file; its name becomes the service's, see `service_name`, and its size says how much memory is
            asked for.
        path: of the YAML file.
        uri: where the cluster finds the uploaded model repository: `s3://bucket/models`, `pvc://claim/models`, ...
        engine: see `Engine`.
        runtime: a Triton; see `RUNTIME`.

    Raises:
        InputError: `uri` is none, or the file is missing or no model.
        SmxError: writing failed.
    """
    text = yaml.safe_dump(manifest(Path(model), uri, engine, runtime), sort_keys=False)
    files.write_text(path, text)
    return Path(path)


def manifest(model: Path, uri: str, engine: Engine, runtime: str = RUNTIME) -> dict[str, Any]:
    """Return the InferenceService as plain values."""
    check_uri(uri)
    weights = sum((model.parent / name).stat().st_size for name in weight_files(model)) + model.stat().st_size
    # Triton itself needs less than one GiB; each instance has the weights, and while it loads them the file, too.
    memory = f"{max(2, 1 + -(-(engine.instances + 1) * weights // GIB))}Gi"
    cpu = str(engine.instances * threads_of(model, engine, each_core=True))
    gpus = {"nvidia.com/gpu": "1"} if engine.device == "gpu" else {}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": service_name(model.stem)},
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "onnx", "version": "1"},
                    "runtime": runtime,
                    "protocolVersion": "v2",
                    "storageUri": uri,
                    "args": ARGUMENTS,
                    "resources": {
                        "requests": {"cpu": cpu, "memory": memory} | gpus,
                        "limits": {"cpu": cpu, "memory": memory} | gpus,
                    },
                }
            }
        },
    }


def check_uri(uri: str | None) -> None:
    """Refuse what is no address of a folder."""
    if uri is None or not URI.fullmatch(uri):
        raise InputError(
            "a KServe manifest needs the address of the uploaded model repository, such as s3://bucket/models or"
            f" pvc://claim/models; got {uri!r}: give --kserve-uri"
        )


def service_name(stem: str) -> str:
    """Return a file's stem as KServe allows it: small letters, digits and hyphens, a letter first.

    `MNIST_v2.1` becomes `mnist-v2-1`, `7b` becomes `model-7b`.
    """
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    name = name if name[:1].isalpha() else f"model-{name}"
    return name[:LONGEST].strip("-")
