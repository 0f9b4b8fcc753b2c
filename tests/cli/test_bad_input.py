"""What a user can get wrong ends in one line and the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from smx.training.checkpoint import Checkpoint
from tests.conftest import SMALL, all_refused, done, python, refused, smx


def test_cuda_where_there_is_none(tmp_path: Path, exported: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    np.save(tmp_path / "x.npy", np.zeros((1, 64)))
    all_refused(
        (("train", "--device", "cuda", "--out", tmp_path / "run"), "no CUDA device; start a new run with --device cpu"),
        (("bench-train", "--device", "cuda"), "this PyTorch finds no CUDA device; measure on the cpu"),
        (("predict", exported, tmp_path / "x.npy", "--provider", "cuda"), "'cuda' is not in this ONNX Runtime"),
        (("bench", exported, "--provider", "cuda"), "'cuda' is not in this ONNX Runtime; available: cpu"),
    )


def test_what_cant_be_used(run: Path, exported: Path, tmp_path: Path) -> None:
    """Settings, and files that can't be read or written; what is read is never written over."""
    model, out, x, wide = run / "model.pt", tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "wide.npy"
    renamed = tmp_path / "model.onnx"  # a model.pt under another name
    renamed.write_bytes(model.read_bytes())
    (tmp_path / "file").touch()
    (tmp_path / "f.onnx").mkdir()
    (tmp_path / "c.toml").mkdir()
    torch.save({"evil": print}, tmp_path / "evil.pt")
    np.save(x, np.zeros((1, 64)))
    linked, large, pipe = tmp_path / "linked.npy", tmp_path / "large.npy", tmp_path / "pipe.csv"
    linked.symlink_to("x.json")
    np.save(large, np.eye(1, 64) * 1e300)
    os.mkfifo(pipe)
    np.save(wide, np.zeros((2, 65)))
    np.savez(tmp_path / "wide.npz", x=np.zeros((40, 65), np.uint8), y=np.arange(40) % 2)
    new = ("--out", tmp_path / "new")
    all_refused(
        (("train", "--pool", "relu,swoosh", *new), "unknown activation 'swoosh'; known are relu, sigmoid"),
        (("train", "--hidden", "12,0", *new), "hidden must be one or more layers of at least 1 neuron, got 12,0"),
        (("train", "--hidden", "10000000000", *new), "hidden must be at most 1000 layers of at most 1048576 neurons"),
        (
            ("bench", exported, "--threads", "20000"),
            "Invalid value for '--threads': 20000 is not in the range 1<=x<=256",
        ),
        (("tune", exported, "--batch-size", "9223372036854775808"), "is not in the range 1<=x<=1048576"),
        (("train", "--lr", "-1", *new), "lr must be positive and finite, got -1.0"),
        (("train", "--data", "none.npz", *new), "none.npz does not exist"),
        (("train", "--config", "none.toml", *new), "none.toml can't be read (No such file or directory)"),
        (("train", *SMALL, "--out", tmp_path / "file" / "run"), "can't be created"),
        (("train", *SMALL, "--out", run), "already holds a run; add --resume"),
        (("train", "--resume", "--lr", "0.5", "--out", run), "was trained with lr = 0.01, not 0.5"),
        (("train", "--config", tmp_path / "c.toml"), "c.toml can't be read (Is a directory)"),
        (("export", model, tmp_path / "missing" / "m.onnx"), "missing for m.onnx does not exist; create it"),
        (("export", model, tmp_path / "f.onnx"), "is a folder; give the name of a file in it"),
        (("export", model, tmp_path / "m.txt"), "m.txt must end in .onnx"),
        (("export", renamed, renamed), "is given twice, and would be written over"),
        (("export", tmp_path / "none.pt", out), "none.pt does not exist; expected a smx-model file"),
        (("export", tmp_path / "evil.pt", out), "was refused: it holds Python objects that could run code"),
        (("export", run, out), "is a folder; give the file in it"),
        (("export", run / "checkpoint.pt", out), "finish it with smx train --resume"),
        (("verify", model, tmp_path / "none.onnx"), "none.onnx does not exist"),
        (("verify", model, exported, "--data", tmp_path / "wide.npz"), "wide.npz does not fit the model: expected"),
        (("bench", model, "--plot", tmp_path / "b.pdf"), "b.pdf must end in .png"),
        (("predict", exported, wide), "must hold examples of 64 values (shape (64,)), got shape (2, 65)"),
        (("predict", exported, linked, "--json", x.with_suffix(".json")), "is given twice"),
        (("bench", "--json", exported, renamed), "has the ending of another kind of file; --json needs a path of its"),
        (("train", "--resume", "--out", run, "--json", model), "has the ending of another kind of file"),
        (("predict", exported, ""), "Invalid value for 'INPUT...': the path is empty"),
        (("export", model, out, "--triton", "/dev/null"), "Invalid value for '--triton': /dev/null is no folder"),
        (("export", model, out, "--layout", "fastest", "--no-measure", "--price", x), "x.npy is no price file"),
        (("predict", exported, large), "expects values that float32 can hold, got 0 to 1e+300"),
        (("train", "--config", "/dev/zero"), "/dev/zero is no TOML file (it has more than 67,108,864 bytes)"),
        (("report", pipe), "pipe.csv is no file; expected a table"),
        (("serve", exported, "--api-key-file", "/dev/zero"), "/dev/zero must hold a key of at least 8 printable"),
        (("inspect", model, "--json", tmp_path / "missing" / "i.json"), "does not exist"),
        (("inspect", tmp_path / "model.txt"), "must end in .pt or .pth or .onnx"),
    )
    assert not out.exists()
    assert not (tmp_path / "new").exists()
    assert renamed.read_bytes() == model.read_bytes()
    assert np.load(x).shape == (1, 64)


