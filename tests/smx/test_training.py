from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import smx
from smx import files
from smx.data import Dataset
from smx.errors import InputError, SmxError
from smx.modelfile import load_model
from smx.training import phase, run
from smx.training.checkpoint import Checkpoint
from smx.training.config import TrainConfig, from_values, parse, read_toml
from smx.training.engine import evaluate
from smx.training.examples import load_examples
from smx.training.metrics import EpochMetrics, shares
from smx.training.run import TrainResult, load_checkpoint, train
from tests.smx.runs import SCHEDULED, SMALL, stop_run


@pytest.fixture(scope="module")
def small(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    out = tmp_path_factory.mktemp("training") / "run"
    return out, train(SCHEDULED, digits, out)


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_learns_and_its_model_file_holds_what_it_says(small: tuple[Path, TrainResult], digits: Dataset) -> None:
    out, result = small
    saved = load_model(out / "model.pt")
    assert same_tensors(saved.weights, result.model.weights)
    assert same_tensors(saved.choices, result.model.choices)
    assert saved.metrics == result.model.metrics
    with torch.no_grad():
        predicted = saved.build()(torch.from_numpy(saved.examples(digits, digits.test.x))).argmax(1).numpy()
    assert np.mean(predicted == digits.test.y) == pytest.approx(saved.metrics["phase2"]["test_accuracy"])
    assert saved.metrics["phase2"]["test_accuracy"] > 0.8


def test_metrics_csv_has_a_row_an_epoch(small: tuple[Path, TrainResult]) -> None:
    out, result = small
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("1", "1"), ("1", "2"), ("1", "3"), ("2", "1"), ("2", "2"),
    ]  # fmt: skip
    for row in rows:
        for layer in ("layer1", "layer2"):
            assert sum(float(row[f"{layer}.{name}"]) for name in smx.PAPER_POOL) == pytest.approx(1, abs=1e-5)
    assert [row["validation_accuracy_sampled"] != "" for row in rows] == [True] * 3 + [False] * 2
    assert rows[0]["changed"] != "0"
    assert rows[3]["changed"] == rows[4]["changed"] == "0"
    # The shares of phase 2 are those of the epoch of phase 1 that counted.
    best = min(rows[:3], key=lambda row: float(row["validation_loss"]))
    assert all(best[key] == rows[3][key] for key in best if key.startswith("layer"))
    counts = shares(result.model.choices, smx.PAPER_POOL)
    assert float(rows[-1]["layer1.selu"]) == pytest.approx(counts["layer1.activation"]["selu"], abs=1e-6)


def test_a_seed_decides_everything(small: tuple[Path, TrainResult], digits: Dataset, tmp_path: Path) -> None:
    _, result = small
    torch.manual_seed(99)  # what happened before does not matter
    again = train(SCHEDULED, digits, tmp_path / "again")
    assert same_tensors(again.model.weights, result.model.weights)
    assert (tmp_path / "again" / "model.pt").read_bytes() == (small[0] / "model.pt").read_bytes()
    other = train(replace(SCHEDULED, seed=1), digits, tmp_path / "other")
    assert not same_tensors(other.model.weights, result.model.weights)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_resuming_after_any_epoch_gives_the_same_model(
    small: tuple[Path, TrainResult], digits: Dataset, tmp_path: Path, after: int
) -> None:
    stop_run(SCHEDULED, digits, tmp_path, after)
    (tmp_path / "metrics.csv").unlink()  # as if it had been killed just before
    trained: list[EpochMetrics] = []
    result = train(SCHEDULED, digits, tmp_path, checkpoint=load_checkpoint(tmp_path), on_epoch=trained.append)
    assert len(trained) == 5 - after
    assert len(result.rows) == len((tmp_path / "metrics.csv").read_text().splitlines()) - 1 == 5
    assert (tmp_path / "model.pt").read_bytes() == (small[0] / "model.pt").read_bytes()


