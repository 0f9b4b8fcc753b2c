"""What the engine can do beyond the plain loop: schedules, early ends, events, mixed precision, compilation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch

import smx
from smx.data import Dataset
from smx.errors import InputError
from smx.training import phase
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig
from smx.training.engine import evaluate, train_epoch
from smx.training.examples import Examples, load_examples
from smx.training.metrics import median_margin
from smx.training.parallel import Ranks
from smx.training.phase import train_phase
from smx.training.run import load_checkpoint, train
from smx.training.schedules import lr_scheduler, temperature
from smx.training.step import Step, adam
from tests.smx.runs import SCHEDULED, SMALL, Stopped, stop_after, stop_run, stopped_and_resumed


def test_every_step_and_every_layer_gets_what_the_schedules_say(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    temperatures: list[set[float]] = []
    step = torch.optim.Adam.step

    def watched_step(self: torch.optim.Adam, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    def watched_epoch(step: Step, *args: Any) -> tuple[float, float]:
        temperatures.append({part.temperature for part in step.model.modules() if isinstance(part, smx.Selective)})
        return train_epoch(step, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", watched_step)
    monkeypatch.setattr(phase, "train_epoch", watched_epoch)
    result = train(SCHEDULED, digits, tmp_path)
    steps = 11  # 1293 examples in batches of 128
    assert len(rates) == 5 * steps
    assert rates[:steps] == sorted(rates[:steps])
    assert rates[steps : 3 * steps] == sorted(rates[steps : 3 * steps], reverse=True)
    assert rates[3 * steps : 4 * steps] == rates[:steps]  # each phase has a warm-up
    assert max(rates) == 0.01
    assert [row.learning_rate for row in result.rows] == rates[::steps]
    assert temperatures == [{temperature(SCHEDULED, epoch)} for epoch in (1, 2, 3)] + [set()] * 2
    assert [row.temperature for row in result.rows] == [0.3, pytest.approx(0.3 * (1 / 6) ** 0.5), 0.05, None, None]


def test_the_margin_is_the_median_neurons() -> None:
    model = torch.nn.Sequential(smx.Selective(2), smx.Selective(1))
    assert median_margin(model) == pytest.approx(0.001)
    first, second = (layer for layer in model if isinstance(layer, smx.Selective))
    with torch.no_grad():
        first.logits[:] = torch.tensor([[5.0, 0, 4, 3, 2, 1], [0, 0, 0, 0, 0, 7]])
        second.logits[:] = torch.tensor([[-3.0, -1, -2, -9, -9, -9]])
    assert median_margin(model) == 1
    assert median_margin(torch.nn.Sequential(smx.Selective(2, pool=("relu",)))) is None
    assert median_margin(torch.nn.Sequential(smx.Mixed([0]))) is None


def test_a_run_decides_itself_when_to_commit(digits: Dataset, tmp_path: Path) -> None:
    """With a rule that any epoch meets, as soon as there is something to compare with."""
    auto = replace(SMALL, phase1_epochs="auto", settle_window=2, settle_changed=1.0, settle_margin=0.0, settle_loss=1.0)
    result = train(auto, digits, tmp_path / "a")
    assert [(row.phase, row.epoch) for row in result.rows] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert result.model.metrics["phase1"]["epochs"] == 3
    fixed = train(SMALL, digits, tmp_path / "b")  # how it ended changes nothing in what was trained
    assert all(torch.equal(fixed.model.weights[name], weight) for name, weight in result.model.weights.items())
    stopped_and_resumed(auto, digits, tmp_path / "c", 2)
    assert (tmp_path / "c" / "model.pt").read_bytes() == (tmp_path / "a" / "model.pt").read_bytes()
    never = replace(auto, settle_margin=9.0, max_phase1_epochs=4)
    assert [row.phase for row in train(never, digits, tmp_path / "d").rows] == [1] * 4 + [2] * 2


def test_patience_ends_a_phase(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With losses made up for the test; phase 1 evaluates twice an epoch."""
    losses = iter([3.0, 9, 2, 9, 2.5, 9, 2.4, 9, 1, 0.5, 0.6, 0.7])
    monkeypatch.setattr(phase, "evaluate", lambda *args, **kwargs: (next(losses), 0.5))
    patient = replace(SMALL, phase1_epochs=9, phase2_epochs=9, patience=2)
    result = train(patient, digits, tmp_path)
    assert [row.phase for row in result.rows] == [1] * 4 + [2] * 4
    assert [result.model.metrics[name]["best_epoch"] for name in ("phase1", "phase2")] == [2, 2]


