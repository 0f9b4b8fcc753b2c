"""The models of a server: found in a file or a folder, loaded, and loaded anew when a file is replaced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smx.errors import InputError, SmxError, one_line
from smx.runtime.serving.model import ServedModel
from smx.runtime.serving.protocol import Cause, Refusal
from smx.runtime.tuning import tuning_path, variant_path

VERSION = "1"
"""Of a model whose file does not stand in a folder of versions."""

Key = tuple[str, str]
Load = Callable[[Path, str, str], ServedModel]


@dataclass
class Entry:
    """A version of a model.

    Attributes:
        path: of its file.
        stamp: which state of the file was tried last; see `stamp`.
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
    number; or both.

    Args:
        source: the file or the folder.
        load: makes a served model of a path, a name and a version.
        report: is called with an event's name and its fields: `loaded`, `refused`, `removed`.

    Raises:
        InputError: there is no model, or one that can't be loaded.
    """

    def __init__(self, source: Path, load: Load, report: Callable[..., None]) -> None:
        self.source, self.load, self.report = source, load, report
        self.entries: dict[Key, Entry] = {}
        found = unique(find_models(source))
        if not found:
            raise InputError(f"{source} holds no NAME.onnx and no NAME/VERSION/model.onnx file")
        for key, path in found.items():
            self.entries[key] = entry = Entry(path, stamp(path))
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

    def index(self) -> list[dict[str, Any]]:
        """Return name, version, state and reason of every version, as Triton's repository index has it."""
        return [
            {"name": name, "version": version, "state": "READY" if entry.model else "UNAVAILABLE"}
            | ({"reason": entry.error.replace(f"{entry.path.parent}/", "")} if entry.error else {})
            for (name, version), entry in sorted(self.entries.items())
        ]

    async def refresh(self) -> None:
        """Load what is new or replaced, and drop what is gone. A file that can't be loaded changes nothing else.

        Requests that wait for a replaced model are answered by it; later ones by the new one.
        """
        found = unique(find_models(self.source))
        for key, path in found.items():
            entry = self.entries.get(key) or Entry(path)
            if (now := stamp(path)) in (entry.stamp, None):
                continue
            entry.path, entry.stamp = path, now
            self.entries[key] = entry
            try:
                fresh = await asyncio.to_thread(self.load, path, *key)
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


def find_models(source: Path) -> Iterator[tuple[Key, Path]]:
    """Find the models of a file or a folder; what `smx tune` put beside a model is none of its own."""
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
            for version in path.iterdir():
                if version.name.isascii() and version.name.isdigit() and (version / "model.onnx").is_file():
                    yield (path.name, version.name), version / "model.onnx"


def unique(found: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Return where each version of a model is.

    Raises:
        InputError: one has two files.
    """
    paths: dict[Key, Path] = {}
    for key, path in found:
        if key in paths:
            raise InputError(f"{path} and {paths[key]} are both version {key[1]} of the model {key[0]}; remove one")
        paths[key] = path
    return paths


def stamp(path: Path) -> object:
    """Return what changes when a file, its weights beside it or its tuning are replaced; None if the file is gone."""
    states: list[object] = []
    for each in (path, path.with_name(path.name + ".data"), tuning_path(path)):
        try:
            state = os.stat(each)  # noqa: PTH116
            states.append((state.st_ino, state.st_mtime_ns, state.st_size))
        except OSError:
            states.append(None)
    return tuple(states) if states[0] is not None else None
