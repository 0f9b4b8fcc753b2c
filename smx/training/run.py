"""A whole run: phase 1, commit, phase 2, and what it leaves in its folder."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from smx import activations, convert, factory, files, sorting
from smx.architecture import FACTORY, Architecture, architecture_for
from smx.data import Dataset
from smx.errors import InputError, one_line
from smx.layers import selectives
from smx.modelfile import SavedModel, save_model, split_state
from smx.paper import CURRENT
from smx.training.checkpoint import Checkpoint
from smx.training.config import NONE, TrainConfig, as_text, first_difference, from_values, read_toml
from smx.training.controls import replace_choices
from smx.training.denormals import flushed
from smx.training.engine import evaluate, seed_for
from smx.training.events import tensorboard
from smx.training.examples import Examples, load_examples
from smx.training.initial import load_initial
from smx.training.isolation import isolated
from smx.training.metrics import EpochMetrics, best, choices, moved, to_csv
from smx.training.parallel import ALONE, Ranks
from smx.training.phase import train_phase
from smx.training.protocol import rules
from smx.training.step import adam, prices_of

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left: the content of `model.pt`, and a row for each epoch."""

    model: SavedModel
    rows: list[EpochMetrics]


@dataclass(frozen=True)
class _Run:
    config: TrainConfig
    architecture: Architecture
    ranks: Ranks

    def network(self, phase: int) -> nn.Module:
        torch.manual_seed(seed_for(self.config.seed, phase))
        if phase == 2:
            return self.architecture.mixed(self.config.candidates)
        config = self.config
        pool = rules(config).phase1_pool(activations.resolve_pool(config.candidates))
        how: dict[str, Any] = {"selection": config.selection, "per": config.per}
        if config.init == NONE or config.start != CURRENT:  # otherwise the file says with which activations they begin
            how |= {"start": config.start, "keep": config.keep}
        return self.architecture.selective(pool, config.temperature, **how)


@isolated()
def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[EpochMetrics], None] = lambda row: None,
    on_end: Callable[[TrainResult], None] = lambda result: None,
    ranks: Ranks = ALONE,
    load: Callable[[Dataset, Sequence[int], str], tuple[Examples, Examples, Examples]] = load_examples,
) -> TrainResult:
    """Train through both phases and leave `model.pt`, `checkpoint.pt`, `config.toml` and `metrics.csv` in `out`.

    Each epoch draws its order and noise from a seed of its own, so that a run killed at any moment and resumed on
    the same kind of machine ends in the same model, bit for bit (on CUDA as far as PyTorch's operators allow).

    Args:
        config: the settings.
        dataset: the data.
        out: the run's folder; created when it is missing.
        checkpoint: continue from it: what `load_checkpoint(out)` returned.
        on_epoch: the main rank calls it after every epoch that is trained, when its checkpoint is on disk.
        on_end: the main rank calls it when `model.pt` is on disk, while no other run can use `out`.
        ranks: the processes that train together, all with the same arguments; the main one writes. A run may be resumed
            with another number of them, and ends in the same model up to rounding, but for the exceptions in
            docs/training.md.
        load: what `load_examples` does; for callers that keep its result for several runs.

    Raises:
        InputError: `out` holds a run that is not to be continued, the checkpoint is of other settings or data, or
            the network can't be made for such data.
        SmxError: the loss is no longer finite, or a file can't be written.
    """
    if config.cuda_graphs and ranks.size > 1:
        raise InputError(f"cuda_graphs works in one process, and this run has {ranks.size}; train it without")
    shape, classes = dataset.sample_shape, len(dataset.class_names)
    run = _Run(config, architecture_for(config.model, shape, classes, hidden=config.hidden), ranks)
    network = run.network(checkpoint.phase if checkpoint else min(config.phases))  # fails before anything is written
    fingerprint = dataset.fingerprint()
    digest = checkpoint.init if checkpoint else ""
    if checkpoint:
        if checkpoint.fingerprint != fingerprint:
            raise InputError(f"{out} was trained on other data than this {dataset.name}; resume with the same data")
        _require_fits(run, network, checkpoint, out)
    elif config.init != NONE:
        digest = load_initial(network, run.architecture, config)
    _require_trainable(run, network, len(dataset.train))
    prices = checkpoint.prices if checkpoint else ""
    if config.price_weight and not (checkpoint and checkpoint.phase == 2):
        now = hashlib.sha256(prices_of(config).to_json().encode()).hexdigest()
        if prices not in ("", now):
            raise InputError(f"{out} was trained with other prices than those of {config.price}; resume with the same")
        prices = now
    files.make_folder(out)
    with files.locked(out) if ranks.main else nullcontext():
        state = _start(config, fingerprint, out, checkpoint, digest)
        state.prices = prices
        position = (state.fingerprint, state.phase, state.epoch)
        if ranks.of_main(position) != position:
            raise InputError(f"rank {ranks.rank} sees another {out} than rank 0; put it on a disk that all ranks share")
        ranks.wait()  # until all have looked at the folder
        if config.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic cuBLAS needs
            torch.use_deterministic_algorithms(True, warn_only=True)
        examples = load(dataset, run.architecture.input_shape, config.device)
        failures = factory.naming_failures(run.architecture.name) if run.architecture.kind == FACTORY else nullcontext()
        with _recording(state, out, on_epoch, ranks) as record, failures, flushed():
            state = _train_phases(run, network.to(config.device), state, examples, record)
        result = TrainResult(_saved(run, state, dataset), state.rows)
        if ranks.main:
            files.write_text(out / "metrics.csv", to_csv(state.rows))  # again: a kill may have come before the last row
            save_model(out / "model.pt", result.model)
            on_end(result)
    return result


