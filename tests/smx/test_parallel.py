"""Data-parallel training: the arithmetic of shares, and real runs of `torchrun` with gloo."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from smx import ending
from smx.errors import InputError
from smx.training.checkpoint import Checkpoint
from smx.training.parallel import Ranks, joined, require_device
from smx.training.protocol import STANDARD
from tests.conftest import done, smx

SETTINGS = ("--hidden", "16,8", "--phase1-epochs", "2", "--phase2-epochs", "2", "--lr", "0.01", "--device", "cpu")
ROWS = 4


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
def test_the_ranks_average_is_the_batchs_mean(length: int, size: int, seed: int) -> None:
    """Whatever the length: also when some ranks have nothing of their own."""
    torch.manual_seed(seed)
    batch = torch.randperm(50)[:length]
    logits, y = torch.randn(50, 3, dtype=torch.float64, requires_grad=True), torch.randint(3, (50,))
    shares = [Ranks(rank, size).share(batch) for rank in range(size)]
    losses = [STANDARD.loss(logits[share.indices], y[share.indices], share.weights) for share in shares]
    mean = F.cross_entropy(logits[batch], y[batch])
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (torch.stack(losses).mean(), mean))
    torch.testing.assert_close(torch.stack(losses).mean(), mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert sum(share.examples for share in shares) == pytest.approx(length)
    assert len({share.indices.shape for share in shares}) == 1
    counted = [share.indices if share.weights is None else share.indices[share.weights > 0] for share in shares]
    assert torch.cat(counted).equal(batch)


ENVIRONMENT = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    "wrong", [{"MASTER_ADDR": None}, {"WORLD_SIZE": "x"}, {"RANK": "2"}, {"LOCAL_WORLD_SIZE": None}, {"RANK": "-1"}]
)
def test_an_environment_that_is_not_torchruns(wrong: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str | None] = {**ENVIRONMENT, "MASTER_ADDR": "localhost", **wrong}
    for name, value in environment.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"not all is set .*{name}={value or ''}.*; use torchrun"), joined():
        pass


def test_a_rank_that_is_left_over_is_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a script of MPI or Kubernetes, say, that sets RANK alone."""
    monkeypatch.setenv("RANK", "1")
    for size, alone in ((None, True), ("1", True), ("2", False)):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        assert ending.is_secondary() is not alone
        assert bool(ending.line(signal.SIGINT)) is alone
        if alone:
            with joined() as ranks:
                assert ranks.main


@pytest.mark.parametrize(("devices", "backend"), [(0, "gloo"), (1, "gloo"), (2, "cpu:gloo,cuda:nccl")])
def test_ranks_without_a_cuda_device_each_can_use_the_cpu(
    devices: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ENVIRONMENT, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    used: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(dist, "init_process_group", used.append)
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda: None)
    with joined() as ranks:
        assert ranks == Ranks(1, 2, 2)
        require_device("cpu", ranks)
        refusal = "finds no CUDA device|has 1 CUDA devices; give --nproc-per-node at most 1"
        with nullcontext() if devices == 2 else pytest.raises(InputError, match=refusal):
            require_device("cuda", ranks)
    assert used == ([1, backend] if devices == 2 else [backend])


def torchrun(ranks: int, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start `smx` on several ranks of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.Popen(
        [*command, "-m", "smx", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill(process: subprocess.Popen[str]) -> None:
    """Kill torchrun and its ranks, each of which is in a session of its own."""
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, ranks)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def require_equal_runs(ours: Path, theirs: Path) -> None:
    """Assert that two runs ended in the same model within the rounding of float32."""
    a, b = (torch.load(out / "model.pt", weights_only=True) for out in (ours, theirs))
    assert all(a["choices"][layer].equal(b["choices"][layer]) for layer in b["choices"])
    for name, weight in b["weights"].items():
        torch.testing.assert_close(a["weights"][name], weight, rtol=1e-4, atol=1e-5)
    tables = [list(csv.DictReader((out / "metrics.csv").read_text().splitlines())) for out in (ours, theirs)]
    assert [len(table) for table in tables] == [ROWS, ROWS]
    for ours_row, theirs_row in zip(*tables, strict=True):
        for column in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"):
            assert float(ours_row[column]) == pytest.approx(float(theirs_row[column]), rel=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done("train", *SETTINGS, "--out", out)
    return out


@pytest.mark.timeout(600)
def test_two_ranks_train_as_one_process_does(alone: Path, tmp_path: Path) -> None:
    """1293 examples in batches of 128: the last one has 13, so that the shares are uneven."""
    process = torchrun(2, "train", *SETTINGS, "--out", tmp_path / "run")
    stdout, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    assert sum(line.startswith("phase ") for line in stderr.splitlines()) == ROWS  # one of them speaks
    assert stdout.count("model.pt") == 1
    require_equal_runs(tmp_path / "run", alone)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_killed_on_two_ranks_resumes_on_one(alone: Path, tmp_path: Path) -> None:
    process = torchrun(2, "train", *SETTINGS, "--out", tmp_path)
    deadline = time.monotonic() + 300
    while not (tmp_path / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it was killed"
    kill(process)
    done = len(Checkpoint.load(tmp_path / "checkpoint.pt").rows)
    assert 0 < done < ROWS
    assert not (tmp_path / "model.pt").exists()
    result = smx("train", "--resume", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert sum(line.startswith("phase ") for line in result.stderr.splitlines()) == ROWS - done
    require_equal_runs(tmp_path, alone)


@pytest.mark.timeout(600)
@pytest.mark.long
@pytest.mark.parametrize("failing", ["1", "0", "01"])
def test_an_error_of_one_rank_or_all_is_shown_once(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a rank that does not fail waits for the one that does."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(f"""import os
from torch import nn

def Net():
    if os.environ["RANK"] in "{failing}":
        raise ValueError("of a rank")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
""")
    process = torchrun(2, "train", *SETTINGS[2:], "--model", "own:Net", "--out", "run")
    _, stderr = process.communicate(timeout=500)
    assert process.returncode != 0
    assert stderr.count("Error: own:Net failed (ValueError: of a rank)") == 1, stderr
    assert "exitcode  : 2" in stderr
