"""Models found in files and folders, and what happens when those change."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.protocol import InferRequest, Refusal, Tensor
from smx.runtime.serving.repository import Repository, find_models
from smx.runtime.tuning import tuning_path, variant_path
from tests.runtime.fakes import PLUS_ONE, PLUS_TWO, save, save_wide

Event = tuple[str, dict[str, Any]]


def make(source: Path) -> tuple[Repository, list[Event]]:
    """Return a repository, and the list that its events go into."""
    events: list[Event] = []
    load = lambda path, name, version: ServedModel(path, name, version, Loading(threads=1))  # noqa: E731
    return Repository(source, load, lambda event, **fields: events.append((event, fields))), events


async def answer(model: ServedModel, x: float = 0) -> float:
    tensor = Tensor("x", np.full((1, 3), x, np.float32))
    return float((await model.infer(InferRequest(inputs=[tensor]))).outputs[0].array[0, 0])


def replace(path: Path, text: str | bytes) -> None:
    """Put another model in the place of one, as a whole."""
    fresh = path.with_name(".fresh")
    fresh.write_bytes(text) if isinstance(text, bytes) else save(fresh, text)
    os.replace(fresh, path)  # noqa: PTH105


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / name)


def test_what_is_found_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx", "b/1/model.onnx", "b/10/model.onnx", "b/9/model.onnx", "c.tuned.onnx")
    put(tmp_path, ".hidden.onnx", "b/x/model.onnx", "b/2/other.onnx", "d/model.onnx", "b/٣/model.onnx")
    put(tmp_path, "b/0/model.onnx", "b/01/model.onnx", "b/-1/model.onnx")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "e.onnx").mkdir()
    assert {key for key, _ in find_models(tmp_path)} == {
        ("a", "1"), ("b", "1"), ("b", "10"), ("b", "9"), ("c.tuned", "1"),
    }  # fmt: skip
    assert list(find_models(tmp_path / "a.onnx")) == [(("a", "1"), tmp_path / "a.onnx")]


def test_what_smx_tune_wrote_is_no_model_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx")
    save(variant_path(tmp_path / "a.onnx"))
    tuning_path(tmp_path / "a.onnx").write_text("{}")
    assert dict(find_models(tmp_path)) == {("a", "1"): tmp_path / "a.onnx"}


def test_the_latest_version_answers_unless_one_is_named(tmp_path: Path) -> None:
    put(tmp_path, "m/9/model.onnx", "m/10/model.onnx")
    replace(tmp_path / "m/10/model.onnx", PLUS_TWO)
    repository, events = make(tmp_path)
    assert repository.versions("m") == ["9", "10"]
    assert [asyncio.run(answer(repository.find("m", version))) for version in (None, "", "9", "10")] == [2, 2, 1, 2]
    with pytest.raises(Refusal, match=r"there is no version '11' of the model 'm' here"):
        repository.find("m", "11")
    with pytest.raises(Refusal, match=r"there is no model '\.\./m' here"):
        repository.find("../m")
    assert [(name, fields["model"], fields["version"]) for name, fields in events] == [
        ("loaded", "m", version) for version in ("9", "10")
    ]
    assert repository.index() == [{"name": "m", "version": version, "state": "READY"} for version in ("10", "9")]


@pytest.mark.parametrize("content", [None, b"hello"])
def test_a_server_does_not_begin_with_a_model_that_is_none(content: bytes | None, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    if content is None:
        with pytest.raises(InputError, match=r"models holds no NAME\.onnx and no NAME/VERSION/model\.onnx file"):
            make(folder)
    else:
        put(folder, "a.onnx")
        (folder / "b.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.onnx is no model that ONNX Runtime can load"):
            make(folder)


def test_a_name_is_on_one_line(tmp_path: Path) -> None:
    put(tmp_path, "a\nb.onnx")
    with pytest.raises(InputError, match=r"a served model has a name on one line, got 'a\\nb'; rename .*b\.onnx'$"):
        make(tmp_path)


def test_one_version_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx", "a/1/model.onnx")
    with pytest.raises(InputError, match=r"a\.onnx and .*a/1/model\.onnx are both version 1 of the model a; remove"):
        make(tmp_path)
    (tmp_path / "a.onnx").unlink()
    repository, events = make(tmp_path)

    async def test() -> None:
        watching = asyncio.create_task(repository.watch(0.01))
        put(tmp_path, "a.onnx")
        async with asyncio.timeout(20):
            while len(events) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert await answer(repository.find("a")) == 1
        watching.cancel()

    asyncio.run(test())
    assert [name for name, _ in events] == ["loaded", "refused"]  # said once


def test_a_model_with_two_files_stops_no_other(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx", "b.onnx")
    repository, events = make(tmp_path)
    put(tmp_path, "a/1/model.onnx")
    replace(tmp_path / "b.onnx", PLUS_TWO)
    asyncio.run(repository.refresh())
    assert [asyncio.run(answer(repository.find(name))) for name in "ab"] == [1, 2]
    assert [(name, fields["model"]) for name, fields in events[2:]] == [("refused", "a"), ("loaded", "b")]
    assert "are both version 1 of the model a; remove one" in repository.index()[0]["reason"]


def test_a_folder_that_can_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `lost+found`; and told again where it could be read meanwhile."""
    put(tmp_path, "m.onnx", "lost/1/model.onnx")
    closed, real = [tmp_path / "lost"], Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    repository, events = make(tmp_path)
    assert repository.names == ["m"]
    asyncio.run(repository.refresh())
    skipped = "skipped", {"path": str(tmp_path / "lost"), "reason": "[Errno 13] Permission denied"}
    assert [event for event in events if event[0] != "loaded"] == [skipped]
    replace(tmp_path / "m.onnx", PLUS_TWO)
    asyncio.run(repository.refresh())
    assert asyncio.run(answer(repository.find("m"))) == 2
    folder = closed.pop()
    asyncio.run(repository.refresh())
    assert repository.names == ["lost", "m"]
    closed.append(folder)
    asyncio.run(repository.refresh())
    assert [event for event in events if event[0] == "skipped"] == [skipped] * 2


