from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError
from smx.runtime import tuning as tuning_module
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, fingerprint, has_own_variant, read_tuning, tuning_path, variant_path
from smx.timing.machine import machine
from tests.runtime.fakes import PLUS_TWO, save

BEST = Settings(threads=2, spinning=False, optimization="basic")
X = np.zeros((1, 3), np.float32)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def tuned(path: Path, **others: Any) -> Tuning:
    """Leave a tuning beside a model and return it."""
    values = {"model": digest(path), "settings": BEST, "provider": "cpu", "batch_size": 16, "goal": "p99", **others}
    tuning = Tuning(**values)
    tuning_path(path).write_text(tuning.to_json(), encoding="utf-8")
    return tuning


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "m.onnx")


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    return save(tmp_path / "variant.onnx", PLUS_TWO)


def in_use(session: Session) -> tuple[int, str]:
    """Return what ONNX Runtime was really told: the number of threads, and whether they spin."""
    inner: Any = session._session
    options = inner.get_session_options()
    return options.intra_op_num_threads, options.get_session_config_entry("session.intra_op.allow_spinning")


def test_where_it_lies_and_what_stands_in_it(model: Path) -> None:
    assert tuning_path(model) == tuning_path(str(model)) == model.parent / "m.onnx.tune.json"
    assert fingerprint(model) == digest(model)
    tuned(model, gain={"p99": 1.25})
    text = tuning_path(model).read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "format": "smx-tuning", "version": 1,
        "model": digest(model), "provider": "cpu", "batch_size": 16, "goal": "p99",
        "settings": {"threads": 2, "spinning": False, "execution_mode": "sequential", "optimization": "basic"},
        "file": None, "file_hash": None, "gain": {"p99": 1.25}, "machine": machine(),
    }  # fmt: skip


def test_it_is_read_back(model: Path, variant: Path) -> None:
    assert read_tuning(model, "cpu") == (None, None)
    tuning = tuned(model, gain={"ä": [1, 2]}, file="variant.onnx", file_hash=digest(variant))
    assert read_tuning(model, "cpu") == (tuning, None)
    assert read_tuning(str(model), "cpu") == (tuning, None)


def test_why_it_is_not_used(model: Path, variant: Path) -> None:
    here = machine()

    def note(provider: str = "cpu", **others: Any) -> str:
        tuned(model, **others)
        tuning, note = read_tuning(model, provider)
        assert tuning is None
        assert note is not None
        assert note.startswith("m.onnx.tune.json is not used: ")
        return note.removeprefix("m.onnx.tune.json is not used: ")

    assert note("cuda") == "it is for the provider cpu"
    assert note(model=digest(variant)) == "the model is another one since smx tune"
    for key in ("processor", "cores", "onnxruntime"):
        assert note(machine={**here, key: "another"}) == "it was made on another machine or ONNX Runtime"
        assert "another machine" in note(machine={name: value for name, value in here.items() if name != key})
    missing = "variant.onnx is missing, or another one since smx tune"
    assert note(file="variant.onnx", file_hash=digest(model)) == missing
    assert note(file="variant.onnx") == missing
    variant.unlink()
    assert note(file="variant.onnx", file_hash=digest(model)) == missing


GOOD: dict[str, Any] = {
    "format": "smx-tuning", "model": "0", "settings": {}, "provider": "cpu", "batch_size": 1, "goal": "p50",
}  # fmt: skip
BAD: dict[str, Any] = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "no object": [],
    "another format": {**GOOD, "format": "other"},
    "no settings": {key: value for key, value in GOOD.items() if key != "settings"},
    "something else": {**GOOD, "colour": "red"},
    "unknown setting": {**GOOD, "settings": {"speed": 2}},
    "threads in words": {**GOOD, "settings": {"threads": "two"}},
    "spinning in words": {**GOOD, "settings": {"spinning": "no"}},
    "mode of another kind": {**GOOD, "settings": {"execution_mode": []}},
    "machine of another kind": {**GOOD, "machine": []},
    "file of another kind": {**GOOD, "file": 3},
    "file without a name": {**GOOD, "file": ""},
}


@pytest.mark.parametrize("content", BAD.values(), ids=list(BAD))
def test_damaged_files(content: Any, model: Path) -> None:
    tuning_path(model).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    for read in (lambda: read_tuning(model, "cpu"), lambda: Session(model)):
        with pytest.raises(
            InputError, match=r"m\.onnx\.tune\.json can't be read \([^\n]+\); remove it, or run smx tune again$"
        ):
            read()
    Session(model, settings=Settings())  # where the settings are given, the file is not asked


def test_a_session_runs_as_tuned(model: Path, variant: Path) -> None:
    plain = Session(model)
    assert (plain.settings, plain.tuning, plain.note) == (Settings(), None, None)
    tuning = tuned(model)
    session = Session(model)
    assert (session.settings, session.tuning, session.note) == (BEST, tuning, None)
    assert in_use(session) == (2, "0")
    np.testing.assert_array_equal(session.run(X), X + 1)

    tuning = tuned(model, file="variant.onnx", file_hash=digest(variant))
    session = Session(str(model))
    assert (session.settings, session.tuning, session.name) == (BEST, tuning, str(model))
    np.testing.assert_array_equal(session.run(X), X + 2)


def test_what_is_given_goes_first(model: Path, variant: Path) -> None:
    tuning = tuned(model, file="variant.onnx", file_hash=digest(variant))
    session = Session(model, threads=1)
    assert (session.settings, session.tuning) == (replace(BEST, threads=1), tuning)
    assert in_use(session) == (1, "0")
    for options in ({"settings": Settings(threads=3)}, {"settings": Settings(), "threads": 3}):
        session = Session(model, **options)
        assert (session.settings, session.tuning, session.note) == (Settings(threads=3), None, None)
        assert in_use(session) == (3, "1")
        np.testing.assert_array_equal(session.run(X), X + 1)
    from_bytes = Session(model.read_bytes())
    assert (from_bytes.settings, from_bytes.tuning, from_bytes.note) == (Settings(), None, None)


def test_the_machine_is_the_one_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(model)
    monkeypatch.setattr(tuning_module, "machine", lambda: {**machine(), "cores": 999})
    assert Session(model).note == "m.onnx.tune.json is not used: it was made on another machine or ONNX Runtime"


def test_in_words(model: Path) -> None:
    assert tuned(model).describe() == f"{BEST.describe()}; for the p99 of batch 16"
    assert tuned(model, file="variant.onnx").describe().startswith(f"variant.onnx, {BEST.describe()};")
    defaults = tuned(model, settings=Settings())
    assert defaults.describe() == "the defaults stay; for the p99 of batch 16"
    assert defaults.keeps_defaults
    assert not tuned(model).keeps_defaults
    assert not tuned(model, settings=Settings(), file="variant.onnx").keeps_defaults


def test_a_variant_is_its_own_where_the_tuning_says_so(model: Path) -> None:
    variant = variant_path(str(model))
    assert variant == model.with_name("m.tuned.onnx")
    assert not has_own_variant(model)
    save(variant, PLUS_TWO)
    assert not has_own_variant(model), "somebody else's"
    tuned(model, file=variant.name, file_hash=digest(variant))
    assert has_own_variant(model)
    for others in (
        {"file": variant.name, "file_hash": digest(model)}, {"file": "other.onnx", "file_hash": digest(variant)}, {},
    ):  # fmt: skip
        tuned(model, **others)
        assert not has_own_variant(model)
    for content in ("", "[]", "{}"):
        tuning_path(model).write_text(content)
        assert not has_own_variant(model)
