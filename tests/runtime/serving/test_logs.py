"""The log can't be forged by clients, and does not stop the server."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smx.runtime.serving import logs
from smx.runtime.serving.logs import MAX_LINE, Handler, log


@contextmanager
def stderr_is(file: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        patch.setattr(logs, "_lost", 0)
        yield


def written(monkeypatch: pytest.MonkeyPatch, to: Path, event: str = "e", **fields: Any) -> str:
    """Return the line of an event."""
    with to.open("w") as file, stderr_is(file, monkeypatch):
        log(event, **fields)
    return to.read_text()


@pytest.mark.parametrize(
    "text", ["\n{}", "\r", "\x1b[2J", "\x7f", "\x9b2J", "\u202e", "\u2028", "\x00", '"}', "é😀", "\ud800"]
)
def test_a_text_is_no_more_than_a_text(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = written(monkeypatch, tmp_path / "log", path=text, **{"id": text})
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    entry = json.loads(line)
    assert (entry["path"], entry["id"], entry["event"]) == (text, text, "e")
    assert list(entry)[:2] == ["time", "event"]


def test_lines_are_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = json.loads(written(monkeypatch, tmp_path / "log", text="x" * 10_000, other="y", nothing=None))
    assert entry["text"] == "x" * 500 + "..."
    assert entry["other"] == "y"
    assert "nothing" not in entry
    line = written(monkeypatch, tmp_path / "log", id="a", many=["\U0001f600" * 10_000] * 10)
    assert len(line) <= MAX_LINE
    assert json.loads(line)["id"] == "a"


def test_a_reader_that_does_not_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file, stderr_is(file, monkeypatch):
        for i in range(2000):  # more than a pipe holds
            log("e", number=i, text="x" * 400)
        got = os.read(reading, 2**20).splitlines()
        assert [json.loads(line)["number"] for line in got] == list(range(len(got)))
        log("e", number=-1)
        assert json.loads(os.read(reading, 2**20))["lines_lost"] == 2000 - len(got)
        log("e", number=-2)
        assert "lines_lost" not in json.loads(os.read(reading, 2**20))
    os.close(reading)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_a_full_disk_or_closed_file_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full, stderr_is(full, monkeypatch):
        log("e")
    assert full.closed
    for file in (full, None):
        with stderr_is(file, monkeypatch):
            log("e")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file, stderr_is(file, monkeypatch):
        log("e")


def test_libraries_log_one_line_without_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file, stderr_is(file, monkeypatch):
        logger = logging.Logger("some.library")
        logger.addHandler(Handler(logging.WARNING))
        logger.info("not this")
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logger.exception("failed with %s", "x")
    (entry,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    del entry["time"]
    assert entry == {
        "event": "library",
        "name": "some.library",
        "level": "error",
        "message": "failed with x",
        "error": "ValueError: first\nsecond",
    }
