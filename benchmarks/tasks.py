"""On which task is which activation best, and how far below it is a network that chooses? `tasks.py --json PATH`.

Small tasks, of which some are real tables and some are functions, x-64-64-32-y, Adam at 2e-3 with a cosine, batches of
64, 60 epochs, of which 12 choose. The score is the test accuracy, or R2 of a regression. The regret of a method on a
task is the mean score of the best fixed activation there minus its own; what insurance is worth is its worst regret.
Each seed draws weights, split and order. Finished runs are kept in --out, so that a stopped one goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from smx import files
from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.paper import PAPER_POOL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

HIDDEN, RATE, BATCH, EPOCHS, CHOOSING = (64, 64, 32), 2e-3, 64, 60, 12


class Examples(NamedTuple):
    """Inputs (B, F), float32, standardised; labels (B,), int64, of so many classes, or values (B,) of a regression."""

    x: NDArray[Any]
    y: NDArray[Any]
    classes: int = 0


def sklearn_table(name: str) -> Examples:
    """Return a table inside scikit-learn."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    return Examples(found.data, found.target, len(found.target_names) if hasattr(found, "target_names") else 0)


def friedman(generator: np.random.Generator) -> Examples:
    """Friedman 1: 10 sin(pi x0 x1) + 20 (x2 - 0.5)^2 + 10 x3 + 5 x4, with noise of deviation 0.5, of ten inputs."""
    x = generator.uniform(size=(2000, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return Examples(x, y + 0.5 * generator.normal(size=len(y)))


def waves(generator: np.random.Generator) -> Examples:
    """sin(2 x0 + x1) + cos(3 x2) x3, x uniform in [-2, 2]."""
    x = generator.uniform(-2, 2, (3000, 4))
    return Examples(x, np.sin(2 * x[:, 0] + x[:, 1]) + np.cos(3 * x[:, 2]) * x[:, 3])


def corners(generator: np.random.Generator) -> Examples:
    """|x0| - |x1 + x2| + max(x3, 0.5), x normal: a function with kinks."""
    x = generator.normal(size=(3000, 4))
    return Examples(x, np.abs(x[:, 0]) - np.abs(x[:, 1] + x[:, 2]) + np.maximum(x[:, 3], 0.5))


def spirals(generator: np.random.Generator) -> Examples:
    """Three noisy spirals in the plane."""
    label = np.arange(1500) % 3
    turn = generator.uniform(0.25, 2.0, len(label))
    angle = 2 * np.pi * (turn + label / 3)
    x = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return Examples(x + 0.05 * generator.normal(size=x.shape), label, 3)


TASKS: Mapping[str, Callable[[np.random.Generator], Examples]] = {
    "digits": lambda _: sklearn_table("digits"),
    "cancer": lambda _: sklearn_table("breast_cancer"),
    "wine": lambda _: sklearn_table("wine"),
    "diabetes": lambda _: sklearn_table("diabetes"),
    "friedman": friedman,
    "waves": waves,
    "corners": corners,
    "spirals": spirals,
}

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "random": {"choices": "random"},
    "paper": {},
    "paper shuffled": {"choices": "shuffled"},
    "matched": {"selection": "matched"},
    "matched one group": {"selection": "matched", "max_groups": 1},
    "matched shuffled": {"selection": "matched", "choices": "shuffled"},
    "matched rewound": {"selection": "matched", "rewind": True},
    "matched per layer": {"selection": "matched", "per": "layer"},
    "from relu": {"selection": "matched", "start": "relu"},
    "from relu per layer": {"selection": "matched", "start": "relu", "per": "layer"},
    "recommended": {"selection": "matched", "start": "relu", "hold": True, "per": "layer", "price_weight": 0.1},
    "random per layer": {"selection": "matched", "per": "layer", "choices": "random"},
}
METHODS = (*PAPER_POOL, *CHOICES)


class Run(NamedTuple):
    """One training."""

    task: str
    method: str
    seed: int


def split(run: Run) -> tuple[Examples, Examples]:
    """Return training examples, 70 %, and test examples, as the seed draws them; regressions with deviation 1."""
    generator = np.random.default_rng(run.seed)
    x, y, classes = TASKS[run.task](generator)
    order = generator.permutation(len(x))
    train, test = np.split(order, [round(0.7 * len(x))])
    x = (x - x[train].mean(0)) / np.maximum(x[train].std(0), 1e-6)
    y = y.astype(np.int64) if classes else ((y - y[train].mean()) / y[train].std()).astype(np.float32)
    return tuple(Examples(x[part].astype(np.float32), y[part], classes) for part in (train, test))  # type: ignore[return-value]


def score(run: Run, epochs: int = EPOCHS, choosing: int = CHOOSING) -> float:
    """Train, and return the score on the test examples."""
    import torch

    import smx
    from smx.activations import get
    from smx.layers import selectives
    from smx.models import Fixed, mlp
    from smx.training.controls import replace_choices

    torch.set_num_threads(1)
    train, test = split(run)
    torch.manual_seed(run.seed)
    sizes = (train.x.shape[1], *HIDDEN, train.classes or 1)
    if run.method in PAPER_POOL:
        function = get(run.method).function
        net = fit(mlp(sizes, lambda i: Fixed(function)), train, epochs)
    else:
        how = CHOICES[run.method]
        net = smx.select(mlp(sizes), **{name: how[name] for name in ("selection", "per", "start") if name in how})
        start = {name: value.clone() for name, value in net.state_dict().items()}
        net = fit(net, train, choosing, how.get("price_weight", 0.0), how.get("hold", False))
        replace_choices(net, how.get("choices", "learned"), run.seed)
        if how.get("rewind"):
            chosen = [layer.decisions for layer in selectives(net)]
            net.load_state_dict(start)
            for layer, decisions in zip(selectives(net), chosen, strict=True):
                layer.choose(decisions)
        net = fit(smx.commit(net, max_groups=how.get("max_groups", 0)), train, epochs - choosing)
    with torch.no_grad():
        outputs = net.eval()(torch.from_numpy(test.x)).double().numpy()
    if test.classes:
        return float((outputs.argmax(1) == test.y).mean())
    return float(1 - ((outputs[:, 0] - test.y) ** 2).mean() / test.y.var())


def fit(net: nn.Module, train: Examples, epochs: int, price_weight: float = 0.0, hold: bool = False) -> nn.Module:
    """Train a network in place, with one cosine, and return it; `price_weight` and `hold` are as in `smx train`."""
    import torch
    import torch.nn.functional as F

    import smx
    from smx.layers import selectives
    from smx.parameters import parameter_groups
    from smx.pricing import ExpectedPrice
    from smx.training.step import FALLEN

    def let_hold(net: nn.Module, value: bool) -> None:
        for layer in selectives(net):
            layer.holds = value

    prices = dict(zip(PAPER_POOL, smx.load_prices().relative(PAPER_POOL), strict=True))
    price = ExpectedPrice(net, prices) if price_weight else None
    optimizer = torch.optim.Adam(parameter_groups(net, lr=RATE), fused=True)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def loss_of(outputs: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(outputs, wanted) if train.classes else F.mse_loss(outputs[:, 0], wanted)

    net.train()
    for epoch in range(epochs):
        let_hold(net, hold and epoch == 0)
        first = None
        for part in torch.randperm(len(x)).split(BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = loss_of(net(x[part]), y[part])
            holds = any(layer.holds for layer in selectives(net))
            (loss if price is None or holds else loss + price_weight * price()).backward()  # type: ignore[no-untyped-call]
            first = float(loss) if first is None else first
            if holds and float(loss) <= FALLEN * first:
                let_hold(net, False)
            optimizer.step()
            schedule.step()
    return net


def summary(scores: Mapping[Run, float]) -> list[dict[str, Any]]:
    """Return by method: mean score and standard error on each task, worst and mean regret, lowest score over seeds."""
    tasks = list(dict.fromkeys(run.task for run in scores))
    own = {
        (task, method): np.array([value for run, value in scores.items() if run[:2] == (task, method)])
        for task in tasks
        for method in dict.fromkeys(run.method for run in scores)
    }
    best = {task: max(own[task, name].mean() for name in PAPER_POOL if (task, name) in own) for task in tasks}
    rows = []
    for method in dict.fromkeys(run.method for run in scores):
        regrets = {task: float(best[task] - own[task, method].mean()) for task in tasks}
        rows.append(
            {
                "method": method,
                "scores": {task: float(own[task, method].mean()) for task in tasks},
                "errors": {task: _error(own[task, method]) for task in tasks},
                "lowest": {task: float(own[task, method].min()) for task in tasks},
                "worst_regret": max(regrets.values()),
                "mean_regret": float(np.mean(list(regrets.values()))),
            }
        )
    return rows


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")


def all_scores(runs: list[Run], out: Path, jobs: int, epochs: int, choosing: int) -> Iterator[tuple[Run, float]]:
    """Yield each run with its score: those that are kept in a folder, then those that are trained, and kept."""
    kept = out / f"scores-{epochs}-{choosing}.json"
    known = {Run(*key): value for *key, value in json.loads(kept.read_text())} if kept.exists() else {}
    yield from ((run, known[run]) for run in runs if run in known)
    todo = [run for run in runs if run not in known]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {run: pool.submit(score, run, epochs, choosing) for run in todo}
        for done, run in enumerate(todo, 1):
            known[run] = futures[run].result()
            files.write_text(
                files.make_folder(out) / kept.name, json.dumps([[*key, value] for key, value in known.items()])
            )
            logs().print(f"{done}/{len(todo)} {run.task}, {run.method}, seed {run.seed}: {known[run]:.4f}")
            yield run, known[run]


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="From 0 on.")
@click.option("--only", default="", metavar="TASK,...", help="Only these tasks.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Of one thread.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/tasks"), show_default=True)
@click.option("--smallest", is_flag=True, help="One task, one seed and two epochs: for a test.")
@options.json
def main(seeds: int, only: str, jobs: int, out: Path, smallest: bool, json_path: str | None) -> None:
    """Train every method on every task with every seed."""
    from smx.timing.machine import machine

    tasks = [name for name in TASKS if not only or name in only.split(",")]
    epochs, choosing = EPOCHS, CHOOSING
    if smallest:
        tasks, seeds, jobs, epochs, choosing = ["wine"], 1, 1, 2, 1
    runs = [Run(task, method, seed) for seed in range(seeds) for task in tasks for method in METHODS]
    rows = summary(dict(all_scores(runs, out, jobs, epochs, choosing)))
    settings = {
        "hidden": HIDDEN,
        "lr": RATE,
        "batch_size": BATCH,
        "epochs": epochs,
        "choosing": choosing,
        "seeds": seeds,
    }
    people = write_json(json_path, {"settings": settings, "methods": rows, "machine": machine()})
    cells = [
        (
            row["method"],
            *(f"{row['scores'][task]:.4f} ({row['errors'][task]:.4f})" for task in tasks),
            f"{row['worst_regret']:.4f}",
            f"{row['mean_regret']:.4f}",
        )
        for row in rows
    ]
    people.print(table(("method", *(f">{task}" for task in tasks), ">worst regret", ">mean regret"), cells))


if __name__ == "__main__":
    main()