def events(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Read events as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(out / "tensorboard"))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_of_a_resumed_run_come_once(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the process was killed between writing an epoch's events and its checkpoint."""
    config, save, stop = replace(SMALL, tensorboard=True), Checkpoint.save, stop_after(3)
    monkeypatch.setattr(Checkpoint, "save", lambda self, path: stop() or save(self, path))
    with pytest.raises(Stopped):
        train(config, digits, tmp_path)
    monkeypatch.undo()
    assert len(events(tmp_path)["loss/validation"]) == 2
    result = train(config, digits, tmp_path, checkpoint=load_checkpoint(tmp_path))
    found = events(tmp_path)
    losses = [row.validation_loss for row in result.rows]
    assert [step for step, _ in found["loss/validation"]] == [1, 2, 3, 4, 5]
    assert [value for _, value in found["loss/validation"]] == pytest.approx(losses)
    assert [step for step, _ in found["choice/margin"]] == [1, 2, 3]
    shares = [found[f"layer2/{name}"][0][1] for name in smx.PAPER_POOL]
    assert shares == pytest.approx(list(result.rows[0].shares["layer2.activation"].values()))


def a_step(config: TrainConfig, digits: Dataset) -> tuple[torch.nn.Module, tuple[float, float]]:
    """Train an epoch of a small network; return it and what the step counted."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 20), smx.Mixed([0, 1, 2, 3, 4] * 4), torch.nn.Linear(20, 10))
    optimizer = adam(model, config)
    scheduler = lr_scheduler(optimizer, config, epochs=1, steps_per_epoch=11, done=0)
    examples, *_ = load_examples(digits, (64,), "cpu")
    return model, train_epoch(Step(model, optimizer, config, 2), scheduler, examples, 128)


needs_compiler = pytest.mark.skipif(not (which("g++") or which("clang++")), reason="torch.compile needs a C++ compiler")


@pytest.mark.parametrize(
    ("setting", "tolerance", "backend"),
    [
        ({"amp": "bfloat16"}, 0.02, None),
        ({"compile": True}, 1e-4, "aot_eager"),
        pytest.param({"compile": True}, 1e-4, "inductor", marks=[needs_compiler, pytest.mark.long]),
    ],
)
def test_lower_precision_and_compilation_train_nearly_the_same(
    setting: dict[str, Any], tolerance: float, backend: str | None, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the C++ compiler, which takes a minute, `torch.compile` still traces forward and backward."""
    if backend:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    (model, counted), (plain, expected) = a_step(replace(SMALL, **setting), digits), a_step(SMALL, digits)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    assert counted == pytest.approx(expected, rel=10 * tolerance)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_phase_in_float16_begins_and_resumes(digits: Dataset) -> None:
    """On the CPU, which the settings do not allow: the loss's scaler has no state before the first epoch."""
    config = replace(SMALL, device="auto", amp="float16")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 20), smx.Mixed([0] * 20), torch.nn.Linear(20, 10))
    examples, validation, _ = load_examples(digits, (64,), "cpu")
    state = Checkpoint(config=config, fingerprint="", phase=2, optimizer=adam(model, config).state_dict())
    growth = []
    for _ in range(2):
        with pytest.raises(Stopped):
            train_phase(model, state, examples, validation, stop_after(1))
        growth.append(state.scaler["_growth_tracker"])
    assert growth[1] == 2 * growth[0] > 0


class SecondOfTwo(Ranks):
    """A rank that goes on without the other one."""

    def sum(self, *values: torch.Tensor) -> list[float]:
        assert {value.device.type for value in values} == {"meta"}
        return [0.0] * len(values)


def test_ranks_share_examples_that_do_not_fit_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown with the device that has no data: it refuses tensors that lie elsewhere, as CUDA does."""
    examples = Examples(torch.rand(13, 4), torch.arange(13) % 3, torch.device("meta"))
    monkeypatch.setattr(Examples, "_copied", lambda self, source, indices: source[indices].to(self.device))
    ranks = SecondOfTwo(1, 2)
    share = ranks.share(torch.arange(13), examples.device)
    assert share.weights is not None
    assert (share.indices.device.type, share.weights.device.type) == ("cpu", "meta")
    evaluate(torch.nn.Linear(4, 3, device="meta"), examples, SMALL, 2, ranks=ranks)


@pytest.fixture
def own(write_module: Callable[[str, str], None]) -> Callable[[str], None]:
    """What writes a user's network, `own:Net`, whose forward gets `layers`."""
    text = "from torch import nn\ndef Net():\n    return nn.Sequential(nn.Flatten(), {}nn.Linear(8, 10))\n"
    return lambda layers: write_module("own", text.format(layers))


WITH_NORM = "nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), "
OWN = replace(SMALL, model="own:Net", phase1_epochs=1, phase2_epochs=1)


def test_what_cant_be_trained_is_refused_before_anything_is_written(
    own: Callable[[str], None], digits: Dataset, tmp_path: Path
) -> None:
    """Such as 1293 examples in batches of 68, which leave one; in batches of 1291 two, one for each of two ranks."""
    own(WITH_NORM)
    out = tmp_path / "run"
    with pytest.raises(InputError, match=r"batches of 68 leave 1 of the 1293 .* choose another --batch-size"):
        train(replace(OWN, batch_size=68), digits, out)
    with pytest.raises(InputError, match=r"batches of 1291 leave 2 of the 1293 .*, one for each rank, and own:Net"):
        train(replace(OWN, batch_size=1291), digits, out, ranks=Ranks(0, 2))
    with pytest.raises(InputError, match="cuda_graphs works in one process, and this run has 2"):
        train(replace(SMALL, device="cuda", cuda_graphs=True), digits, out, ranks=Ranks(0, 2))
    assert not out.exists()
    own(WITH_NORM.replace("nn.BatchNorm1d(8)", "nn.LayerNorm(8)"))
    train(replace(OWN, batch_size=68), digits, out)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_network_that_changed_is_not_resumed(
    after: int, own: Callable[[str], None], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a phase, at the commit, and at the test."""
    own(WITH_NORM)
    out = tmp_path / "run"
    if not after:
        monkeypatch.setattr(phase, "train_epoch", stop_after(1))
    stop_run(OWN, digits, out, after)
    for changed in ("nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 8), ", "nn.Identity(), " + WITH_NORM):
        own(changed)
        with pytest.raises(InputError, match="own:Net is no longer the network that was trained; bring that back"):
            train(OWN, digits, out, checkpoint=load_checkpoint(out))
