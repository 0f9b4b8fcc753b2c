"""The models of a server: found in a file or a folder, loaded, and loaded anew when a file is replaced."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from smx.errors import InputError, SmxError, one_line
from smx.runtime.graph import weight_files
from smx.runtime.serving.model import ServedModel
from smx.runtime.serving.protocol import Cause, Refusal
from smx.runtime.tuning import tuning_path, variant_path

NUMBER = re.compile(r"[1-9][0-9]*")
"""A version, as Triton has it: without zeros in front."""
VERSION = "1"
"""Of a model whose file does not stand in a folder of versions."""

Key = tuple[str, str]
Load = Callable[[Path, str, str], ServedModel]


@dataclass
class Entry:
    """A version of a model.

    Attributes:
        path: of its file.
        stamp: which state of the file, or files, was tried last; see `stamp`.
        model: what answers; None if no state of the file could be loaded.
        error: why the last state could not be loaded.
    """

    path: Path
    stamp: object = None
    model: ServedModel | None = None
    error: str | None = None


class Repository:
    """The models of a file or a folder.

    A folder holds `NAME.onnx` files, or as in a Triton model repository `NAME/VERSION/model.onnx`, VERSION a whole
    number from 1 on; or both. What can't be read is reported and left out.

    Args:
        source: the file or the folder.
        load: makes a served model of a path, a name and a version.
        report: is called with an event's name and its fields: `loaded`, `refused`, `removed`, `skipped`.

    Raises:
        InputError: there is no model, or one that can't be loaded.
    """

    def __init__(self, source: Path, load: Load, report: Callable[..., None]) -> None:
        self.source, self.load, self.report = source, load, report
        self.entries: dict[Key, Entry] = {}
        self._skipped: set[str] = set()
        found = {key: _only(key, paths) for key, paths in self._look().items()}
        if not found:
            raise InputError(f"{source} holds no NAME.onnx and no NAME/VERSION/model.onnx file")
        for key, path in found.items():
            self.entries[key] = entry = Entry(path, (stamp(path),))
            entry.model = load(path, *key)
            self._report_loaded(entry)

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return the model that answers; without a version, the latest.

        Raises:
            Refusal: there is none.
        """
        versions = {key[1]: entry for key, entry in self.entries.items() if key[0] == name and entry.model is not None}
        if version and version in versions:
            found = versions[version].model
        elif versions and not version:
            found = versions[max(versions, key=int)].model
        else:
            what = f"no version {version!r:.50} of the model {name!r:.50}" if versions else f"no model {name!r:.50}"
            raise Refusal(Cause.NOT_FOUND, f"there is {what} here")
        assert found is not None
        return found

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that answer, the latest last."""
        found = [version for (each, version), entry in self.entries.items() if each == name and entry.model]
        return sorted(found, key=int)

    @property
    def names(self) -> list[str]:
        """The names of all models."""
        return sorted({name for name, _ in self.entries})

    @property
    def ready(self) -> bool:
        """Whether each model has a version that answers."""
        return all(self.versions(name) for name in self.names)

    def index(self, ready: bool = False) -> list[dict[str, Any]]:
        """Return name, version, state and reason of every version, or of those that answer, as in Triton."""
        return [
            {"name": name, "version": version, "state": "READY" if entry.model else "UNAVAILABLE"}
            | ({"reason": entry.error.replace(f"{entry.path.parent}/", "")} if entry.error else {})
            for (name, version), entry in sorted(self.entries.items())
            if entry.model or not ready
        ]

    async def refresh(self) -> None:
        """Load what is new or replaced, and drop what is gone. A file that can't be loaded changes nothing else.

        Requests that wait for a replaced model are answered by it; later ones by the new one.
        """
        found = self._look()
        for key, paths in found.items():
            entry = self.entries.get(key) or Entry(paths[0])
            now = tuple([await asyncio.to_thread(stamp, path) for path in paths])
            if now == entry.stamp or None in now:
                continue
            entry.path, entry.stamp = paths[0], now
            self.entries[key] = entry
            try:
                fresh = await asyncio.to_thread(self.load, _only(key, paths), *key)
            except (SmxError, OSError, MemoryError) as error:
                entry.error = one_line(error)
                self.report(
                    "refused", model=key[0], version=key[1], reason=entry.error, still_serving=bool(entry.model)
                )
                continue
            old, entry.model, entry.error = entry.model, fresh, None
            self._report_loaded(entry)
            if old is not None:
                old.batcher.close()
        if self.source.is_dir():  # a single file that is gone for a moment keeps its model
            for key in self.entries.keys() - found.keys():
                gone = self.entries.pop(key).model
                self.report("removed", model=key[0], version=key[1])
                if gone is not None:
                    gone.batcher.close()

    async def watch(self, seconds: float) -> None:
        """Look for changes every so often, for ever."""
        said = None
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
                said = None
            except Exception as error:  # a folder that is just being moved, say; the next look may be better
                if said != (said := one_line(error)):
                    self.report("failed", error=f"looking for models: {said}")

    def _look(self) -> dict[Key, list[Path]]:
        """Return the files of each version of a model, of which there should be one; report once what can't be read."""
        found: dict[Key, list[Path]] = {}
        skipped: dict[str, str] = {}
        for key, path in find_models(self.source, lambda path, error: skipped.update({str(path): one_line(error)})):
            found.setdefault(key, []).append(path)
        for folder, reason in skipped.items():
            if folder not in self._skipped:
                self.report("skipped", path=folder, reason=reason)
        self._skipped = {*skipped}
        return found

    def _report_loaded(self, entry: Entry) -> None:
        model = entry.model
        assert model is not None
        self.report(
            "loaded",
            model=model.name,
            version=model.version,
            path=str(model.path),
            seconds=round(model.load_seconds, 3),
            batched=model.batched,
            settings=model.session.settings.describe(),
            note=model.session.note,
        )


def find_models(
    source: Path, skip: Callable[[Path, OSError], None] = lambda path, error: None
) -> Iterator[tuple[Key, Path]]:
    """Find the models of a file or a folder; what `smx tune` put beside a model is none of its own.

    `skip` is called with a folder in it that can't be read, as `lost+found` at the top of a disk.
    """
    if not source.is_dir():
        yield (source.stem, VERSION), source
        return
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix == ".onnx" and path.is_file():
            plain = path.with_name(path.name.removesuffix(".tuned.onnx") + ".onnx")
            if not (plain != path and variant_path(plain) == path and tuning_path(plain).exists()):
                yield (path.stem, VERSION), path
        elif path.is_dir():
            try:
                for version in path.iterdir():
                    if NUMBER.fullmatch(version.name) and (version / "model.onnx").is_file():
                        yield (path.name, version.name), version / "model.onnx"
            except OSError as error:
                skip(path, error)


def _only(key: Key, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        other, one, *_ = paths
        raise InputError(f"{one} and {other} are both version {key[1]} of the model {key[0]}; remove one")
    return paths[0]


def stamp(path: Path) -> object:
    """Return what changes when a file, its weights in other files or its tuning are replaced; None if it is gone."""
    own = _state(path)
    if own is None:
        return None
    return (own, *(_state(path.parent / name) for name in _weights(path, own)), _state(tuning_path(path)))


def _state(path: Path) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116
        return found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return None


@lru_cache(maxsize=1000)
def _weights(path: Path, state: object) -> Sequence[str]:
    """Return the other files of weights of a model in a certain state; none of what is no model."""
    try:
        return weight_files(path)
    except InputError:
        return ()
