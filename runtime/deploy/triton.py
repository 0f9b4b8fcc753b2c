"""A model repository for Triton Inference Server: `NAME/config.pbtxt`, `NAME/labels.txt`, `NAME/1/model.onnx`.

The configuration is built with Triton's own messages, as tritonclient has them. What they mean:
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md and, for ONNX
Runtime, https://github.com/triton-inference-server/onnxruntime_backend.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as messages

from smx import files
from smx.errors import InputError
from smx.runtime.deploy.engine import Engine, threads_of
from smx.runtime.graph import weight_files
from smx.runtime.serving.batcher import Batching
from smx.runtime.serving.model import OPEN_LENGTH, Loading, ServedModel
from smx.runtime.serving.protocol import DATATYPES
from smx.runtime.session import DTYPES

MODEL, CONFIG, LABELS = "model.onnx", "config.pbtxt", "labels.txt"
NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def write_repository(model: str | os.PathLike[str], folder: str | os.PathLike[str], engine: Engine) -> Path:
    """Write what Triton needs to serve a model, and return its folder `folder/NAME`.

    NAME is the stem of the file's name. Each file is replaced whole; the configuration comes last, so that a Triton
    that watches the folder meets no configuration without its model. Other versions and models there stay.

    Args:
        model: the ONNX file, with its weights beside it where it has some.
        folder: of all models; it is made where there is none.
        engine: see `Engine`.

    Raises:
        InputError: the file is no model that can be served, its name is none for a model, or the folder may not be
            written to.
        SmxError: writing failed, for example because the disk is full.
    """
    source = Path(model)
    check_name(source)
    served = ServedModel(
        source, source.stem, str(engine.version), Loading(batching=Batching(max_rows=engine.max_batch))
    )
    own = files.make_folder(Path(folder) / source.stem)
    version = files.make_folder(own / str(engine.version))
    weights, before = weight_files(source), _weights_there(version / MODEL)
    for name in weights:
        files.make_folder((version / name).parent)
        _copy(source.parent / name, version / name)
    _copy(source, version / MODEL)
    for name in {*before} - {*weights}:
        (version / name).unlink(missing_ok=True)
    labels = labelled(served)
    if labels:
        files.write_text(own / LABELS, "".join(f"{' '.join(name.split())}\n" for name in served.class_names))
    text = text_format.MessageToString(model_config(served, engine))
    text_format.Parse(text, messages.ModelConfig())  # what is written can be read
    files.write_text(own / CONFIG, text)
    return own


def check_name(model: Path) -> None:
    """Refuse a file whose stem is no name of a model."""
    if not NAME.fullmatch(model.stem):
        raise InputError(
            f"{model.stem!r} is no name for a model; use letters, digits, '_', '-' and '.' in {model.name}"
        )


def model_config(served: ServedModel, engine: Engine) -> Any:
    """Return the configuration, a `ModelConfig`.

    1. Examples that do not depend on each other, on an open first axis: Triton makes batches, and `dims` are without
       that axis.
    2. Otherwise `max_batch_size` is 0, and `dims` are the whole shape. Where its axis is open, Triton must be started
       with --disable-auto-complete-config, or it sets `max_batch_size` to its own default.
    """
    session, batched = served.session, served.batched
    config = messages.ModelConfig(name=served.name, backend="onnxruntime")
    config.max_batch_size = engine.max_batch if batched else 0
    for each, kind in (*((one, "input") for one in session.inputs), *((one, "output") for one in session.outputs)):
        added = getattr(config, kind).add(name=each.name, data_type=_data_type(each))
        dims = _dims(each, batched)
        added.dims.extend(dims or [1])
        if not dims:  # Triton's shapes have an axis at least; the model gets a value for each example without one
            added.reshape.SetInParent()
    if labelled(served):
        config.output[0].label_filename = LABELS
    if batched and engine.max_batch > 1:
        config.dynamic_batching.preferred_batch_size.extend(sorted({max(engine.max_batch // 4, 1), engine.max_batch}))
        config.dynamic_batching.max_queue_delay_microseconds = round(engine.max_delay * 1e6)
    gpu = engine.device == "gpu"
    kinds = messages.ModelInstanceGroup
    config.instance_group.add(count=engine.instances, kind=kinds.KIND_GPU if gpu else kinds.KIND_CPU)
    for rows in sorted({1, engine.max_batch}) if batched else [1]:
        warmup = config.model_warmup.add(name=f"rows_{rows}", batch_size=rows)
        for each in session.inputs:
            zeros = warmup.inputs[each.name]
            zeros.data_type, zeros.zero_data = _data_type(each), True
            zeros.dims.extend(_closed(each, batched) or [1])
    if not gpu:
        config.parameters["intra_op_thread_count"].string_value = str(threads_of(served.path, engine))
    return config


def labelled(served: ServedModel) -> bool:
    """Whether the first output has a score for each of the model's class names."""
    shape = served.session.outputs[0].shape
    return bool(served.class_names) and shape[-1:] == [len(served.class_names)]


def _data_type(each: Any) -> int:
    return int(messages.DataType.Value(f"TYPE_{DATATYPES[DTYPES[each.type]]}"))


def _dims(each: Any, batched: bool) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in each.shape[int(batched) :]]


def _closed(each: Any, batched: bool) -> list[int]:
    """Return the lengths of a warm-up; an open first axis that holds no batch gets one row."""
    sizes = [OPEN_LENGTH if size < 0 else size for size in _dims(each, batched)]
    return sizes if batched or not each.shape or isinstance(each.shape[0], int) else [1, *sizes[1:]]


def _weights_there(model: Path) -> list[str]:
    """Return the weights of the model that is replaced; none where it is missing or damaged."""
    try:
        return weight_files(model)
    except InputError:
        return []


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
