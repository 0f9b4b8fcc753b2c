"""Does a trained network stay good while its neurons choose anew? `python benchmarks/fine_tuning.py --json PATH`.

Networks of one activation are trained, and then trained on in several ways, with the same epochs, schedule and order:
`plain`, as they are, and after `smx.select` by several rules, committed after three quarters of the steps. Held out are
the validation and the test examples together, since nothing is chosen by them. `sampled` is the accuracy with the noise
of training, at the start, after one batch has been seen. `lowest` is the lowest accuracy in `eval()`, at the start and
at 20 points of the training. `moved` is the share of neurons that are committed to another activation than they began
with. Digits go on for longer than MNIST, which has more steps.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from smx.cli import options
from smx.cli.output import logs, table, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH, TRAINED, TUNED, CHOOSING, CHECKS, DRAWS = 128, 1e-3, 5e-4, 0.75, 20, 5
"""Examples of a step, learning rates of training and of training on, share of the steps before the commit, points at
which the accuracy is taken, samples at the start."""


class Task(NamedTuple):
    """A network on a data set, with its epochs before and after `select`, and the rules that are tried on it."""

    data: str
    model: str
    activation: str
    trained: int
    tuned: int
    rules: tuple[str, ...]


def _current(x: Tensor, **how: Any) -> Callable[[nn.Module], nn.Module]:
    import smx

    return lambda net: smx.select(net, example_input=x, start="current", **how)


def _led(x: Tensor, logit: float, explores: float | None = None, **how: Any) -> Callable[[nn.Module], nn.Module]:
    """Return the same with another logit for the present activations, and another share of neurons that explore."""
    import smx
    from smx.layers import selectives

    def select(net: nn.Module) -> nn.Module:
        net = smx.select(net, example_input=x, start="current", **how)
        for layer in selectives(net):
            assert layer.present is not None
            assert layer.explores is not None
            layer.choose(layer.present, logit)
            if explores is not None:
                layer.explores.fill_(explores)
        return net

    return select


def rules(x: Tensor) -> Mapping[str, Callable[[nn.Module], nn.Module]]:
    """Return the ways to train on, by name: functions of a trained network; x (B, *) is an example of its input."""
    import smx

    return {
        "plain": copy.deepcopy,
        "random": lambda net: smx.select(net, example_input=x),
        "logit 2": _led(x, 2.0, 1.0, selection="paper"),
        "logit 2, matched": _led(x, 2.0, 1.0),
        "few explore, paper": _current(x, selection="paper"),
        "lead 1": _led(x, 1.0),
        "keep 0.97": _current(x, keep=0.97),
        "current": _current(x),
    }


ALL = ("plain", "random", "logit 2", "logit 2, matched", "few explore, paper", "lead 1", "keep 0.97", "current")
FEW = ("plain", "random", "current")
TASKS = (
    Task("digits", "cnn", "relu", 15, 20, ALL),
    Task("digits", "cnn", "sigmoid", 15, 20, ALL),
    Task("mnist", "mlp", "relu", 2, 2, FEW),
    Task("mnist", "mlp", "sigmoid", 2, 2, FEW),
)
SMALLEST = (Task("digits", "mlp", "sigmoid", 1, 1, ("plain", "current")),)


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="From 0 on.")
@click.option("--smallest", is_flag=True, help="One seed and one epoch, on the digits: for a test.")
@options.data_dir
@options.json
def main(seeds: int, smallest: bool, data_dir: Path | None, json_path: str | None) -> None:
    """Train networks, and train them on by every rule, with several seeds."""
    import torch

    from smx.timing.machine import machine

    torch.set_num_threads(1)
    started = time.process_time()
    tasks, seeds = (SMALLEST, 1) if smallest else (TASKS, seeds)
    runs = [run for task in tasks for seed in range(seeds) for run in measure(task, seed, data_dir)]
    rows = summary(runs)
    settings = {"batch_size": BATCH, "lr_trained": TRAINED, "lr_tuned": TUNED, "choosing": CHOOSING, "seeds": seeds}
    settings |= {"checks": CHECKS, "sampled_draws": DRAWS}
    content = {"settings": settings, "tasks": [task._asdict() for task in tasks], "summary": rows, "runs": runs}
    cost = {"processor_seconds": round(time.process_time() - started, 1)}
    people = write_json(json_path, {**content, **cost, "machine": machine()})
    head = ("network", "rule", ">start", ">sampled", ">lowest", ">moved", ">end")
    names = ("start", "sampled", "lowest", "moved", "end")
    shown = [(row["task"], row["rule"], *("" if row[n] is None else f"{row[n]:.4f}" for n in names)) for row in rows]
    people.print(table(head, shown))


def measure(task: Task, seed: int, data_dir: Path | None) -> list[dict[str, Any]]:
    """Train a network and train it on by each rule; return a row for each."""
    import torch

    import smx
    from smx import data
    from smx.architecture import architecture_for
    from smx.layers import sampling, selectives
    from smx.training.examples import load_examples
    from smx.training.metrics import moved

    dataset = data.load(task.data, data_dir)
    hidden = (256, 128)
    architecture = architecture_for(task.model, dataset.sample_shape, len(dataset.class_names), hidden=hidden)
    train, validation, test = load_examples(dataset, architecture.input_shape, "cpu")
    x, y = torch.cat([validation.x, test.x]), torch.cat([validation.y, test.y])

    @torch.no_grad()
    def accuracy(net: nn.Module) -> float:
        right = [net.eval()(x[i : i + 1000]).argmax(1) == y[i : i + 1000] for i in range(0, len(y), 1000)]
        return torch.cat(right).double().mean().item()

    torch.manual_seed(seed)
    trained = architecture.build()
    _exchange(trained, task.activation)
    fit(trained, train.x, train.y, batches(len(train), task.trained, seed), TRAINED)
    start, rows = accuracy(trained), []
    for name in task.rules:
        logs().print(f"{task.data} {task.model}, {task.activation}, seed {seed}: {name} ...")
        torch.manual_seed(1000 + seed)
        net = rules(x[:4])[name](trained)
        sampled = None
        if selectives(net):
            seen = copy.deepcopy(net).train()
            seen(train.x[:BATCH])
            with sampling(seen):
                sampled = statistics.fmean(accuracy(seen) for _ in range(DRAWS))
        accuracies = [accuracy(net)]  # before the first step
        check = lambda net: accuracies.append(accuracy(net))  # noqa: E731, B023
        order = batches(len(train), task.tuned, 2000 + seed)
        choosing = int(CHOOSING * len(order))
        fit(net, train.x, train.y, order, TUNED, check, until=choosing)
        share = moved(net)
        net = smx.commit(net) if selectives(net) else net
        fit(net, train.x, train.y, order, TUNED, check, since=choosing)
        rows.append(
            {
                "task": f"{task.data} {task.model}, {task.activation}",
                "rule": name,
                "seed": seed,
                "start": start,
                "sampled": sampled,
                "lowest": min(accuracies),
                "moved": share,
                "end": accuracies[-1],
            }
        )
    return rows


def _exchange(net: nn.Module, activation: str) -> None:
    """Give a network another activation than ReLU."""
    from torch import nn

    kind = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[activation]
    for path, part in list(net.named_modules()):
        if isinstance(part, nn.ReLU):
            net.set_submodule(path, kind())


def batches(examples: int, epochs: int, seed: int) -> list[Tensor]:
    """Return the indices of all batches of a training; noise has no part in their order."""
    import torch
    from torch import Tensor

    generator, order = torch.Generator().manual_seed(seed), list[Tensor]()
    for _ in range(epochs):
        order += torch.randperm(examples, generator=generator).split(BATCH)  # type: ignore[no-untyped-call]
    return order


def fit(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    order: list[Tensor],
    lr: float,
    check: Callable[[nn.Module], None] | None = None,
    *,
    since: int = 0,
    until: int | None = None,
) -> None:
    """Train in place on some of the batches, with a cosine over all after a warm-up of a tenth; `check` at times."""
    import torch
    import torch.nn.functional as F

    import smx
    from smx.training.schedules import lr_factor

    groups = smx.parameter_groups(net, lr=lr)
    rates, steps = [group["lr"] for group in groups], len(order)
    optimizer = torch.optim.Adam(groups, fused=True)
    for step, part in list(enumerate(order))[since:until]:
        factor = lr_factor(step, schedule="cosine", steps=steps, warmup=steps // 10)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if check and (step + 1) * CHECKS // steps > step * CHECKS // steps:
            check(net)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each task and rule the means over the seeds; `drop` is the largest one of a seed, in points."""
    rows = []
    for task, rule in dict.fromkeys((run["task"], run["rule"]) for run in runs):
        own = [run for run in runs if (run["task"], run["rule"]) == (task, rule)]
        means = {
            name: None if own[0][name] is None else statistics.fmean(run[name] for run in own)
            for name in ("start", "sampled", "lowest", "moved", "end")
        }
        drop = 100 * max(run["start"] - run["lowest"] for run in own)
        rows.append({"task": task, "rule": rule, **means, "drop": drop})
    return rows


if __name__ == "__main__":
    main()
