"""Files that were damaged, or whose structure was changed: each loads or is refused in a line, in little memory."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import smx
from smx.errors import InputError
from smx.modelfile import load_model
from smx.prices import load_prices
from smx.runtime import Session
from smx.runtime.metadata import ModelInfo
from smx.runtime.tuning import fingerprint, read_tuning, tuning_path
from smx.study.grid import read_grid
from smx.training.checkpoint import Checkpoint
from smx.training.config import from_values, read_toml
from tests.edited import loaded
from tests.hostile.files import attack, can
from tests.hostile.formats import formats, named

EDITS = 60
"""Of each format. `make test-hostile` makes thousands."""


WAYS = ["damage", "edits"]


@pytest.mark.parametrize("way", WAYS)
def test_every_format(way: str, run: Path, exported: Path, tmp_path: Path) -> None:
    attacked = [format for format in formats(tmp_path, run, exported) if can(way, format)]
    assert len(attacked) >= 6
    for format in attacked:
        found = attack(way, format, tmp_path, range(EDITS))
        assert not found.failures
        assert found.outcomes["refused in one line"] > EDITS / 5, format.name
        assert found.cases == EDITS


def test_a_format_that_is_read_carelessly_is_noticed(run: Path, exported: Path, tmp_path: Path) -> None:
    """Otherwise the test above would notice nothing either."""
    model, tuning = (named(formats(tmp_path, run, exported), name) for name in ("model.pt", "tuned.onnx.tune.json"))
    careless = replace(model, load=lambda path: str(torch.load(path, weights_only=True)["weights"]))
    found = attack("damage", careless, tmp_path, range(60))
    assert {"FAILED", "loaded, unchanged"} <= set(found.outcomes)
    assert any("it loaded as another" in failure for failure in found.failures)
    assert any("Error" in failure for failure in found.failures)
    trusting = replace(tuning, load=lambda path: str(json.loads(path.read_bytes())["settings"]["threads"]))
    assert any("KeyError" in failure for failure in attack("edits", trusting, tmp_path, range(60)).failures)


def save(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


def test_metadata_that_is_nested_deep(exported: Path) -> None:
    properties = {entry.key: entry.value for entry in loaded(exported).metadata_props}
    for nested in ("[" * 10_000, '{"a":' * 10_000):
        with pytest.raises(InputError, match="metadata is damaged"):
            ModelInfo.from_properties({**properties, "smx.layers": nested})


def test_metadata_that_is_no_text(exported: Path, tmp_path: Path) -> None:
    model = loaded(exported)
    content = model.SerializeToString().replace(b"smx.architecture\x12", b"smx.architectur\xff\x12")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx: the model's metadata is no UTF-8 text; export it again"):
        Session(tmp_path / "m.onnx").info  # noqa: B018


def test_a_tuning_file_of_something_else(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
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
        ({"kind": "mlp", "sizes": [64, 80_000_000, 10]}, r"Expected int <= 67108864"),
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


def test_a_message_is_never_long() -> None:
    """It may quote a library's error, which quotes the file; what came and what to do stand at its ends."""
    message = str(InputError("data.npz can't be read (" + "\\xff" * 5000 + "); expected x and y"))
    assert len(message) < 1010
    assert message.startswith("data.npz can't be read (")
    assert message.endswith("); expected x and y")


def test_a_price_that_is_no_table(tmp_path: Path) -> None:
    content = json.loads((Path(smx.__file__).parent / "prices.json").read_text())
    for name in ("fused", "dense", "split"):
        (tmp_path / "p.json").write_text(json.dumps({**content, name: 7}))
        with pytest.raises(InputError, match=r"p\.json is no price file \(.*\); write one"):
            load_prices(tmp_path / "p.json")
