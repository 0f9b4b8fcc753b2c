"""What leaves a command: through pipes that are closed, and with names that are no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from smx.cli.output import plain, write_json
from tests.conftest import all_refused, done, refused
from tests.edited import loaded


def closed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "smx", *map(str, arguments)]
    try:
        return subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    finally:
        os.close(writing)


def test_a_closed_pipe_is_no_failure_and_hides_none(run: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    strict = ("--atol", "0", "--rtol", "0", "--batch-sizes", "7")
    result = closed("verify", run / "model.pt", exported, *strict, "--json", out)
    assert (result.returncode, json.loads(out.read_text())["passed"]) == (3, False)
    assert "Traceback" not in result.stderr
    assert "Error" not in result.stderr
    for arguments in ((), ("--json", "-"), ("--json", out)):
        result = closed("inspect", exported, *arguments)
        assert result.returncode == 0
        assert not {"Traceback", "Error", "Broken"} & {*result.stderr.split()}
    refused(closed("inspect", tmp_path / "absent.onnx"), 2, "does not exist")


def python(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [os.fsencode(part) for part in (sys.executable, "-m", "smx", *arguments)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False)


@pytest.fixture
def strange(exported: Path, tmp_path: Path) -> Path:
    """Return a folder whose name is not UTF-8, beside a model with names that command a terminal."""
    model, folder = loaded(exported), tmp_path / os.fsdecode(b"\xff\x1b[31m")
    names = [f"\x1b]0;owned\x07{i}\u202e\x9b" for i in range(10)]
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, "smx.class_names": json.dumps(names), "smx.architecture": "\x1b[2J"})
    folder.mkdir()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.save(folder / "x.npy", np.zeros((2, 64), np.uint8))
    return folder


def test_names_never_command_the_terminal(strange: Path) -> None:
    model = strange.parent / "m.onnx"
    for arguments, code in (
        (("inspect", model), 0),
        (("predict", model, strange / "x.npy"), 0),
        (("predict", model, strange / "absent.npy"), 2),
        (("inspect", strange / "m.onnx"), 2),
        (("verify", strange / "x.npy", model), 2),
    ):
        result = python(*arguments)
        assert result.returncode == code, result.stderr
        both = (result.stdout + result.stderr).decode()
        assert b"\\x1b" in result.stdout + result.stderr
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*both}
        assert "Traceback" not in both


def test_names_that_are_no_text_stand_in_json(strange: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "out.json", "-"):
        result = python("predict", strange.parent / "m.onnx", strange / "x.npy", strange / "x.npy", "--json", path)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout if path == "-" else (tmp_path / "out.json").read_bytes())
        assert report["predictions"][0]["example"].endswith("\\udcff\x1b[31m/x.npy[0]")
        assert report["predictions"][0]["class"].startswith("\x1b]0;owned\x07")


def test_plain_text() -> None:
    assert plain("äöü 中 👩‍🔬\n\ttab") == "äöü 中 👩‍🔬\n\ttab"
    assert plain("\x1b[31m\r\x7f\x85\u2066\udcff\0") == r"\x1b[31m\r\x7f\x85\u2066\udcff\x00"


def test_a_message_that_can_not_be_written_keeps_the_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "smx", "inspect", "absent.onnx"]
        assert subprocess.run(command, stderr=full, timeout=300, check=False).returncode == 2


@pytest.mark.parametrize("words", [{}, {"COMP_WORDS": "smx", "COMP_CWORD": "x"}])
def test_a_completion_that_no_shell_asks_for(words: dict[str, str]) -> None:
    environment = {**os.environ, "_SMX_COMPLETE": "bash_complete", **words}
    command = [Path(sys.executable).with_name("smx")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    refused(done, 2, "_SMX_COMPLETE is for shells, which set COMP_WORDS, too")


def test_json_goes_to_a_device(tmp_path: Path) -> None:
    write_json(os.devnull, {"a": 1})
    assert Path(os.devnull).is_char_device()


def test_json_goes_over_nothing_that_was_given_in_any_way(run: Path, exported: Path, tmp_path: Path) -> None:
    """Also where the option takes a text: a setting, or a grid."""
    prices, grid, picture = (tmp_path / name for name in ("p.json", "grid.txt", "a.webp"))
    for path in (prices, grid, picture):
        path.write_text("[grid]\nseed = [0]\n")
    folder, model = tmp_path / "file", tmp_path / "m.onnx"
    folder.mkdir()
    model.write_bytes(exported.read_bytes())
    all_refused(
        (("train", "--price", prices, "--price-weight", "1", "--json", prices), "is given twice"),
        (("sweep", "--config", grid, "--out", tmp_path / "s", "--dry-run", "--json", grid), "is given twice"),
        (
            ("sweep", "--config", "digits", "--set", f"price={prices}", "--out", tmp_path / "s", "--json", prices),
            "twice",
        ),
        (("predict", model, "--json", picture, picture), "has the ending of another kind of file"),
        (("tune", model, "--json", folder / ".." / "m.onnx.tune.json"), "is what smx tune writes itself"),
        (("inspect", model, "--json", "/dev/fd/77"), "is not open for writing"),
        (("inspect", "a" * 300 + ".onnx"), "File name too long"),
        (("export", run / "model.pt", tmp_path / "x.onnx", "--triton-device", "gpu"), "give --triton DIR, too"),
        (("sweep", "--config", "digits", "--out", tmp_path / "s", "--status", "--jobs", "2"), "leave out --jobs"),
    )
    assert prices.read_text() == grid.read_text() == picture.read_text()


def test_a_name_is_no_formula(exported: Path, tmp_path: Path) -> None:
    names = [tmp_path / "a$x_$.onnx", tmp_path / "b[bold].onnx"]
    for name in names:
        name.write_bytes(exported.read_bytes())
    done("bench", *names, "--batch-sizes", "1,1", "--rounds", "2", "--plot", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
