from __future__ import annotations

import errno
from pathlib import Path

import pytest

from smx import files
from smx.errors import InputError, SmxError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    files.write_bytes(path, b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SmxError, match=r"model\.pt could not be written: No space left on device") as caught:
        files.write_bytes(path, b"new")
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_in_between_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    files.write_text(path, "old")

    def interrupted() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="does not exist; create it"):
        files.write_text(tmp_path / "missing" / "a", "")
    with pytest.raises(InputError, match="is a folder"):
        files.write_text(tmp_path, "")
    with pytest.raises(InputError, match="can't be created"):
        files.make_folder(tmp_path / "file" / "run")
