"""`smx export --triton --kserve`, and the call of the library for a file that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import smx
from smx.cli import options
from smx.errors import InputError
from smx.runtime.deploy.engine import DEVICES
from tests.conftest import all_refused, smx_many
from tests.test_house import base_install


def test_export_prepares_the_file_for_both(run: Path, tmp_path: Path) -> None:
    onnx, models, service = tmp_path / "digits.onnx", tmp_path / "models", tmp_path / "digits.yaml"
    (made,) = smx_many(
        (
            "export", run / "model.pt", onnx, "--batch-size", "4", "--triton", models, "--triton-device", "gpu",
            "--kserve", service, "--kserve-uri", "pvc://claim/models",
        ),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert f"Triton: {models / 'digits'}" in made.stdout
    assert f"KServe: {service}" in made.stdout
    config = text_format.Parse((models / "digits" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("digits", 0, [4, 64])
    assert (models / "digits" / "1" / "model.onnx").read_bytes() == onnx.read_bytes()
    model = yaml.safe_load(service.read_text())["spec"]["predictor"]["model"]
    assert model["storageUri"] == "pvc://claim/models"
    assert model["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_nothing_is_exported_in_vain(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model, onnx, service = run / "model.pt", tmp_path / "digits.onnx", tmp_path / "digits.yaml"
    all_refused(
        (("export", model, onnx, "--kserve", service), "give --kserve-uri"),
        (("export", model, onnx, "--kserve-uri", "s3://bucket/models"), "give --kserve FILE"),
        (("export", model, onnx, "--kserve", tmp_path / "x.txt", "--kserve-uri", "s3://b/m"), "must end in .yaml"),
        (("export", model, tmp_path / "a b.onnx", "--triton", tmp_path / "models"), "'a b' is no name for a model"),
        (("export", model, onnx, "--triton", tmp_path / "file" / "models"), "can't be created"),
    )
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


@pytest.mark.parametrize(
    ("missing", "option"),
    [("tritonclient", ("--triton", "models")), ("yaml", ("--kserve", "s.yaml", "--kserve-uri", "s3://b/m"))],
)
def test_the_extra_is_named(missing: str, option: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    result = base_install("export", run / "model.pt", tmp_path / "m.onnx", *option, missing=(missing,))
    assert result.returncode == 1
    assert f"smx export needs {missing}, which is not installed" in result.stderr
    assert "pip install 'smartmixed[deploy]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_prepared_by_a_call(exported: Path, tmp_path: Path) -> None:
    written = smx.deploy(
        exported, triton=tmp_path / "models", kserve=tmp_path / "s.yaml", kserve_uri="s3://bucket/models", max_batch=16
    )
    assert written == [tmp_path / "models" / "small", tmp_path / "s.yaml"]
    config = text_format.Parse((written[0] / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.max_batch_size == 16
    with pytest.raises(InputError, match="does not exist"):
        smx.deploy(tmp_path / "absent.onnx", kserve=tmp_path / "t.yaml", kserve_uri="s3://bucket/models")
    assert not (tmp_path / "t.yaml").exists()


def test_devices_are_those_of_the_library() -> None:
    assert options.DEVICES == DEVICES