def test_a_replaced_file_is_loaded_and_a_corrupt_one_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")
    repository, events = make(path)

    async def test() -> None:
        first = repository.find("m")
        await repository.refresh()
        assert repository.find("m") is first
        replace(path, PLUS_TWO)
        old = [asyncio.create_task(answer(first, i)) for i in range(20)]
        await asyncio.sleep(0)
        await repository.refresh()
        assert await asyncio.gather(*old) == [i + 1 for i in range(20)]  # they waited for the old one
        second = repository.find("m")
        assert await answer(second) == 2
        replace(path, b"hello")
        await repository.refresh()
        assert repository.find("m") is second
        assert repository.ready
        (entry,) = repository.index()
        assert entry["state"] == "READY"
        assert "m.onnx is no model" in entry["reason"]
        await repository.refresh()
        assert len(events) == 3  # said once
        replace(path, PLUS_ONE)
        await repository.refresh()
        assert await answer(repository.find("m")) == 1
        assert "reason" not in repository.index()[0]

    asyncio.run(test())
    assert [name for name, _ in events] == ["loaded", "loaded", "refused", "loaded"]
    assert events[2][1] == {
        "model": "m", "version": "1", "reason": events[2][1]["reason"], "still_serving": True,
    }  # fmt: skip


def test_the_memory_of_a_replaced_model_is_free_at_once(tmp_path: Path) -> None:
    """Models are large, and the garbage collector does not know that."""
    path = save(tmp_path / "m.onnx")
    repository, _ = make(path)

    async def test() -> None:
        old = weakref.ref(repository.find("m"))
        await answer(repository.find("m"))
        replace(path, PLUS_TWO)
        await repository.refresh()
        async with asyncio.timeout(20):
            while old() is not None:
                await asyncio.sleep(0.01)

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()


def test_models_come_and_go_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.onnx", "b/1/model.onnx")
    repository, events = make(tmp_path)

    def running() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("model")}

    before = running()

    async def test() -> None:
        put(tmp_path, "c.onnx", "b/2/model.onnx")
        (tmp_path / "d.onnx").write_bytes(b"hello")
        (tmp_path / "a.onnx").unlink()
        gone = repository.find("a")
        await answer(gone)
        await repository.refresh()
        assert repository.names == ["b", "c", "d"]
        assert repository.versions("b") == ["1", "2"]
        assert repository.versions("d") == []
        assert not repository.ready  # d does not answer
        with pytest.raises(Refusal, match="no model 'd'"):
            repository.find("d")
        with pytest.raises(Refusal, match="no model 'a'"):
            repository.find("a")
        assert next(each for each in repository.index() if each["name"] == "d")["state"] == "UNAVAILABLE"
        replace(tmp_path / "d.onnx", PLUS_TWO)
        await repository.refresh()
        assert repository.ready
        assert await answer(repository.find("d")) == 2
        shutil.rmtree(tmp_path / "b")
        await repository.refresh()
        assert repository.names == ["c", "d"]
        async with asyncio.timeout(20):
            while len(running() - before) > 1:  # that of d
                await asyncio.sleep(0.01)

    asyncio.run(test())
    assert sorted(name for name, _ in events) == ["loaded"] * 5 + ["refused"] + ["removed"] * 3


def test_a_file_that_is_gone_for_a_moment_keeps_its_model(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")
    repository, events = make(path)
    path.unlink()
    asyncio.run(repository.refresh())
    assert asyncio.run(answer(repository.find("m"))) == 1
    assert len(events) == 1


@pytest.mark.parametrize("name", ["m.onnx.data", "of any name"])
def test_weights_beside_a_model_are_watched_too(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_as_external_data": True, "location": name, "size_threshold": 0}
    path = save_wide(tmp_path / "m.onnx", 300, **options)
    repository, events = make(path)
    data = tmp_path / name
    replace(data, (2 * np.ones(300, np.float32)).tobytes())
    asyncio.run(repository.refresh())
    assert [name for name, _ in events] == ["loaded", "loaded"]
    (tensor,) = asyncio.run(
        repository.find("m").infer(InferRequest(inputs=[Tensor("x", np.ones((1, 1), np.float32))]))
    ).outputs
    assert (tensor.array == 2).all()


def test_watching_survives_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m.onnx")
    repository, events = make(path)

    async def test() -> None:
        looks = iter([OSError("the folder is being moved"), KeyError("b")])
        real = repository.refresh

        async def refresh() -> None:
            for error in looks:
                raise error
            await real()

        monkeypatch.setattr(repository, "refresh", refresh)
        watching = asyncio.create_task(repository.watch(0.01))
        replace(path, PLUS_TWO)
        async with asyncio.timeout(20):
            while len(events) < 4:
                await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(test())
    assert [name for name, _ in events] == ["loaded", "failed", "failed", "loaded"]
    assert events[1][1] == {"error": "looking for models: the folder is being moved"}