def _train_phases(
    run: _Run,
    network: nn.Module,
    state: Checkpoint,
    examples: tuple[Examples, Examples, Examples],
    record: Callable[[Checkpoint], None],
) -> Checkpoint:
    """Train from a state to the end of the last phase; the network is that of the state's phase."""
    train, validation, test = examples
    for phase in run.config.phases:
        if phase < state.phase:
            continue
        if phase > state.phase:
            network = network if state.phase == 0 else _next_network(run, network)
            kept = {name: getattr(state, name) for name in ("init", "prices", "rows", "results")}
            state = Checkpoint(run.config, state.fingerprint, phase, **kept)
            state.model, state.optimizer = network.state_dict(), adam(network, run.config).state_dict()
            record(state)
        run.architecture.load(network, state.model)
        # A copy, because it may be rewritten for several devices.
        train_phase(copy.deepcopy(network), state, train, validation, record, run.ranks)
        run.architecture.load(network, state.best_model)
        state.results[f"phase{phase}"] = _test(run, network, state, test)
    return state


def _next_network(run: _Run, phase1: nn.Module) -> nn.Module:
    """Return the network that phase 2 begins with: committed and sorted, or with other weights and the same choices.

    The weights of `rewind` are those at the start of phase 1, where nothing has been matched yet.
    """
    config = run.config
    if limits := _limits(config):
        for layer in selectives(phase1):
            layer.choose(convert.dissolve(layer, **limits))
    replace_choices(phase1, config.phase2_choices, seed_for(config.seed, 3))
    if config.rewind:
        chosen, phase1 = phase1, run.network(1).to(config.device)
        for layer, other in zip(selectives(phase1), selectives(chosen), strict=True):
            layer.choose(other.decisions)
    committed = sorting.sort(convert.commit(phase1), example_input=torch.zeros(2, *run.architecture.input_shape))
    if rules(config).warm_start:
        return committed
    torch.manual_seed(seed_for(config.seed, 2))
    pool = config.candidates
    run.architecture.selective(pool)  # for what it draws: a seed gives the weights that it gave in every release
    network = run.architecture.mixed(pool).to(config.device)
    network.load_state_dict({**network.state_dict(), **{f"{name}.choice": c for name, c in choices(committed).items()}})
    return network


def _saved(run: _Run, state: Checkpoint, dataset: Dataset) -> SavedModel:
    chosen, weights = split_state(state.best_model)
    return SavedModel(
        architecture=run.architecture,
        pool=run.config.candidates,
        choices=chosen,
        weights=weights,
        data={
            "name": dataset.name,
            "sample_shape": list(dataset.sample_shape),
            "maximum": dataset.maximum,
            "class_names": list(dataset.class_names),
            **({"signed": True} if dataset.signed else {}),
        },
        training=run.config.to_dict() | ({"init_sha256": state.init} if state.init else {}),
        metrics=state.results,
    )


def load_checkpoint(out: Path) -> Checkpoint | None:
    """Return the state of the run in `out`, or None; raise an InputError if it is damaged."""
    path = out / CHECKPOINT
    return Checkpoint.load(path) if path.exists() else None


def require_same(checkpoint: Checkpoint, settings: Mapping[str, Any], out: Path) -> None:
    """Raise an InputError for the first setting that differs from that of the run that is to be continued.

    Whether the data are the same says their fingerprint.
    """
    before = vars(checkpoint.config)
    if name := first_difference(settings, before):
        raise InputError(
            f"{out} was trained with {name} = {as_text(before[name])}, not {as_text(settings[name])};"
            " resume with the same settings, or choose another --out"
        )


def _start(config: TrainConfig, fingerprint: str, out: Path, checkpoint: Checkpoint | None, digest: str) -> Checkpoint:
    if checkpoint is None:
        if (out / CHECKPOINT).exists():
            raise InputError(f"{out} already holds a run; add --resume to continue it, or choose another --out")
        if (out / "model.pt").exists():
            raise InputError(f"{out} holds a model.pt without a checkpoint to continue from; choose another --out")
        if (out / "cells.json").exists():
            raise InputError(f"{out} holds a sweep; choose another --out")
        if (metrics := out / "metrics.csv").exists():
            raise InputError(f"{metrics} is of no run that goes on, and would be replaced; move or remove it")
        settings = out / "config.toml"  # perhaps of the same run, killed before its first epoch
        if settings.exists() and not config.is_in(settings):
            raise InputError(
                f"{settings} has other settings than this run, or lacks some, and would be replaced; move or remove it"
            )
        return Checkpoint(config, fingerprint, phase=0, init=digest)
    require_same(checkpoint, vars(config), out)
    _require_own(checkpoint.config, out / "config.toml")
    return replace(checkpoint, config=config)


