"""Every kind of file that smx reads: a whole one, and how smx reads it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

import smx
from smx import torchfile
from smx.data.local import load_npz
from smx.modelfile import load_model
from smx.prices import load_prices
from smx.runtime import Session
from smx.runtime.images import read_image
from smx.runtime.metadata import ModelInfo
from smx.runtime.tuning import Tuning, fingerprint, has_own_variant, read_tuning, tuning_path
from smx.study import table
from smx.study.grid import SHIPPED, read_grid
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig, from_values, read_toml
from tests.hostile.edits import TENSORS, VALUES


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: of a file, in the folder that the format was made for.
        whole: its bytes; empty for what is a part of a file, whose damage is the file's.
        load: reads the file at a path as smx does, and returns text that says what it found.
        guarded: it carries checksums, so that damage is refused or changes nothing.
        content: what it says, where that can be edited; `pack` makes bytes of it, with `values` to put in.
    """

    name: str
    whole: bytes
    load: Callable[[Path], str]
    guarded: bool = False
    content: dict[str, Any] | None = None
    pack: Callable[[dict[str, Any]], bytes] = lambda content: json.dumps(content).encode()
    values: list[Any] = field(default_factory=lambda: VALUES)


def formats(folder: Path, run: Path, exported: Path) -> list[Format]:
    """Return all formats.

    Args:
        folder: where the files of a format will lie.
        run: of `smx train`, with `model.pt` and `checkpoint.pt`.
        exported: the ONNX file of that run.
    """
    return [
        _tensors("model.pt", (run / "model.pt").read_bytes(), load_model),
        _tensors("any.pt", _any_class(folder), load_model),
        _tensors("checkpoint.pt", (run / "checkpoint.pt").read_bytes(), Checkpoint.load),
        Format("model.onnx", exported.read_bytes(), _answers, guarded=True),
        Format("foreign.onnx", _foreign(exported), _answers),
        _metadata(exported),
        _tuning(folder, exported),
        Format("run.toml", (run / "config.toml").read_bytes(), lambda path: str(from_values(read_toml(path)))),
        _settings(),
        Format("grid.toml", SHIPPED["short"].read_bytes(), lambda path: str(read_grid(path).cells())),
        _prices(),
        _cells(folder),
        Format("data.npz", _npz(), lambda path: load_npz(path).fingerprint()),
        *(Format(f"image.{kind.lower()}", _image(kind), _pixels) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")),
    ]


def named(all_formats: list[Format], name: str) -> Format:
    return next(each for each in all_formats if each.name == name)


def _tensors(name: str, whole: bytes, load: Callable[[Path], object]) -> Format:
    content = torch.load(io.BytesIO(whole), weights_only=True)

    def read(path: Path) -> str:
        load(path)
        return _digest(torchfile.load(path, content["format"]))

    return Format(name, whole, read, guarded=True, content=content, pack=_packed, values=VALUES + TENSORS)


def _packed(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _digest(content: Any) -> str:
    """Return text that is the same for the same values, dtypes and bits of tensors."""
    if isinstance(content, torch.Tensor):
        bits = content.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{content.dtype}{tuple(content.shape)}{hashlib.sha256(bits).hexdigest()}"
    if isinstance(content, dict):
        return str({key: _digest(value) for key, value in content.items()})
    if isinstance(content, list | tuple):
        return str([_digest(value) for value in content])
    return repr(content)


def _any_class(folder: Path) -> bytes:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))
    path = folder / "any.pt"
    smx.save(smx.select(net, example_input=torch.randn(2, 4)), path, example_input=torch.randn(2, 4))
    return path.read_bytes()


def _answers(path: Path) -> str:
    session = Session(path)
    x = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)
    return f"{session.info}{session.run(x).tobytes()!r}"


def _foreign(exported: Path) -> bytes:
    """The same network as another tool would write it."""
    model = onnx.load(exported)
    model.ClearField("metadata_props")
    whole: bytes = model.SerializeToString()
    return whole


def _metadata(exported: Path) -> Format:
    """The properties of an ONNX file, as JSON; most are JSON themselves."""
    words = {f"smx.{name}" for name in ("smx_version", "architecture", "layout", "precision")}
    guards = {"smx.sha256", "smx.weights_sha256"}
    properties = {entry.key: entry.value for entry in onnx.load(exported).metadata_props if entry.key not in guards}
    content = {key: text if key in words else json.loads(text) for key, text in properties.items()}

    def pack(changed: dict[str, Any]) -> bytes:
        texts = {
            str(key): value if key in words and isinstance(value, str) else json.dumps(value)
            for key, value in changed.items()
        }
        return json.dumps(texts).encode()

    def load(path: Path) -> str:
        info = ModelInfo.from_properties(json.loads(path.read_bytes()))
        assert info is None or all(isinstance(layer.neurons, int) for layer in info.layers)
        return str(info)

    return Format("metadata.json", b"", load, content=content, pack=pack)


def _tuning(folder: Path, exported: Path) -> Format:
    model = folder / "tuned.onnx"
    model.write_bytes(exported.read_bytes())
    tuning = Tuning(
        model=fingerprint(model),
        settings=Session(model).settings,
        provider="cpu",
        batch_size=1,
        goal="p50",
        file="v.onnx",
    )
    whole = tuning.to_json().encode()

    def load(path: Path) -> str:
        assert path == tuning_path(model)
        assert has_own_variant(model) is False
        return str(read_tuning(model, "cpu"))

    name = tuning_path(model).name
    return Format(name, whole, load, content=json.loads(whole), values=[*VALUES, 10_000])


def _settings() -> Format:
    """The settings of a run as the values of a checkpoint."""

    def load(path: Path) -> str:
        return str(from_values(json.loads(path.read_bytes())))

    content = TrainConfig().to_dict()
    return Format("settings.json", b"", load, content=content, values=[*VALUES, 10**400])


def _prices() -> Format:
    whole = (Path(smx.__file__).parent / "prices.json").read_bytes()
    return Format("prices.json", whole, lambda path: str(load_prices(path)), content=json.loads(whole))


def _cells(folder: Path) -> Format:
    rows = [{"cell": f"{i:012x}", "status": "done", "method": "relu", "test_accuracy": 0.5 + i / 100} for i in range(9)]
    path = folder / "cells.csv"
    table.write(table.frame(rows), path)
    return Format("cells.csv", path.read_bytes(), lambda path: str(table.known_results(table.read(path))))


def _npz() -> bytes:
    buffer, draw = io.BytesIO(), np.random.default_rng(0)
    np.savez(buffer, x=draw.integers(0, 256, (60, 6), np.uint8), y=np.arange(60) % 3, names=np.array(["a", "b", "c"]))
    return buffer.getvalue()


def _image(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _pixels(path: Path) -> str:
    return str(read_image(path, 8, 8, colour=True).sum())
