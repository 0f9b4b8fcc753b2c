"""Files that are written completely or not at all, and folders for one process at a time. Standard library only."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TextIO

from smx.ending import eventually
from smx.errors import InputError, SmxError
from smx.limits import TEXT

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

NETWORKS = (".pt", ".pth")
"""A file of `smx.save`, or of `smx train`, ends in one of these."""
LOCK = ".smx.lock"
_FOREIGN = (errno.ELOOP, errno.EINVAL, errno.EISDIR)
"""What opening it ends with if it is a link, a pipe, a device or a folder."""
TEMPORARY = re.compile(r"\.smx-[0-9a-f]{12}\.tmp")
"""Short, so that it fits wherever the name of the file fits; and unique, whatever numbers processes have."""
SCRATCH = re.compile(r"\.smx-[0-9a-f]{12}\.folder")
"""Temporary folders."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; on success what was written to it becomes the content of `path`, else it is removed.

    A regular file is replaced by renaming the temporary one, which lies beside it: a failed or killed writer leaves the
    old file as it was, and the new one keeps its mode. Of a symbolic link the target is replaced. A device or a pipe is
    written to.

    What a killed process of this program has left in the folder is removed: a temporary file is locked as long as its
    process lives, so that others are told from leftovers, also those of other machines and containers.

    Raises:
        InputError: the folder is missing or can't be written to.
        SmxError: writing failed, for example because the disk is full.
    """
    check_writable(path)
    descriptor = _descriptor(path)
    stream = descriptor is not None or _kind(path) not in (0, stat.S_IFREG)
    target = Path(path if stream else os.path.realpath(path))
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    _remove_leftovers(folder)
    try:
        with _temporary(folder) as temporary:
            yield temporary
            if stream:
                sink = target.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
                with temporary.open("rb") as source, sink, suppress(BrokenPipeError):
                    shutil.copyfileobj(source, sink)  # whoever closed a pipe has seen enough
                return
            with temporary.open("rb+") as written:
                _set_mode(written.fileno(), target)
                os.fsync(written.fileno())
            temporary.replace(target)
            with suppress(OSError), _opened(folder) as descriptor:  # the file is there, whatever the folder allows
                if fcntl:  # so that the rename lasts through a power cut
                    os.fsync(descriptor)
    except OSError as error:
        raise SmxError(f"{path} could not be written: {error.strerror or error}") from error


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the number of the open file of this process that a path such as /dev/stdout or /dev/fd/3 stands for.

    Such a path also leads to the file's name; but replaced by that, the file would lose what others wrote to it, and
    whoever has it open would go on writing to one that is gone.
    """
    at = Path(path).absolute()
    for _ in range(40):  # as many links as Linux follows
        if os.path.realpath(at.parent) == os.path.realpath("/dev/fd"):
            return int(at.name) if at.name.isdecimal() else None
        if not at.is_symlink():
            return None
        at = at.parent / at.readlink()
    return None


def _set_mode(written: int, target: Path) -> None:
    """Give an open file the mode and, where that is allowed, the owner of the file that it replaces."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    if fcntl:
        with suppress(OSError):
            os.fchown(written, old.st_uid, old.st_gid)
        os.fchmod(written, stat.S_IMODE(old.st_mode))  # after the owner, whose change takes bits away


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Yield a new file in a folder, which is locked, and removed at the end if it still has its name."""
    while True:
        path = folder / f".smx-{secrets.token_hex(6)}.tmp"
        with eventually(partial(path.unlink, missing_ok=True)), path.open("xb") as file:
            _try_lock(file.fileno())
            if path.exists():  # nobody took it for a leftover before it was locked
                yield path
                return


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new temporary folder, which is removed at the end.

    What killed processes of this program have left beside it is removed too: like a temporary file, the folder is
    locked as long as its process lives.

    Raises:
        SmxError: there is no place for temporary files.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:
        raise SmxError(f"there is no place for temporary files ({error.strerror}); set TMPDIR to a folder") from error
    _remove_leftovers(place)
    while True:
        path = place / f".smx-{secrets.token_hex(6)}.folder"
        with eventually(partial(shutil.rmtree, path, ignore_errors=True)):
            path.mkdir(mode=0o700)
            with _opened(path) as descriptor:
                _try_lock(descriptor)
                if path.exists():
                    yield path
                    return


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder; yield -1 on Windows, which can't."""
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        yield descriptor
    finally:
        if fcntl:
            os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove this program's temporary files whose processes are gone; nothing where files can't be locked."""
    with suppress(OSError):  # the folder may be one whose names can't be read
        for path in folder.iterdir():
            if TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with suppress(OSError), path.open("rb") as file:  # it is gone meanwhile, or another user's
                    if _try_lock(file.fileno()):
                        path.unlink()
            elif SCRATCH.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with suppress(OSError), _opened(path) as descriptor:
                    if os.fstat(descriptor).st_uid == os.geteuid() and _try_lock(descriptor):
                        shutil.rmtree(path, ignore_errors=True)


def _try_lock(file: int) -> bool:
    """Lock an open file until it is closed; False where another process has it, or locks are not supported."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fcntl is not None
    except OSError:
        return False


