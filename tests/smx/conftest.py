"""What tests of training share: the digits, and a user's own module in the current folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smx import data
from smx.data import Dataset


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write a module into the current folder, and forget the one of its name that was imported before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, content: str) -> None:
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(content)

    return write
