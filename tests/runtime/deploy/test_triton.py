"""Triton's model repository, read back with tritonclient's messages and beside the file as onnx reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from smx.errors import InputError
from smx.runtime.deploy.engine import Engine
from smx.runtime.deploy.triton import write_repository
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.protocol import InferRequest, Tensor
from smx.runtime.serving.repository import Repository
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, fingerprint, tuning_path
from tests.edited import loaded

CPU, GPU = (model_config_pb2.ModelInstanceGroup.Kind.Value(f"KIND_{kind}") for kind in ("CPU", "GPU"))
HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
GRAPHS = {
    "fixed": f"{HEAD} fixed (float[7, 4] x) => (float[7, 4] y) {{ y = Tanh(x) }}",
    "mixing": f"{HEAD} mixing (float[N, 4] x) => (float[N, 4] y) {{ y = Softmax<axis = 0>(x) }}",
    "several": f"""{HEAD} several (int64[N, L] ids, float16[N, 3, 2] image)
        => (float16[N] sum, int64[N, L] twice)
        <int64[2] axes = {{1, 2}}>
        {{ sum = ReduceSum<keepdims = 0>(image, axes)  twice = Add(ids, ids) }}""",
}


def made(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    model = onnx.parser.parse_model(GRAPHS[name])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def read(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def in_the_file(values: Any, batched: bool) -> list[tuple[str, int, list[int]]]:
    """Return name, Triton's data type and lengths of each value; without the batch axis where there are batches."""
    found = []
    for value in values:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        lengths = [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim][int(batched) :]
        kind = model_config_pb2.DataType.Value(f"TYPE_{np_to_triton_dtype(dtype)}")
        found.append((value.name, kind, lengths or [1]))
    return found


def in_the_configuration(values: Any) -> list[tuple[str, int, list[int]]]:
    return [(value.name, value.data_type, list(value.dims)) for value in values]


def check(config: Any, path: Path, batched: bool) -> None:
    graph = onnx.load(path).graph
    assert in_the_configuration(config.input) == in_the_file(graph.input, batched)
    assert in_the_configuration(config.output) == in_the_file(graph.output, batched)
    assert (config.name, config.backend) == (path.stem, "onnxruntime")
    assert config.model_warmup
    for warmup in config.model_warmup:
        assert set(warmup.inputs) == {value.name for value in graph.input}
        for value in config.input:
            zeros = warmup.inputs[value.name]
            assert (zeros.data_type, zeros.zero_data) == (value.data_type, True)
            assert len(zeros.dims) == len(value.dims)
            assert all(got == (want if want > 0 else got) > 0 for got, want in zip(zeros.dims, value.dims, strict=True))