def test_settings_of_the_users_own_are_not_replaced(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("# mine\nseed = 3\n")
    with pytest.raises(
        InputError, match=r"config\.toml has other settings than this run, or lacks some, and would be replaced; move"
    ):
        train(SMALL, digits, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    assert (tmp_path / "config.toml").read_text() == "# mine\nseed = 3\n"
    (tmp_path / "config.toml").unlink()
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match=r"metrics\.csv is of no run that goes on, and would be replaced; move or"):
        train(SMALL, digits, tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "config.toml").write_text(SMALL.to_toml())  # as a run leaves it that is killed in its first epoch
    train(SMALL, digits, tmp_path)
    assert (tmp_path / "model.pt").exists()


def test_a_folder_of_something_else_is_left_alone(digits: Dataset, tmp_path: Path) -> None:
    for name, said in (("model.pt", "holds a model.pt without a checkpoint"), ("cells.json", "holds a sweep")):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=f"{said}.*; choose another --out"):
            train(SMALL, digits, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_a_checkpoint_of_another_run_replaces_nothing(
    small: tuple[Path, TrainResult], digits: Dataset, tmp_path: Path
) -> None:
    other = replace(SMALL, seed=9)
    stop_run(other, digits, tmp_path, 1)
    (tmp_path / "config.toml").write_text(SCHEDULED.to_toml())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        InputError, match=r"config\.toml says .*, and checkpoint\.pt beside it .*; put the files of one"
    ):
        train(other, digits, tmp_path, checkpoint=load_checkpoint(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_is_not_overwritten_nor_mixed_up(small: tuple[Path, TrainResult], digits: Dataset) -> None:
    out, _ = small
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        train(SCHEDULED, digits, out)
    with pytest.raises(InputError, match=r"was trained with lr = 0\.01, not 0\.02; resume with the same settings"):
        train(replace(SCHEDULED, lr=0.02), digits, out, checkpoint=load_checkpoint(out))
    other = replace(digits, test=digits.validation)
    with pytest.raises(InputError, match="was trained on other data than this digits"):
        train(SCHEDULED, other, out, checkpoint=load_checkpoint(out))


def test_a_folder_takes_one_run_at_a_time_and_keeps_the_users_files(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / ".old.tmp").mkdir()
    (tmp_path / ".notes.tmp").write_text("mine")
    short = replace(SMALL, phase1_epochs=1, phase2_epochs=1)
    with files.locked(tmp_path), pytest.raises(InputError, match="in use by another run: process"):
        train(short, digits, tmp_path)
    ends: list[TrainResult] = []

    def end(result: TrainResult) -> None:
        """The folder is still locked, and `model.pt` is in it."""
        with pytest.raises(InputError, match="in use by another run"), files.locked(tmp_path):
            pass
        assert (tmp_path / "model.pt").exists()
        ends.append(result)

    assert ends == [train(short, digits, tmp_path, on_end=end)]
    assert len(ends[0].rows) == 2
    assert (tmp_path / ".notes.tmp").read_text() == "mine"
    assert (tmp_path / ".old.tmp").is_dir()
    assert not (tmp_path / files.LOCK).exists()


def states_of(config: TrainConfig, digits: Dataset, out: Path) -> tuple[TrainResult, list[Checkpoint]]:
    """Train; return the result and the checkpoint after each epoch."""
    states: list[Checkpoint] = []
    result = train(config, digits, out, on_epoch=lambda row: states.append(Checkpoint.load(out / "checkpoint.pt")))
    return result, states


@pytest.mark.parametrize(("protocol", "warm"), [("standard", True), ("author", False)])
def test_warm_start_keeps_the_weights_and_cold_start_the_choices_only(
    protocol: str, warm: bool, digits: Dataset, tmp_path: Path
) -> None:
    """One step with a learning rate of nearly nothing leaves phase 2 where it began."""
    still = replace(SMALL, phase1_epochs=1, phase2_epochs=1, lr=1e-30)
    states = states_of(replace(still, protocol=protocol), digits, tmp_path)[1]
    phase1, phase2 = (state.model for state in states)
    choice = phase1["layer1.activation.logits"].argmax(1)
    order = choice.argsort(stable=True)  # the neurons of phase 2 stand sorted
    assert torch.equal(phase2["layer1.activation.choice"], choice[order])
    assert torch.allclose(phase1["layer1.linear.weight"][order], phase2["layer1.linear.weight"]) == warm
    assert states[1].optimizer["state"][0]["step"] == math.ceil(1293 / 128)  # a new Adam


class Spy:
    """Calls through to a function, and remembers what went in and came out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.function = getattr(owner, name)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        self.calls.append((args, kwargs, result))
        return result


@pytest.mark.parametrize("protocol", ["standard", "author"])
def test_a_run_obeys_its_protocol(
    protocol: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations = Spy(monkeypatch, phase, "evaluate")
    tests = Spy(monkeypatch, run, "evaluate")
    permutations = Spy(monkeypatch, torch, "randperm")
    clips = Spy(monkeypatch, torch.nn.utils, "clip_grad_norm_")
    result = train(replace(SMALL, protocol=protocol, clip_norm=0.5), digits, tmp_path)
    # The validation loss that counts has the noise of the author's protocol, and none in the standard one.
    for row in result.rows[:3]:
        committed, sampled = evaluations.calls[2 * (row.epoch - 1) : 2 * row.epoch]
        assert (committed[1].get("sampled", False), sampled[1]["sampled"]) == (False, True)
        assert row.validation_loss == (sampled if protocol == "author" else committed)[2][0]
        assert row.validation_accuracy == committed[2][1]
        assert row.validation_accuracy_sampled == sampled[2][1]
    assert [len(call[0][1]) for call in evaluations.calls] == [144] * 8
    assert [len(call[0][1]) for call in tests.calls] == [360] * 3
    # Every epoch has an order of its own, over all examples, and every step is clipped.
    orders = [call[2] for call in permutations.calls]
    assert len(orders) == len({tuple(order.tolist()) for order in orders}) == 5
    assert all(order.sort().values.equal(torch.arange(1293)) for order in orders)
    assert len(clips.calls) == 5 * 11
    assert all(call[0][1] == 0.5 for call in clips.calls)


def test_the_epoch_with_the_lowest_validation_loss_counts(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With losses made up for the test: epoch 2 of phase 1 and epoch 1 of phase 2 are the best."""
    losses = iter([0.5, 9, 0.2, 9, 0.4, 9, 0.0, 0.0, 0.3, 0.6, 0.0])
    for module in (phase, run):
        monkeypatch.setattr(module, "evaluate", lambda *args, **kwargs: (next(losses), 0.5))
    result, states = states_of(SMALL, digits, tmp_path)
    assert [result.model.metrics[phase]["best_epoch"] for phase in ("phase1", "phase2")] == [2, 1]
    best = {key: value for key, value in states[3].model.items() if not key.endswith("choice")}
    assert same_tensors(result.model.weights, best)
    second = states[1].model["layer1.activation.logits"].argmax(1)
    third = states[2].model["layer1.activation.logits"].argmax(1)
    assert torch.equal(result.model.choices["layer1.activation"], second.sort().values)  # phase 2 begins sorted
    assert not torch.equal(second.sort().values, third.sort().values)


def test_evaluation_in_batches_is_the_mean_over_all_with_or_without_noise(digits: Dataset) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 10), smx.Selective(10))
    examples, *_ = load_examples(digits, (64,), "cpu")
    loss, accuracy = evaluate(model, examples, SMALL, 2)
    with torch.no_grad():
        logits = model(torch.from_numpy(digits.train.x).reshape(-1, 64) / 16)
    y = torch.from_numpy(digits.train.y)
    assert loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item(), rel=1e-5)
    assert evaluate(model, examples, SMALL, 2, sampled=True) != (loss, accuracy)
    assert evaluate(model, examples, SMALL, 2) == (loss, accuracy)


