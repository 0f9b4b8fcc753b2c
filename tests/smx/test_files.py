from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def test_a_second_user_of_a_folder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = rf"in use by another run: process {os.getpid()} on {socket.gethostname()}, started 20"
    with files.locked(tmp_path, ()):
        with pytest.raises(InputError, match=first), files.locked(tmp_path, ()):
            pass
        assert (tmp_path / files.LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with files.locked(tmp_path, ()):
        pass


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from smx import files

folder = Path(sys.argv[1])
with files.locked(folder, ("model.pt",)), files.replacing(folder / "model.pt") as temporary:
    temporary.touch()
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_lock_dies_with_its_process_and_what_that_left_is_removed(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".notes.tmp", ".model.pt.1.tmp", "model.pt")]
    for path in others:
        path.write_text("the user's")
    (tmp_path / ".folder.tmp").mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"process {process.pid} on"), files.locked(tmp_path, ()):
        pass
    process.kill()
    process.communicate()
    left = tmp_path / f".model.pt.{process.pid}.tmp"
    assert left.exists()
    with files.locked(tmp_path, ("model.pt",)):
        assert not left.exists()
    assert {*tmp_path.iterdir()} == {*others, tmp_path / ".folder.tmp"}
    assert {path.read_text() for path in others} == {"the user's"}


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pid": "../../x"}'])
def test_a_lock_file_that_no_run_wrote(content: str, tmp_path: Path) -> None:
    (tmp_path / files.LOCK).write_text(content)
    with files.locked(tmp_path, ("model.pt",)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [None, OSError(errno.ENOTSUP, "not supported")])
def test_where_there_are_no_locks_a_run_goes_on(
    fails: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, flags: int) -> None:
        assert fails is not None
        raise fails

    monkeypatch.setattr(files, "fcntl", None if fails is None else SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    entered = []
    with files.locked(tmp_path, ()), files.locked(tmp_path, ()):
        entered.append(True)
    assert entered
