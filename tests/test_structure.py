"""Files whose structure was changed at random: every one is loaded or refused in a line, and takes little memory."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import smx
from smx.errors import InputError
from smx.modelfile import load_model
from smx.runtime import Session
from smx.runtime.metadata import ModelInfo
from smx.runtime.tuning import Tuning, fingerprint, has_own_variant, read_tuning, tuning_path
from smx.study.grid import read_grid
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig, from_values, read_toml
from tests.edited import loaded

EDITS = int(os.environ.get("SMX_EDITS", "120"))
"""Of each format; SMX_EDITS=5000 for a longer attack."""


def deep(depth: int = 10_000) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 80_000_000, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "relu", "\0", "\x1b[2J", "ä" * 2000, "\ud800", "a\nb", "../x", [], {}, [[]], [None],
    [1, "x", None], {"x": {}}, {"": None}, list(range(300)), [80_000_000, 80_000_000], deep(100),
]  # fmt: skip
TENSORS: list[Any] = [
    torch.zeros(0), torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(80_000_000, 0),
    torch.tensor([9, -1]), torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.complex64),
    torch.zeros(1).expand(80_000_000), torch.zeros(3).bool(),
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key or index of a structure."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def edited(content: dict[str, Any], seed: int, values: list[Any]) -> dict[str, Any]:
    """Return a copy with one or two values replaced, removed, added, swapped or wrapped."""
    draw = random.Random(seed)
    content = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 2])):
        owner, key = draw.choice(list(places(content)) or [(content, next(iter(content), "x"))])
        match draw.choice(["replace", "replace", "replace", "remove", "add", "rename", "wrap", "repeat"]):
            case "remove":
                del owner[key]
            case "add" if isinstance(owner, dict):
                owner[draw.choice(["extra", "", "\x1b[2J", key])] = copy.copy(draw.choice(values))
            case "rename" if isinstance(owner, dict):
                owner[draw.choice(["x", "training", "a..b", 7])] = owner.pop(key)
            case "wrap":
                owner[key] = [owner.get(key)] if isinstance(owner, dict) else {"x": owner[key]}
            case "repeat" if isinstance(owner, list):
                owner.extend(owner[:50] * 3)
            case _:
                owner[key] = copy.copy(draw.choice(values))
    return content


def attack(load: Callable[[int], object]) -> None:
    """Load every edit; some must be refused, each in a line that can be printed, and memory must not grow."""
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(EDITS):
        try:
            load(seed)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error), seed  # noqa: PT017
            assert len(str(error)) < 1500, seed  # noqa: PT017
        except Exception as error:
            raise AssertionError(f"edit {seed}") from error
    assert EDITS / 4 < refused < EDITS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024  # KiB


def test_model_pt(run: Path, tmp_path: Path) -> None:
    content, path = torch.load(run / "model.pt", weights_only=True), tmp_path / "model.pt"

    def load(seed: int) -> None:
        save(edited(content, seed, VALUES + TENSORS), path)
        smx.load(path)

    attack(load)


def test_model_pt_of_a_network_of_any_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))
    path = tmp_path / "model.pt"
    smx.save(smx.select(net, example_input=torch.randn(2, 4)), path, example_input=torch.randn(2, 4))
    content = torch.load(path, weights_only=True)

    def load(seed: int) -> None:
        save(edited(content, seed, VALUES + TENSORS), path)
        load_model(path)

    attack(load)


def test_checkpoint_pt(run: Path, tmp_path: Path) -> None:
    content, path = torch.load(run / "checkpoint.pt", weights_only=True), tmp_path / "checkpoint.pt"

    def load(seed: int) -> None:
        save(edited(content, seed, VALUES + TENSORS), path)
        Checkpoint.load(path)

    attack(load)


def save(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


def as_json(value: Any) -> str:
    """Return JSON, in which NaN stands as Python writes it."""
    return json.dumps(value)


def test_onnx_metadata(exported: Path) -> None:
    properties = {entry.key: entry.value for entry in loaded(exported).metadata_props}
    assert ModelInfo.from_properties(properties)
    words = {f"smx.{name}" for name in ("smx_version", "architecture", "layout", "precision")}
    content = {key: text if key in words else json.loads(text) for key, text in properties.items()}

    def load(seed: int) -> None:
        changed = edited(content, seed, VALUES)
        texts = {
            str(key): value if key in words and isinstance(value, str) else as_json(value)
            for key, value in changed.items()
        }
        info = ModelInfo.from_properties(texts)
        assert info is None or all(isinstance(layer.neurons, int) for layer in info.layers)

    attack(load)
    for nested in ("[" * 10_000, '{"a":' * 10_000):
        with pytest.raises(InputError, match="metadata is damaged"):
            ModelInfo.from_properties({**properties, "smx.layers": nested})


def test_metadata_that_is_no_text(exported: Path, tmp_path: Path) -> None:
    model = loaded(exported)
    content = model.SerializeToString().replace(b"smx.architecture\x12", b"smx.architectur\xff\x12")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx: the model's metadata is no UTF-8 text; export it again"):
        Session(tmp_path / "m.onnx").info  # noqa: B018


def test_tuning_file(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    tuning = Tuning(
        model=fingerprint(path),
        settings=Session(path).settings,
        provider="cpu",
        batch_size=1,
        goal="p50",
        file="v.onnx",
    )
    content = json.loads(tuning.to_json())

    def load(seed: int) -> None:
        changed = edited(content, seed, [*VALUES, 10_000])
        tuning_path(path).write_text(as_json(changed))
        assert has_own_variant(path) is False
        read_tuning(path, "cpu")

    attack(load)
    for text in (b"[" * 10_000, b'{"a":' * 10_000, b"\xff\xfe", b"", b"x" * 2**21):
        tuning_path(path).write_bytes(text)
        with pytest.raises(InputError, match="run smx tune again"):
            read_tuning(path, "cpu")


def test_more_threads_than_any_machine_has(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    given = {"format": "smx-tuning", "model": fingerprint(path), "settings": {"threads": 10_000}, "provider": "cpu"}
    tuning_path(path).write_text(json.dumps({**given, "batch_size": 1, "goal": "p50"}))
    with pytest.raises(InputError, match=r"can't be read \(threads must be at most 256, got 10000\); remove it"):
        Session(path)


def test_settings_of_a_run() -> None:
    content = TrainConfig().to_dict()

    def load(seed: int) -> None:
        from_values({str(key): value for key, value in edited(content, seed, [*VALUES, 10**400]).items()})

    attack(load)


TOML = [
    b"\xff\xfe", b"lr = 1" + b"0" * 5000, b"seed = 0x" + b"f" * 9000, b"lr = nan", b"lr = -inf",
    b"hidden = " + b"[" * 10_000, b"hidden = " + b"[" * 900 + b"]" * 900, b"x = {y = 1}", b"data = []", b"pool = [[]]",
    b"hidden = [1, [2]]", b"[hidden]\na = 1", b"seed = 1979-05-27", b"a" * 100_000, b"hidden = [10000000000]",
    b"phase1_epochs = 10000000000", b"batch_size = 1000000000", b"pool = []", b'data = "\\ud800"', b"lr = '''\n'''",
    b"\0", b"lr = 1\r", b"hidden = true",
]  # fmt: skip


@pytest.mark.parametrize("text", TOML, ids=lambda text: repr(text[:20]))
def test_settings_in_toml(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for head, read in ((b"", lambda: from_values(read_toml(path))), (b"[base]\n", lambda: read_grid(path).cells())):
        path.write_bytes(head + text)
        with pytest.raises(InputError) as refusal:
            read()
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 1500


def test_a_small_file_of_a_large_network(tmp_path: Path, run: Path) -> None:
    """Nine kilobytes that say 80 million neurons."""
    content, path = torch.load(run / "model.pt", weights_only=True), tmp_path / "model.pt"
    for kind, message in (
        ({"kind": "mlp", "sizes": [64, 80_000_000, 10]}, r"Expected int <= 1048576"),
        ({"kind": "mlp", "sizes": [64, 1_000_000, 1_000_000, 10]}, r"has 1000076000010 parameters, and the file \d+"),
        (
            {"kind": "cnn", "input_shape": [1, 8000, 8000], "channels": [16, 32, 64], "num_classes": 10},
            "parameters, and",
        ),
        ({"kind": "cnn", "input_shape": [1, 80_000, 80_000], "channels": [1], "num_classes": 1}, "values at most"),
        ({"kind": "gru", "sizes": [64, 10]}, "Invalid value 'gru'"),
    ):
        save({**content, "architecture": kind}, path)
        with pytest.raises(InputError, match=message):
            load_model(path)


def test_a_file_of_a_later_format_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    for name, load in (("model.pt", load_model), ("checkpoint.pt", Checkpoint.load)):
        content = torch.load(run / name, weights_only=True)
        save({**content, "version": 2}, tmp_path / name)
        with pytest.raises(InputError, match="has format version 2, this smx reads up to 1; upgrade smartmixed"):
            load(tmp_path / name)


def test_the_names_of_an_onnx_file_that_are_no_text(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[b,2] x) => (float[b,2] yyyy) { yyyy = Neg(x) }'
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"Neg", b"\xff\xfe\xfd"))
    for use in (Session, smx.describe):
        with pytest.raises(InputError, match=r"m\.onnx is no"):
            use(path)
