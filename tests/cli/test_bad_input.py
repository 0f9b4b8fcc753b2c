"""What a user can get wrong ends in one line and the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
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
from tests.conftest import SMALL, refused, smx


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--pool", "relu,swish"), "unknown activation 'swish'; known are relu, sigmoid"),
        (("--pool", ""), "the pool is empty"),
        (("--phase1-epochs", "0"), "phase1_epochs must be at least 1, got 0"),
        (("--hidden", "12,0"), "hidden must be one or more layers of at least 1 neuron, got 12,0"),
        (("--lr", "-1"), "lr must be positive and finite, got -1.0"),
        (("--data", "none.npz"), "none.npz does not exist"),
        (("--phase1-epochs", "soon"), "phase1_epochs must be a whole number or auto, got 'soon'"),
        (("--phase1-epochs", "auto", "--activation", "relu"), "phase1_epochs must be a number: a baseline makes no"),
        (("--cuda-graphs", "--device", "cpu"), "cuda_graphs must be off on the cpu (compile works there), got True"),
        (("--amp", "float16", "--device", "cpu"), "amp must be none or bfloat16 on the cpu, got 'float16'"),
        (("--config", "none.toml"), "none.toml can't be read (No such file or directory)"),
    ],
)
def test_bad_settings(options: tuple[str, ...], part: str, tmp_path: Path) -> None:
    refused(smx("train", *options, "--out", tmp_path / "run"), 2, part)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_cuda_where_there_is_none(tmp_path: Path, exported: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    refused(
        smx("train", "--device", "cuda", "--out", tmp_path / "run"),
        2,
        "finds no CUDA device; start a new run with --device cpu",
    )
    np.save(tmp_path / "x.npy", np.zeros((1, 64)))
    refused(smx("predict", exported, tmp_path / "x.npy", "--provider", "cuda"), 2, "'cuda' is not in this ONNX Runtime")


def test_wrong_usage_is_clicks(tmp_path: Path) -> None:
    assert smx("train", "--nonsense").returncode == 2
    assert smx("bench", tmp_path / "m.pt", "--batch-sizes", "1,x").returncode == 2
    assert smx("nonsense").returncode == 2


def test_an_unwritable_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(smx("train", *SMALL, "--out", tmp_path / "file" / "run"), 2, "can't be created")
    model = run / "model.pt"
    refused(smx("export", model, tmp_path / "missing" / "m.onnx"), 2, "missing for m.onnx does not exist; create it")
    refused(smx("inspect", model, "--json", tmp_path / "missing" / "i.json"), 2, "does not exist")
    (tmp_path / "f.onnx").mkdir()
    refused(smx("export", model, tmp_path / "f.onnx"), 2, "is a folder; give the name of a file in it")


def test_files_that_are_no_model(run: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    refused(smx("export", tmp_path / "none.pt", out), 2, "none.pt does not exist; expected a smx-model file")
    (tmp_path / "half.pt").write_bytes((run / "model.pt").read_bytes()[:2000])
    refused(smx("export", tmp_path / "half.pt", out), 2, "half.pt is damaged")
    torch.save({"evil": print}, tmp_path / "evil.pt")
    refused(smx("export", tmp_path / "evil.pt", out), 2, "was refused: it holds Python objects that could run code")
    refused(smx("export", run / "checkpoint.pt", out), 2, "finish it with smx train --resume")
    refused(smx("bench", tmp_path / "none.pt"), 2, "none.pt does not exist")
    refused(smx("verify", run / "model.pt", tmp_path / "none.onnx"), 2, "none.onnx does not exist")
    (tmp_path / "bad.onnx").write_bytes(exported.read_bytes()[:3000])
    refused(smx("inspect", tmp_path / "bad.onnx"), 2, "is no model that ONNX Runtime can load")
    refused(smx("inspect", tmp_path / "model.txt"), 2, "must end in .pt or .onnx")
    np.save(tmp_path / "wide.npy", np.zeros((2, 65)))
    refused(smx("predict", exported, tmp_path / "wide.npy"), 2, "examples of 64 values", "got shape (2, 65)")
    assert not out.exists()


def test_other_refusals_of_bench_and_export(run: Path, tmp_path: Path) -> None:
    refused(smx("bench", run / "model.pt", "--baselines", "swish"), 2, "unknown activation 'swish'")
    refused(smx("bench", run / "model.pt", "--layouts", "sideways"), 2, "unknown layout 'sideways'; known are scatter")
    refused(smx("export", run / "model.pt", tmp_path / "m.onnx", "--opset", "9"), 2, "between 13 and 26, got 9")
    refused(
        smx("export", run / "model.pt", tmp_path / "m.onnx", "--batch", "many"), 2, "dynamic or a whole number", "many"
    )
    refused(smx("export", run / "model.pt", tmp_path / "m.onnx", "--precision", "int4"), 2, "unknown precision 'int4'")
    assert not (tmp_path / "m.onnx").exists()


def test_what_is_read_is_never_written_over(run: Path, exported: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"  # a model.pt under another name
    model.write_bytes((run / "model.pt").read_bytes())
    refused(smx("export", model, model), 2, "is given twice, and would be written over")
    assert model.read_bytes() == (run / "model.pt").read_bytes()
    np.save(tmp_path / "x.npy", np.zeros((1, 64)))
    refused(smx("predict", exported, tmp_path / "x.npy", "--json", tmp_path / "x.npy"), 2, "is given twice")
    refused(smx("export", run / "model.pt", tmp_path / "m.txt"), 2, "m.txt must end in .onnx")
    refused(smx("bench", run / "model.pt", "--plot", tmp_path / "b.pdf"), 2, "b.pdf must end in .png")
    assert smx("verify", run / "model.pt", exported, "--atol", "nan").returncode == 2


def test_names_are_shown_as_they_are(exported: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[bold]x[red].onnx"
    odd.write_bytes(exported.read_bytes())
    shown = smx("inspect", odd)
    assert shown.returncode == 0, shown.stderr
    assert "[bold]x[red].onnx" in shown.stdout


def test_a_run_is_not_overwritten(run: Path) -> None:
    before = (run / "model.pt").read_bytes()
    refused(smx("train", *SMALL, "--out", run), 2, "already holds a run; add --resume")
    refused(smx("train", "--resume", "--lr", "0.5", "--out", run), 2, "was trained with lr = 0.01, not 0.5")
    result = smx("train", "--resume", "--out", run)  # a finished run: nothing to do, and it says so by its result
    assert result.returncode == 0, result.stderr
    assert (run / "model.pt").read_bytes() == before


def test_a_full_disk_leaves_the_old_file(run: Path, tmp_path: Path) -> None:
    """A limit on the size of files makes every larger write fail, as a full disk does."""
    old = tmp_path / "m.onnx"
    old.write_text("old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    refused(smx("export", run / "model.pt", old, preexec_fn=limit), 1, "m.onnx could not be written: File too large")
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]
    result = smx("train", *SMALL, "--out", tmp_path / "run", preexec_fn=limit)
    refused(result, 1, "checkpoint.pt could not be written: File too large")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.toml"}
    (tmp_path / "c.toml").mkdir()
    refused(smx("train", "--config", tmp_path / "c.toml"), 2, "c.toml can't be read (Is a directory)")
    refused(smx("export", run, tmp_path / "m.onnx"), 2, "is a folder; give the file in it")


LONG = ("--hidden", "16", "--phase1-epochs", "40", "--phase2-epochs", "40", "--device", "cpu")


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


def test_ctrl_c_keeps_the_last_epoch(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_rows(process, tmp_path, 3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert f"Continue with: smx train --resume --out {tmp_path}" in stderr
    seen = len(Checkpoint.load(tmp_path / "checkpoint.pt").rows)
    result = smx("train", "--resume", "--out", tmp_path, "--json", "-")  # the settings are the run's own
    assert json.loads(result.stdout)["config"]["hidden"] == [16]
    assert sum(line.startswith("phase ") for line in result.stderr.splitlines()) == 80 - seen
    (tmp_path / "model.pt").unlink()
    assert len(Checkpoint.load(tmp_path / "checkpoint.pt").rows) >= 3
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.timeout(600)
def test_a_killed_run_resumes_to_the_same_model(tmp_path: Path) -> None:
    """SIGKILL at five moments: while starting, in both phases, around the commit, and at the very end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    process.communicate(timeout=200)
    assert process.returncode == 0
    for rows, delay in ((0, 1.0), (1, 0.0), (39, 0.013), (55, 0.007), (80, 0.0)):
        process = start(killed, "--resume")
        wait_for_rows(process, killed, rows)
        time.sleep(delay)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.communicate()
    assert not (killed / "model.pt").exists() or rows_of(killed) == 80
    process = start(killed, "--resume")
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0
    assert "phase 1" not in stderr  # it did not start over
    ours, theirs = (torch.load(out / "model.pt", weights_only=True) for out in (killed, whole))
    for part in ("weights", "choices"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in ours[part])
    assert (killed / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
    assert not list(killed.glob(".*.tmp"))


def test_compilation_without_a_compiler(tmp_path: Path) -> None:
    nothing = {**os.environ, "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = smx("train", *SMALL, "--compile", "--out", tmp_path / "run", env=nothing)
    refused(result, 1, "torch.compile found no C++ compiler; install g++, or leave out")
