from __future__ import annotations

import errno
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from smx import files
from smx.errors import InputError, SmxError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"model\.pt could not be written: No space left on device"),
        (KeyboardInterrupt("stop"), "stop"),
    ],
)
def test_a_failed_write_leaves_the_old_file(error: BaseException, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    files.write_bytes(path, b"old")

    def fail() -> None:
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises((SmxError, KeyboardInterrupt), match=message) as caught:
        fail()
    assert getattr(caught.value, "exit_code", 1) == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="does not exist; create it"):
        files.write_text(tmp_path / "missing" / "a", "")
    with pytest.raises(InputError, match="is a folder"):
        files.write_text(tmp_path, "")
    with pytest.raises(InputError, match="can't be created"):
        files.make_folder(tmp_path / "file" / "run")


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
    first = rf"in use by another run: process {process.pid} on {socket.gethostname()}, started 20"
    with pytest.raises(InputError, match=first), files.locked(tmp_path, ()):
        pass
    process.kill()
    process.communicate()
    left = tmp_path / f".model.pt.{process.pid}.tmp"
    assert left.exists()
    with files.locked(tmp_path, ("model.pt",)):
        assert not left.exists()
        assert (tmp_path / files.LOCK).exists()
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