def test_an_exported_file(exported: Path, tmp_path: Path) -> None:
    folder = write_repository(exported, tmp_path / "new" / "models", Engine(max_batch=32, max_delay=0.002, instances=2))
    assert folder == tmp_path / "new" / "models" / exported.stem
    config = read(folder)
    check(config, exported, batched=True)
    assert config.max_batch_size == 32
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, CPU)]
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 32]
    assert {key: value.string_value for key, value in config.parameters.items()} == {"intra_op_thread_count": "1"}
    assert config.output[0].label_filename == "labels.txt"
    assert (folder / "labels.txt").read_text().splitlines() == list(map(str, range(10)))
    assert (folder / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert left == {"config.pbtxt", "labels.txt", "1", "1/model.onnx"}  # no drafts


def test_the_server_of_smx_serves_it(exported: Path, tmp_path: Path) -> None:
    """A name, an input and an output, as the configuration says; the answers are those of the file."""
    config = read(write_repository(exported, tmp_path, Engine()))

    def load(path: Path, name: str, version: str) -> ServedModel:
        return ServedModel(path, name, version, Loading())

    repository = Repository(tmp_path, load, lambda *event, **fields: None)
    model = repository.find(config.name)
    x = np.random.default_rng(0).random((3, *config.input[0].dims), np.float32)
    answer = asyncio.run(model.infer(InferRequest(inputs=[Tensor(config.input[0].name, x)])))
    expected = ort.InferenceSession(exported).run([config.output[0].name], {config.input[0].name: x})[0]
    np.testing.assert_allclose(answer.outputs[0].array, expected, rtol=1e-5, atol=1e-6)
    assert answer.outputs[0].name == config.output[0].name


@pytest.mark.parametrize(("name", "rows"), [("fixed", 7), ("mixing", 1)])
def test_a_model_that_makes_no_batches(name: str, rows: int, tmp_path: Path) -> None:
    """Its batch size is fixed, or its examples depend on each other."""
    path = made(name, tmp_path)
    config = read(write_repository(path, tmp_path / "models", Engine()))
    check(config, path, batched=False)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [(warmup.batch_size, list(warmup.inputs["x"].dims)) for warmup in config.model_warmup] == [(1, [rows, 4])]
    assert not (tmp_path / "models" / name / "labels.txt").exists()
    assert config.output[0].label_filename == ""


def test_several_inputs_and_an_output_of_one_number(tmp_path: Path) -> None:
    path = made("several", tmp_path)
    config = read(write_repository(path, tmp_path / "models", Engine()))
    check(config, path, batched=True)
    assert [value.HasField("reshape") for value in (*config.input, *config.output)] == [False, False, True, False]
    assert list(config.output[0].reshape.shape) == []


def test_on_a_gpu(exported: Path, tmp_path: Path) -> None:
    config = read(write_repository(exported, tmp_path, Engine(device="gpu", max_batch=1)))
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, GPU)]
    assert not config.parameters
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("engine", "found", "threads"), [(Engine(), 3, "3"), (Engine(), None, "0"), (Engine(threads=2), 3, "2")]
)
def test_threads_that_tune_found(engine: Engine, found: int | None, threads: str, tmp_path: Path) -> None:
    path = made("fixed", tmp_path)
    settings = Settings(threads=found)
    tuning = Tuning(model=fingerprint(path), settings=settings, provider="cpu", batch_size=7, goal="p50")
    tuning_path(path).write_text(tuning.to_json())
    config = read(write_repository(path, tmp_path / "models", engine))
    assert config.parameters["intra_op_thread_count"].string_value == threads


def test_weights_beside_the_file_come_along(exported: Path, tmp_path: Path) -> None:
    """And go with the model that is replaced, but no other file."""
    path = tmp_path / "large.onnx"
    for location in ("old.weights", "large.weights"):
        onnx.save(loaded(exported), path, save_as_external_data=True, location=location, size_threshold=0)
        folder = write_repository(path, tmp_path / "models", Engine())
        (folder / "1" / "notes.txt").touch()
    assert {file.name for file in (folder / "1").iterdir()} == {"model.onnx", "large.weights", "notes.txt"}
    moved = ort.InferenceSession(folder / "1" / "model.onnx")
    x = np.ones((2, 64), np.float32)
    np.testing.assert_array_equal(
        *(session.run(None, {"input": x})[0] for session in (moved, ort.InferenceSession(path)))
    )


def test_a_second_version_and_a_bad_file(exported: Path, tmp_path: Path) -> None:
    """A new version stands beside the old one; a file that is no model changes nothing."""
    folder = write_repository(exported, tmp_path, Engine())
    write_repository(exported, tmp_path, Engine(version=2, max_batch=8))
    assert sorted(path.parent.name for path in folder.glob("*/model.onnx")) == ["1", "2"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bad = tmp_path / "bad" / exported.name
    bad.parent.mkdir()
    bad.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no model that ONNX Runtime can load"):
        write_repository(bad, tmp_path, Engine())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_file_in_the_repository_can_be_given_itself(exported: Path, tmp_path: Path) -> None:
    folder = write_repository(exported, tmp_path / "a", Engine())
    inside = folder / "1" / "model.onnx"
    again = write_repository(inside, tmp_path / "b", Engine())
    assert again.name == "model"
    assert write_repository(again / "1" / "model.onnx", tmp_path / "b", Engine()) == again
    assert (again / "1" / "model.onnx").read_bytes() == exported.read_bytes()


def test_refusals(exported: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b.onnx"
    odd.write_bytes(exported.read_bytes())
    with pytest.raises(InputError, match="'a b' is no name for a model"):
        write_repository(odd, tmp_path, Engine())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be created"):
        write_repository(exported, tmp_path / "file", Engine())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"device": "tpu"}, "unknown device 'tpu'; known are cpu, gpu"),
        ({"max_batch": 0}, "max_batch must be a whole number"),
        ({"instances": 1.5}, "instances must be a whole number"),
        ({"max_delay": -1}, "max_delay must be 0 to 10 seconds"),
    ]
    for setting, reason in wrong:
        with pytest.raises(InputError, match=reason):
            Engine(**setting)