def test_wrong_usage_is_clicks(run: Path, exported: Path, tmp_path: Path) -> None:
    """Choices are named (they are those of the library, see test_commands); so are ranges, alone and between commas."""
    model, out = run / "model.pt", tmp_path / "m.onnx"
    all_refused(
        (("nonsense",), "No such command 'nonsense'"),
        (("train", "--nonsense"), "No such option '--nonsense'"),
        (("export", model, out, "--layout", "sideways"), "'sideways' is not one of 'scatter', 'sorted'"),
        (("export", model, out, "--opset", "9"), "9 is not in the range 13<=x<=26"),
        (("export", model, out, "--batch", "many"), "'many' is not a valid integer range"),
        (("verify", model, exported, "--atol", "nan"), "Invalid value for '--atol': 'nan' is no finite number"),
        (("verify", model, exported, "--rtol", "inf"), "Invalid value for '--rtol': 'inf' is no finite number"),
        (("inspect", exported, "--json", ""), "Invalid value for '--json': the path is empty"),
        (("bench", model, "--batch-sizes", "1,x"), "'x' is not a valid integer range"),
        (("bench", model, "--layouts", "sideways"), "'sideways' is not one of 'scatter', 'sorted'"),
        (("bench-train", "--device", "tpu"), "'tpu' is not one of 'cpu', 'cuda'"),
        (("tune", "/"), "/ is a folder; give a MODEL.pt or an ONNX file"),
        (("tune", "."), ". is a folder; give a MODEL.pt or an ONNX file"),
        (("tune", exported, "--rounds", "19"), "19 is not in the range 20<=x<=1000000"),
    )
    assert not out.exists()


def test_a_full_disk_leaves_the_old_file(run: Path, tmp_path: Path) -> None:
    """A limit on the size of files makes every larger write fail, as a full disk does."""
    old, new = tmp_path / "m.onnx", ("--out", tmp_path / "run")
    old.write_text("old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    commands = [["export", str(run / "model.pt"), str(old)], ["train", *SMALL, *map(str, new)]]
    both = f"from tests.conftest import here\nfor done in here({commands}): print(done.returncode, done.stderr)"
    said = python("-c", both, cwd=Path(__file__).parents[2], preexec_fn=limit).stdout
    written = r"Error: \S+/(\S+) could not be written: File too large"
    assert re.findall(written, said) == [old.name, "checkpoint.pt"]
    assert (re.findall(r"^\d", said, re.MULTILINE), "Traceback" in said) == (["1", "1"], False)
    assert old.read_text() == "old"
    assert set(tmp_path.iterdir()) == {old, tmp_path / "run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.toml"}


MOMENTS = (0, 1.0), (1, 0.0), (39, 0.013), (55, 0.007), (80, 0.0)  # rows, seconds: starting, phases, commit, end
LONG = ("--hidden", "16", "--phase1-epochs", "40", "--phase2-epochs", "40", "--batch-size", "512", "--device", "cpu")


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    def heed_ctrl_c() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job starts with it ignored

    command = [sys.executable, "-m", "smx", "train", *LONG, *options, "--out", str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)


def rows_of(out: Path) -> int:
    path = out / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def wait_for_rows(process: subprocess.Popen[str], out: Path, rows: int) -> None:
    deadline = time.monotonic() + 120
    while rows_of(out) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.003)


@pytest.mark.long
def test_ctrl_c_keeps_the_last_epoch(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_rows(process, tmp_path, 3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"Continue with: smx train --resume --out {tmp_path}" in stderr
    seen = len(Checkpoint.load(tmp_path / "checkpoint.pt").rows)
    assert seen >= 3
    assert not (tmp_path / "model.pt").exists()
    result = smx("train", "--resume", "--out", tmp_path, "--json", "-")  # the settings are the run's own
    assert json.loads(result.stdout)["config"]["hidden"] == [16]
    assert sum(line.startswith("phase ") for line in result.stderr.splitlines()) == 80 - seen


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moments", [MOMENTS[3:4], pytest.param(MOMENTS, marks=pytest.mark.long)])
def test_a_killed_run_resumes_to_the_same_model(moments: tuple[tuple[int, float], ...], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done("train", *LONG, "--out", whole)
    for rows, delay in moments:
        process = start(killed, "--resume")
        wait_for_rows(process, killed, rows)
        time.sleep(delay)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.communicate()
    assert not (killed / "model.pt").exists() or rows_of(killed) == 80
    resumed = smx("train", "--resume", "--out", killed)
    assert (resumed.returncode, "phase 1" in resumed.stderr) == (0, False), "it started over"
    ours, theirs = (torch.load(out / "model.pt", weights_only=True) for out in (killed, whole))
    for part in ("weights", "choices"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in ours[part])
    assert (killed / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
    assert not list(killed.glob(".*.tmp"))


@pytest.mark.long
def test_compilation_without_a_compiler(tmp_path: Path) -> None:
    nothing = {**os.environ, "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = smx("train", *SMALL, "--compile", "--out", tmp_path / "run", env=nothing)
    refused(result, 1, "torch.compile found no C++ compiler; install g++, or leave out")