def read(path: Path | Traversable, most: int = TEXT) -> bytes:
    """Return the content of a file that is read as a whole; a device may have no end, and a pipe a long one.

    Raises:
        InputError: it has more than `most` bytes.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"it has more than {most:,} bytes")
    return content


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` as UTF-8 to `path` through `replacing`."""
    write_bytes(path, content.encode())


def check_suffix(path: Path, *suffixes: str) -> None:
    """Raise InputError if a path that is to be written has another suffix, and may be a file of another kind."""
    if path.suffix not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}, so that no other file is written over")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise InputError if no new file can be written to `path`, before hours are spent on its content."""
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise InputError(f"{path} is a folder; give the name of a file in it")
    if (number := _descriptor(path)) is not None:
        if not _takes(number):
            raise InputError(f"{path} is not open for writing; choose another path")
        return
    if kind not in (0, stat.S_IFREG):  # a device or a pipe
        if not os.access(path, os.W_OK):
            raise InputError(f"{path} may not be written to; choose another path")
        return
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} for {target.name} does not exist; create it or choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"the folder {folder} may not be written to; choose another path for {target.name}")


def _takes(descriptor: int) -> bool:
    """Whether an open file of this process can be written to."""
    try:
        return fcntl is None or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _kind(path: str | os.PathLike[str]) -> int:
    """Return what a path leads to, one of the words S_IF... of `stat`; 0 where there is nothing."""
    try:
        return stat.S_IFMT(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} can't be a file ({reason}); choose another path") from error


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
    check_writable(folder / LOCK)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep `folder` for this process until the end of the block, or of the process, however it ends.

    The lock is `flock`'s. Over NFS it works between machines if the server supports locks. Where there is no `flock`,
    as on Windows, or the file system refuses it, nothing is locked.

    Raises:
        InputError: another process has the folder; the message names it.
    """
    file = _lock(folder)
    if file is None:
        yield
        return
    with file:
        _remove_leftovers(folder)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": started}, file)
        file.flush()
        # Removed while it is locked, so that nobody locks a file that is gone.
        with eventually(partial((folder / LOCK).unlink, missing_ok=True)):
            yield


def _lock(folder: Path) -> TextIO | None:
    """Open and lock the folder's lock file; None where locks are not supported."""
    path = folder / LOCK
    while fcntl is not None:
        try:
            file = open(path, "a+", encoding="utf-8", opener=_own)  # noqa: SIM115 # it stays open with the lock
        except OSError as error:
            if error.errno not in _FOREIGN:
                raise
            raise InputError(f"{path} can't be the file that locks the folder ({error.strerror}); remove it") from error
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


def _own(path: str, flags: int) -> int:
    """Open a file that is neither a link, which may lead out of the folder, nor a device or pipe."""
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return descriptor


def _owner(file: TextIO) -> dict[str, object]:
    file.seek(0)
    try:
        owner = json.load(file)
    except ValueError:  # empty: the owner has just opened it
        return {}
    return owner if isinstance(owner, dict) else {}
