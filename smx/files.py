"""Files that are written completely or not at all, and folders for one process at a time. Standard library only."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from smx.errors import InputError, SmxError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".smx.lock"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, else remove it.

    A failed or killed writer leaves the old file as it was.

    Raises:
        InputError: the folder is missing or can't be written to.
        SmxError: writing failed, for example because the disk is full.
    """
    target = Path(path)
    temporary = _temporary(target, os.getpid())
    check_writable(target)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        if fcntl:  # so that the rename lasts through a power cut; Windows can't open folders
            descriptor = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise SmxError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(target: Path, pid: object) -> Path:
    return target.with_name(f".{target.name}.{pid}.tmp")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` as UTF-8 to `path` through `replacing`."""
    write_bytes(path, content.encode())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise InputError if no new file can be written to `path`, before hours are spent on its content."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the name of a file in it")
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} for {target.name} does not exist; create it or choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"the folder {folder} may not be written to; choose another path for {target.name}")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path` with its parents, or take the one that is there, and check that it can be written.

    Raises:
        InputError: it can't be created, or may not be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} can't be created ({error.strerror}); choose another path") from error
    check_writable(folder / "file")
    return folder


@contextmanager
def locked(folder: Path, outputs: Sequence[str]) -> Iterator[None]:
    """Keep `folder` for this process until the end of the block, or of the process, however it ends.

    A process that was killed leaves its number in the lock file, and the next one to lock the folder removes the
    temporary files that the killed one may have left of `outputs`: no other file is touched.

    The lock is `flock`'s. Over NFS it works between machines if the server supports locks. Where there is no `flock`,
    as on Windows, or the file system refuses it, nothing is locked.

    `outputs` are the names of the files that the process writes there by `replacing`.

    Raises:
        InputError: another process has the folder; the message names it.
    """
    file = _lock(folder)
    if file is None:
        yield
        return
    with file:
        killed = _owner(file).get("pid")
        for name in outputs if isinstance(killed, int) else ():
            _temporary(folder / name, killed).unlink(missing_ok=True)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": started}, file)
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # while it is locked, so that nobody locks a file that is gone


def _lock(folder: Path) -> TextIO | None:
    """Open and lock the folder's lock file; None where locks are not supported."""
    path = folder / LOCK
    while fcntl is not None:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                owner = _owner(file)
            raise InputError(
                f"{folder} is in use by another run: process {owner.get('pid')} on {owner.get('host')}, started"
                f" {owner.get('started')}; wait until it has ended, or choose another --out"
            ) from error
        except OSError:
            file.close()
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # its owner removed it between our two calls
    return None


def _owner(file: TextIO) -> dict[str, object]:
    file.seek(0)
    try:
        owner = json.load(file)
    except ValueError:  # empty: the owner has just opened it
        return {}
    return owner if isinstance(owner, dict) else {}
