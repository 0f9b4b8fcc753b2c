from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
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


def test_devices_and_pipes_are_written_to(tmp_path: Path) -> None:
    before = Path(os.devnull).stat()
    files.write_text(os.devnull, "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert Path(os.devnull).stat().st_ino == before.st_ino
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    files.write_bytes(tmp_path / "pipe", b"through")
    assert reader.communicate()[0] == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(SmxError, match="/dev/full could not be written: No space left on device"):
        files.write_bytes("/dev/full", b"x")
    code = "from smx import files; files.write_text('/dev/stdout', 'out'); files.write_text('/dev/fd/2', 'err')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("out", "err")


def test_a_file_that_is_open_already_is_written_to(tmp_path: Path) -> None:
    """As by `smx inspect m.onnx --json /dev/stdout >> log`, whose log is not replaced."""
    (tmp_path / "log").write_text("before\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "from smx import files; print('first', flush=True)\n"
        f"for path in ('/dev/stdout', '/proc/self/fd/1', {str(tmp_path / 'link')!r}):\n"
        "    files.write_text(path, path[-3:])\n"
        "print('last')"
    )
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nfirst\noutd/1inklast\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "log"]
    with pytest.raises(InputError, match="/dev/fd/99 is not open for writing; choose another path"):
        files.write_text("/dev/fd/99", "x")


def test_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(Path("elsewhere") / "file")
    for content in (b"new", b"old"):  # it leads to nothing at first
        files.write_bytes(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == link.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"link", "elsewhere"}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_replaced_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    files.write_text(tmp_path / "new", "x")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "new").chmod(mode)
    files.write_text(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    if os.geteuid() == 0:
        os.chown(tmp_path / "new", 12345, 23456)
        files.write_text(tmp_path / "new", "z")
        assert ((tmp_path / "new").stat().st_uid, (tmp_path / "new").stat().st_gid) == (12345, 23456)


def test_any_name_that_a_file_can_have(tmp_path: Path) -> None:
    for name in ("x" * 245, "ä" * 127, os.fsdecode(b"\xff\xfe"), "\x1b[31mred", "a\nb", ".", "a" * 300, "a\0b"):
        if name in (".", "a" * 300, "a\0b"):
            with pytest.raises(InputError):
                files.write_text(tmp_path / name, name)
            continue
        files.write_bytes(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 5


def test_leftovers_are_told_from_what_is_being_written(tmp_path: Path) -> None:
    """Whatever its process: a file that is locked is not touched, and neither is any of another name."""
    others = [tmp_path / name for name in (".smx-0123456789ab.tmp.txt", ".smx-XYZ.tmp", ".notes.tmp")]
    for path in others:
        path.touch()
    folder, link = tmp_path / ".smx-0123456789aa.tmp", tmp_path / ".smx-0123456789ac.tmp"
    folder.mkdir()
    link.symlink_to(others[0])
    left = tmp_path / ".smx-0123456789ab.tmp"
    left.write_text("of a killed export")
    with files.replacing(tmp_path / "a") as first:
        assert not left.exists()
        first.write_text("a")
        with files.replacing(tmp_path / "b") as second:
            second.write_text("b")
        assert first.exists()
    assert {*tmp_path.iterdir()} == {*others, folder, link, tmp_path / "a", tmp_path / "b"}
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("a", "b")


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from smx import files

folder = Path(sys.argv[1])
with files.locked(folder), files.replacing(folder / "model.pt") as temporary:
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
    with pytest.raises(InputError, match=first), files.locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    (left,) = (path for path in tmp_path.iterdir() if files.TEMPORARY.fullmatch(path.name))
    with files.locked(tmp_path):
        assert not left.exists()
        assert (tmp_path / files.LOCK).exists()
    assert {*tmp_path.iterdir()} == {*others, tmp_path / ".folder.tmp"}
    assert {path.read_text() for path in others} == {"the user's"}


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pid": "../../x"}'])
def test_a_lock_file_that_no_run_wrote(content: str, tmp_path: Path) -> None:
    (tmp_path / files.LOCK).write_text(content)
    with files.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("victim"), os.mkfifo], ids=["link", "pipe"])
def test_a_lock_is_never_what_leads_out_of_the_folder(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("the user's")
    make(tmp_path / files.LOCK)
    with (
        pytest.raises(InputError, match=r"can't be the file that locks the folder .*; remove it"),
        files.locked(tmp_path),
    ):
        pass
    assert (tmp_path / "victim").read_text() == "the user's"


@pytest.mark.parametrize("fails", [None, OSError(errno.ENOTSUP, "not supported")])
def test_where_there_are_no_locks_a_run_goes_on(
    fails: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, flags: int) -> None:
        assert fails is not None
        raise fails

    monkeypatch.setattr(files, "fcntl", None if fails is None else SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    entered = []
    with files.locked(tmp_path), files.locked(tmp_path):
        entered.append(True)
    assert entered
