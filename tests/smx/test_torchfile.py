from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smx import torchfile
from smx.errors import InputError

FORMAT = "smx-model"


def equal(a: Any, b: Any) -> bool:
    """Whether two contents are the same, with the dtypes and bits of their tensors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b or (a != a and b != b))


def refuse(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        torchfile.load(path, FORMAT)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "format"), [("model.pt", "smx-model"), ("checkpoint.pt", "smx-checkpoint")])
def test_a_flipped_bit_is_noticed_or_changes_nothing(name: str, format: str, run: Path, tmp_path: Path) -> None:
    whole, content = (run / name).read_bytes(), torchfile.load(run / name, format)
    size, path, noticed = len(whole), tmp_path / name, 0
    with zipfile.ZipFile(run / name) as archive:
        directory = archive.start_dir
    # Everywhere, and where a flip is most likely to be overlooked: in the directory and what follows it.
    places = [*range(0, directory, directory // 150), *range(directory, size, (size - directory) // 250)]
    for i, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            loaded = torchfile.load(path, format)
        except InputError:
            noticed += 1
        else:
            assert equal(loaded, content), f"bit {i % 8} of byte {place}"
    assert noticed > len(places) // 2


def test_a_directory_entry_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """PyTorch would take whatever is in the memory for the weights of such a member."""
    path = tmp_path / "m.pt"
    torchfile.save(path, FORMAT, {"weights": {"w": torch.zeros(4)}})
    with zipfile.ZipFile(path) as archive:
        entry = [member.filename for member in archive.infolist()].index("archive/data/0")
        start = archive.start_dir
    content = bytearray(path.read_bytes())
    for _ in range(entry):
        start = content.index(b"PK\x01\x02", start + 1)
    content[start + 38] ^= 16  # external attributes: a folder of DOS
    path.write_bytes(content)
    refuse(path, r"m\.pt is damaged or no file of tensors; expected a smx-model file")


def test_a_file_that_would_unpack_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path, packed = tmp_path / "m.pt", io.BytesIO()
    torchfile.save(path, FORMAT, {"weights": {"w": torch.zeros(1_000_000)}})
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as deflated:
        for member in plain.infolist():
            deflated.writestr(member.filename, plain.read(member))
    path.write_bytes(packed.getvalue())
    assert path.stat().st_size < 100_000
    refuse(path, "is damaged or no file of tensors")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> Any:
    value: Any = "x"
    for _ in range(times):
        value = [value, value]
    return value


def shared() -> Any:
    weight = torch.zeros(1000)
    return {str(i): weight[:] for i in range(1000)}


BOMBS: dict[str, tuple[Callable[[], Any], str]] = {
    "one value as many": (lambda: torch.zeros(1).expand(80_000_000), "tensors of more than its .* bytes"),
    "one tensor as many": (shared, "tensors of more than its .* bytes"),
    "one list as many": (lambda: doubled(31), "more values than its .* bytes"),
    "nesting": (lambda: nested(100), "lists nested more than 32 deep"),
    "digits": (lambda: 10**30, "a whole number of more than 64 bits"),
    "half a character": (lambda: "a\ud800", "text that is not Unicode"),
    "sparse": (lambda: torch.zeros(3).to_sparse(), "a tensor that is no plain array of numbers"),
    "another kind": (lambda: {1, 2}, "a set"),
    "a key of another kind": (lambda: {(1, 2.5): {b"x": 1}}, "a bytes"),
}


@pytest.mark.parametrize(("make", "message"), BOMBS.values(), ids=list(BOMBS))
def test_content_that_no_file_of_ours_holds(make: Callable[[], Any], message: str, tmp_path: Path) -> None:
    path, buffer = tmp_path / "m.pt", io.BytesIO()
    torch.save({"format": FORMAT, "version": 1, "content": make()}, buffer)
    path.write_bytes(buffer.getvalue())
    refuse(path, rf"m\.pt (was refused: it holds {message}|is damaged or no file of tensors)")


def test_tied_weights_may_share_their_memory(tmp_path: Path) -> None:
    weight = torch.arange(3.0)
    content = {"weights": {"encoder": weight, "decoder": weight}}
    torchfile.save(tmp_path / "m.pt", FORMAT, content)
    assert equal(torchfile.load(tmp_path / "m.pt", FORMAT)["weights"], content["weights"])


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchfile.save(tmp_path / "m.pt", FORMAT, {})

    def refused(*args: object) -> None:
        raise PermissionError(13, "Permission denied")  # the mode of a file does not bind root

    monkeypatch.setattr(zipfile, "ZipFile", refused)
    refuse(tmp_path / "m.pt", r"m\.pt may not be read; ask its owner for the right to read it")
