from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from smx.errors import InputError
from smx.export import export_onnx, external_data
from smx.runtime import Session
from smx.runtime.digest import check_digest
from smx.workflows.describe import describe
from smx.workflows.verify import verify
from tests.edited import loaded
from tests.export.networks import mixed_net

X = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digest") / "m.onnx"
    export_onnx(mixed_net(), path, example_input=torch.zeros(1, 5), layout="sorted")
    return path


def test_the_digest_is_metadata_that_every_reader_of_onnx_sees(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    last = model.metadata_props[-1]
    before = exported.read_bytes()[:-80]
    assert (last.key, last.value) == ("smx.sha256", hashlib.sha256(before).hexdigest())
    assert onnx.ModelProto.FromString(before) == loaded(exported)


def test_a_flipped_bit_is_noticed_or_changes_nothing(exported: Path, tmp_path: Path) -> None:
    whole, expected, info = exported.read_bytes(), Session(exported).run(X), Session(exported).info
    path, noticed = tmp_path / "m.onnx", 0
    places = [*range(0, len(whole) - 160, len(whole) // 200), *range(len(whole) - 160, len(whole))]
    for i, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            session = Session(path)
            found = session.info
        except InputError:
            noticed += 1
        else:
            np.testing.assert_array_equal(session.run(X), expected)
            assert found == info, place
    assert noticed > 0.8 * len(places)


def test_everything_that_opens_a_file_refuses_a_damaged_one(exported: Path, tmp_path: Path) -> None:
    path, damaged = tmp_path / "m.onnx", bytearray(exported.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    message = r"m\.onnx is damaged, or another program changed it after smx export: its SHA-256 does not fit"
    for use in (Session, describe, lambda path: verify(mixed_net(), path, example_input=torch.zeros(1, 5))):
        with pytest.raises(InputError, match=message):
            use(path)
    with pytest.raises(InputError, match="the model is damaged, or another program changed it"):
        Session(bytes(damaged))


def test_changed_files_are_used_once_their_digest_is_removed(exported: Path, tmp_path: Path) -> None:
    """As are those of other tools, and of releases that wrote no digest."""
    path, model = tmp_path / "m.onnx", loaded(exported)
    for edited in (model, onnx.load(exported)):
        edited.graph.doc_string = "edited"
    onnx.save(onnx.load(exported), path)
    np.testing.assert_array_equal(Session(path).run(X), Session(exported).run(X))
    onnx.save(model, path)
    np.testing.assert_array_equal(Session(path).run(X), Session(exported).run(X))
    onnx.save(edited, path)
    with pytest.raises(InputError, match=r"remove smx\.sha256 from its metadata if the change was meant"):
        Session(path)


def test_weights_beside_the_file_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "LARGE", 100)
    path = tmp_path / "m.onnx"
    net = torch.nn.Sequential(torch.nn.Linear(5, 300), torch.nn.ReLU(), torch.nn.Linear(300, 3))
    export_onnx(net, path, example_input=torch.zeros(1, 5))
    Session(path).run(X)
    (weights,) = tmp_path.glob("*.data")
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:99] + bytes([whole[99] ^ 4]) + whole[100:]):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match=r"\.data, the weights of .*m\.onnx, is missing or damaged; export"):
            Session(path)
    weights.unlink()
    with pytest.raises(InputError, match="is missing or damaged"):
        Session(path)


def test_files_that_are_shorter_than_a_digest_pass(tmp_path: Path) -> None:
    for content in (b"", b"x", b"\x72" * 80, b"\x72" * 200):
        (tmp_path / "m.onnx").write_bytes(content)
        check_digest(tmp_path / "m.onnx", "m.onnx")
        check_digest(content, "m.onnx")