def _require_own(config: TrainConfig, settings: Path) -> None:
    """Refuse a checkpoint that came from another run, whose results would replace those of the folder's own."""
    if not settings.exists():
        return
    try:
        said = vars(from_values(read_toml(settings)))
    except InputError:  # damaged; it is written anew
        return
    if name := first_difference(said, vars(config)):
        raise InputError(
            f"{settings} says {name} = {as_text(said[name])}, and {CHECKPOINT} beside it"
            f" {as_text(getattr(config, name))}; put the files of one run together, or remove the one that is not of"
            " this run"
        )


def _require_fits(run: _Run, network: nn.Module, checkpoint: Checkpoint, out: Path) -> None:
    """Refuse a state that is not that of the network and its optimiser; the network gets its weights."""
    try:
        if checkpoint.best_model:
            run.architecture.load(network, checkpoint.best_model)
        run.architecture.load(network, checkpoint.model)
        optimizer = adam(network, run.config, checkpoint.optimizer)
        for parameter, state in optimizer.state.items():
            if state["exp_avg"].shape != parameter.shape or state["exp_avg_sq"].shape != parameter.shape:
                raise ValueError("the optimiser's state has other shapes than the network")
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = shorten(one_line(error), 200)
        raise InputError(
            f"{out / CHECKPOINT} is damaged ({reason}); remove it, or begin a run in another --out"
        ) from error


def _require_trainable(run: _Run, network: nn.Module, examples: int) -> None:
    """Refuse a user's network that can't be trained, and batches that leave a rank one example if that can't be.

    BatchNorm often can't be trained on one example.
    """
    config, ranks, architecture = run.config, run.ranks, run.architecture
    if architecture.kind == FACTORY:
        factory.require_trainable(architecture.name, network, architecture.input_shape)
    last = examples % config.batch_size or config.batch_size
    if last > ranks.size or (ranks.size > 1 and config.device == "cuda"):  # there BatchNorm sees the whole batch
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            copy.deepcopy(network).train()(factory.example(architecture.input_shape)[:1])
    except Exception as error:
        raise InputError(
            f"batches of {config.batch_size} leave {last} of the {examples} training examples for the last one"
            f"{', one for each rank' if ranks.size > 1 else ''}, and {architecture} can't be trained on one alone;"
            f" choose another --batch-size ({one_line(error)})"
        ) from error


@contextmanager
def _recording(
    state: Checkpoint, out: Path, on_epoch: Callable[[EpochMetrics], None], ranks: Ranks
) -> Iterator[Callable[[Checkpoint], None]]:
    """Yield a function to call with every new state: the main rank writes files and calls `on_epoch`."""
    if not ranks.main:
        yield lambda state: None
        return
    events = tensorboard(out / "tensorboard", len(state.rows)) if state.config.tensorboard else nullcontext()
    with events as write_events:
        if not state.config.is_in(out / "config.toml"):  # the user's comments in it stay
            files.write_text(out / "config.toml", state.config.to_toml())

        def record(state: Checkpoint) -> None:
            if state.epoch and write_events:
                write_events(state.rows[-1])  # first: what a kill leaves here of a lost epoch is void when it resumes
            state.save(out / CHECKPOINT)
            if state.epoch:
                files.write_text(out / "metrics.csv", to_csv(state.rows))
                on_epoch(state.rows[-1])

        yield record


def _test(run: _Run, network: nn.Module, state: Checkpoint, examples: Examples) -> dict[str, Any]:
    """Evaluate the network, with the weights of the best epoch, on the test set."""
    row = best(state.rows, state.phase)
    result: dict[str, Any] = {
        "epochs": state.epoch,
        "best_epoch": row.epoch,
        "validation_loss": row.validation_loss,
        "validation_accuracy": row.validation_accuracy,
        "test_accuracy": evaluate(network, examples, run.config, state.phase, ranks=run.ranks)[1],
    }
    if state.phase == 1:
        torch.manual_seed(seed_for(run.config.seed, 1, 0))
        result["validation_accuracy_sampled"] = row.validation_accuracy_sampled
        if (share := moved(network)) is not None:
            result["moved"] = share
        result["test_accuracy_sampled"] = evaluate(network, examples, run.config, 1, sampled=True, ranks=run.ranks)[1]
        if limits := _limits(run.config):
            given_up = convert.dissolved(network, **limits)
            result["groups"] = sum(len({*layer.choice.tolist()}) for layer in selectives(network))
            result["groups_dissolved"] = sum(len(each.before) - len(each.after) for each in given_up)
            result["neurons_moved"] = sum(each.changed for each in given_up)
    return result


def _limits(config: TrainConfig) -> dict[str, Any]:
    """Return the limits that dissolve small groups, as `smx.convert.dissolve` takes them; empty if there are none."""
    limits = {"min_share": config.min_share, "max_groups": config.max_groups}
    return limits if any(limits.values()) else {}