def test_a_baseline_trains_as_long_as_both_phases(digits: Dataset, tmp_path: Path) -> None:
    result = train(replace(SMALL, activation="tanh"), digits, tmp_path)
    assert [(row.phase, row.epoch) for row in result.rows] == [(2, epoch) for epoch in range(1, 6)]
    assert result.model.pool == ("tanh",)
    layer = result.model.build().get_submodule("layer1.activation")
    assert isinstance(layer, smx.Mixed)
    assert layer.group_sizes == {"tanh": 20}


def test_a_loss_that_explodes_stops_the_run(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SmxError, match=r"the training loss became .* in epoch 1 of phase 2; try a lower --lr"):
        train(replace(SMALL, activation="identity", lr=1e38), digits, tmp_path)


def test_config_goes_through_toml(tmp_path: Path) -> None:
    config = from_values(
        {"hidden": "7,5", "pool": "gelu, relu", "lr": "3e-4", "data": 'a "b".npz', "phase1_epochs": "auto"}
        | {"compile": True}
    )
    (tmp_path / "c.toml").write_text(config.to_toml())
    assert from_values(read_toml(tmp_path / "c.toml")) == config
    assert config.hidden == (7, 5)
    assert config.pool == ("gelu", "relu")
    assert config.phases == {1: 50, 2: 350}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phase1_epochs": "0"}, "phase1_epochs must be between 1 and 1000000, got 0"),
        ({"hidden": ""}, "hidden must be one or more layers"),
        ({"hidden": "10,,10"}, "hidden must be whole numbers, with commas between, got '10,,10'"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": "nan"}, "lr must be positive and finite, got nan"),
        ({"seed": 1.5}, r"seed must be a whole number, got 1\.5"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"pool": ""}, "the pool is empty"),
        ({"pool": "relu,swoosh"}, "unknown activation 'swoosh'; known are relu"),
        ({"activation": "swoosh"}, "unknown activation 'swoosh'"),
        ({"protocol": "paper"}, "protocol must be one of standard, author, got 'paper'"),
        ({"phase1_epochs": "soon"}, "phase1_epochs must be a whole number or auto, got 'soon'"),
        ({"selection": "best"}, "selection must be one of paper, matched, recommended, got 'best'"),
        ({"logits_lr": "-1"}, r"logits_lr must be 0 or more, and finite, got -1\.0"),
        ({"rewind": True, "protocol": "author"}, "rewind must be off with the author's protocol"),
        ({"max_phase1_epochs": "0"}, "max_phase1_epochs must be between 1 and 1000000, got 0"),
        ({"settle_loss": "-0.1"}, r"settle_loss must be 0 or more, and finite, got -0\.1"),
        ({"patience": "-1"}, "patience must be between 0 and 1000000, got -1"),
        ({"temperature_end": "0"}, r"temperature_end must be positive and finite, got 0\.0"),
        ({"amp": "int8"}, "amp must be one of none, bfloat16, float16, got 'int8'"),
        ({"compile": "yes"}, "compile must be true or false, got 'yes'"),
        ({"tensorboard": 1}, "tensorboard must be true or false, got 1"),
        ({"cuda_graphs": True, "device": "cpu"}, "cuda_graphs must be off on the cpu"),
        ({"amp": "float16", "device": "cpu"}, "amp must be none or bfloat16 on the cpu, got 'float16'"),
        ({"amp": "float16", "cuda_graphs": True}, "amp must be none or bfloat16 with cuda_graphs, got 'float16'"),
        ({"phase1_epochs": "auto", "activation": "relu"}, "must be a number: a baseline makes no choices"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_values(settings)


def test_bad_toml(tmp_path: Path) -> None:
    for text, message in (
        ("epochs = 3", "unknown setting 'epochs'; known are data, model, hidden"),
        ("a = ", "is no TOML"),
    ):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_toml(tmp_path / "c.toml")
    with pytest.raises(InputError, match=r"can't be read .*; expected a TOML file"):
        read_toml(tmp_path / "none.toml")
    assert parse("hidden", [3, 4]) == (3, 4)
    assert parse("hidden", 8) == (8,)
