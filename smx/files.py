"""Files that are either whole or not there at all. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smx.errors import InputError, SmxError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, else remove it.

    A failed or killed writer leaves the old file as it was.

    Raises:
        InputError: the folder is missing or can't be written to.
        SmxError: writing failed, for example because the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    check_writable(target)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise SmxError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; where folders can't be opened (Windows) there is no such thing."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` as UTF-8 to `path` through `replacing`."""
    write_bytes(path, content.encode())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse early a path whose folder can't take a new file, before hours are spent on its content.

    Raises:
        InputError: the folder is missing, is a file, or may not be written to; or `path` is a folder.
    """
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
