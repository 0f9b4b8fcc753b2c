"""Write the tables of README.md and docs/ from the JSON under docs/results: `python benchmarks/tables.py`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. tests/test_readme.py asserts that they are up to date.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TEXTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("results", "layouts", "training", "serving", "mutation", "models", "fine-tuning", "reliability")
    ),
    "runtime/README.md",
)
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: bool = True) -> str:
    """Return a table; its columns but the first are numbers, or text."""
    head = list(head)
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def result(name: str) -> Any:
    """Read a result."""
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def cells(rows: Iterable[Any], *, interval: bool = False) -> dict[tuple[str, int], str]:
    """Return the ratios to the baseline, with their confidence intervals or without, by name and batch size."""
    return {
        (row["name"], row["batch_size"]): f"{row['ratio']:.2f}"
        + (f" ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})" if interval else "")
        for row in rows
    }


def by_batch_size(found: dict[tuple[str, int], str], names: Iterable[str], code: bool = True) -> str:
    """Return a table of cells, one column a batch size."""
    sizes = list(dict.fromkeys(size for _, size in found))
    rows = [[f"`{name}`" if code else name, *(found[name, size] for size in sizes)] for name in names]
    return markdown(["", f"batch {sizes[0]}", *map(str, sizes[1:])], rows)


def mnist_bench() -> str:
    """The ratios to ReLU with their confidence intervals, on MNIST."""
    report = result("mnist-bench")
    found = cells((*report["results"], *report["control"]), interval=True)
    return by_batch_size(found, [*CANDIDATES, f"{report['baseline']} again"])


def paper_bench() -> str:
    """The ratios to ReLU for the paper's largest network."""
    return by_batch_size(cells(result("layouts")["results"]), CANDIDATES)


RULES = {
    "`recommended`": ("recommended", "recommended_fastest"),
    "from ReLU, one choice a layer": ("from relu per layer", "from_relu_per_layer_fastest"),
    "`matched`, one choice a layer": ("matched per layer", "matched_per_layer_fastest"),
    "`matched`, one group a layer": ("matched one group", "matched_one_group_fastest"),
    "`matched`": ("matched", "matched"),
    "the paper's rule": ("smartmixed", "smartmixed"),
    **{f"`{name}`": (name, name) for name in ("relu", "leaky_relu", "elu", "selu", "tanh", "sigmoid")},
}
"""What README's first table shows, with its method and its file in `rules.json`."""


def rules(*, whole: bool, name: str = "rules") -> str:
    """Accuracy and latency of both rules of choosing beside fixed activations; `whole` has all batch sizes."""
    report = result(name)
    latency, methods = cells(report["latency"]["results"]), {row["method"]: row for row in report["methods"]}
    sizes = list(dict.fromkeys(size for _, size in latency)) if whole else [1, 128]
    rows = [
        [
            label,
            f"{100 * methods[method]['mean']:.2f} ({100 * methods[method]['deviation']:.2f})",
            *(latency[file, size] for size in sizes),
        ]
        for label, (method, file) in RULES.items()
        if method in methods and (whole or " " not in method)
    ]
    return markdown(["", "accuracy, %", f"batch {sizes[0]}", *map(str, sizes[1:])], rows)


def choosing() -> str:
    """Where each method stands beside the best fixed activation, over networks that nothing was tuned on; in points."""
    rows = [
        [
            f"`{row['method']}`" if row["method"] in CANDIDATES else row["method"],
            str(row["networks"]),
            f"{100 * row['accuracy']:.2f}",
            *(
                f"{100 * row[name]['mean']:+.2f} ({100 * row[name]['half_width']:.2f})"
                for name in ("to_validated", "to_best")
            ),
            "" if row["rank"] is None else f"{row['rank']:.2f}",
        ]
        for row in result("choosing")["methods"]
        if row["architectures"] > 2
    ]
    heads = ["", "networks", "accuracy, %", "to the one picked by validation", "to the best", "mean rank of 7"]
    return markdown(heads, rows)


def tasks() -> str:
    """The mean score of each method on each small task, and its regrets."""
    methods = result("tasks")["methods"]
    names = list(methods[0]["scores"])
    rows = [
        [
            f"`{row['method']}`" if row["method"] in CANDIDATES else row["method"],
            *(f"{row['scores'][name]:.3f}" for name in names),
            f"{row['worst_regret']:.3f}",
            f"{row['mean_regret']:.3f}",
        ]
        for row in methods
    ]
    return markdown(["", *names, "worst regret", "mean regret"], rows)


def resolution() -> str:
    """How often the intervals of a bench are right."""
    report = result("resolution")
    rows = [
        [
            f"batch {entry['batch_size']}",
            f"{entry['copy_contains_1']} of {report['repeats']}",
            f"{entry['slower']['ratio'] - 1:.1%}",
            f"{entry['slower_told_apart']} of {report['repeats']}",
        ]
        for entry in report["batch_sizes"]
    ]
    return markdown(["", "interval of a copy contains 1", "a slower network, by", "is told apart"], rows)


def tune_check() -> str:
    """The winner of each search, and an independent measurement of it."""
    rows = [
        [
            f"run {row['seed'] + 1}: {row['winner']}",
            f"{row['ratio']:.2f}",
            f"{row['check_ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})",
        ]
        for row in result("tune-check")["runs"]
    ]
    return markdown(["", "of the default's time", "measured again"], rows)


CANDIDATES = ("sorted", "scatter", "relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")


def forms() -> str:
    """What `smx export` writes, and the forms that were tried."""
    report = result("layouts")
    return by_batch_size(cells(report["results"]), ["sorted", "scatter", *report["forms"]], code=False)


def fastest() -> str:
    """The time of `fastest` beside ReLU's, `sorted`'s and `scatter`'s, for networks trained on MNIST."""
    report = result("fastest-mnist")
    sizes = [str(size) for size in report["batch_sizes"]]
    rows = [
        [
            f"{Path(row['network']).stem.replace('-', ' ')}, to {other}",
            *(f"{row[other][size][0]:.2f} ({row[other][size][1]:.2f}-{row[other][size][2]:.2f})" for size in sizes),
        ]
        for row in report["networks"]
        for other in ("relu", "scatter")
    ]
    return markdown(["", f"batch {sizes[0]}", *sizes[1:]], rows)


def prices_check() -> str:
    """How far predictions by prices are from what is measured."""
    report = result("prices-check")
    return markdown(["", "median error"], [[name, f"{error:.1%}"] for name, error in report["median_error"].items()])


def profile() -> str:
    """Microseconds of each operator in the profiled runs."""
    profiles = result("layouts")["profiles"]
    sizes, kinds = ("1", "16", "128"), ("relu", "scatter", "sorted")
    operators = dict.fromkeys(name for kind in kinds for name in profiles[kind]["1"])

    def cell(kind: str, size: str, operator: str) -> str:
        entry = profiles[kind][size].get(operator)
        return f"{entry['microseconds']:,.0f} ({entry['count']:g})" if entry else ""

    head = ["microseconds (how many)", *(f"{kind}, batch {size}" for size in sizes for kind in kinds)]
    return markdown(
        head, [[operator, *(cell(kind, size, operator) for size in sizes for kind in kinds)] for operator in operators]
    )


def mutation() -> str:
    """How many mutants the tests killed, by file."""
    files = [row for row in result("mutation")["files"] if row["mutants"]]
    keys = ("mutants", "killed", "by_timeout")
    rows = [[f"`{row['file']}`", *(row[key] for key in keys)] for row in files]
    rows.append(["all", *(sum(row[key] for row in files) for key in keys)])
    cells = [[name, *map(str, counts), f"{counts[1] / counts[0]:.1%}"] for name, *counts in rows]
    return markdown(["file", "mutants", "killed", "of them by time-out", "share"], cells)


def serving() -> str:
    """Throughput and latency of the servers at each number of connections."""
    rows = [
        [
            f"`{row['server']}`" if row["server"].startswith("smx") else row["server"],
            str(row["connections"]),
            f"{row['requests_a_second']:,.0f} ({row['lowest']:,.0f}-{row['highest']:,.0f})",
            *(f"{row[key]:.1f}" for key in ("p50_ms", "p99_ms")),
            str(row["failed"]),
        ]
        for row in result("serving-load")["servers"]
    ]
    return markdown(["", "connections", "requests a second (lowest, highest)", "p50, ms", "p99, ms", "failed"], rows)


def opsets() -> str:
    """The ratios to the first opset."""
    networks = result("opsets")["networks"]
    names = list(dict.fromkeys(row["name"] for report in networks.values() for row in report["results"]))
    rows = []
    for network, report in networks.items():
        found = cells(report["results"])
        sizes = dict.fromkeys(size for _, size in found)
        rows += [[f"{network}, batch {size}", *(found.get((name, size), "") for name in names)] for size in sizes]
    return markdown(["", *names], rows)


def large_export() -> str:
    """Time and memory of exports."""
    results = result("large-export")["results"]
    plain = results["plain"]
    return markdown(
        ["", "seconds, of plain", "peak memory, of plain"],
        [
            [kind, f"{row['seconds'] / plain['seconds']:.2f}", f"{row['peak_mb'] / plain['peak_mb']:.2f}"]
            for kind, row in results.items()
        ],
    )


def precision() -> str:
    """What lower precision changes on the MNIST test set."""
    full = result("mnist-export-sorted")
    rows = []
    for name in ("float16", "int8"):
        report = result(f"mnist-export-{name}")
        share = f"{report['changed']} of {report['predictions']:,}"
        rows.append([f"`--precision {name}`", share, f"{report['bytes'] / full['bytes']:.2f}"])
    return markdown(["", "test predictions that change", "size, of float32"], rows)


def train_step(name: str = "train-step") -> str:
    """Time of a training step with its confidence interval, and peak memory, as multiples of ReLU's."""
    report = result(name)
    taken, times = cells(report["memory"]), cells((*report["results"], *report["control"]), interval=True)
    sizes = list(dict.fromkeys(size for _, size in times))
    names = dict.fromkeys(name for name, _ in times)
    head = ["", *(f"time, batch {size}" for size in sizes), *(f"peak memory, batch {size}" for size in sizes)]
    return markdown(
        head, [[name, *(found.get((name, size), "") for found in (times, taken) for size in sizes)] for name in names]
    )


def commit_rule() -> str:
    """What `--phase1-epochs auto` reaches beside the fixed schedule: for each seed, and on average."""
    report = result("commit-rule")
    rows = []
    for row in report["runs"]:
        epochs, reached = f"{row['epochs']} ({row['phase1_epochs']})", str(row["reached_after"] or "never")
        accuracies = (f"{row[f'{split}_accuracy']:.4f}" for split in ("validation", "test"))
        rows.append([f"{row['schedule']}, seed {row['seed']}", epochs, reached, *accuracies])
    for schedule, means in report["summary"].items():
        accuracies = (f"{means[f'{split}_accuracy']:.4f}" for split in ("validation", "test"))
        rows.append([f"{schedule}, mean", f"{means['epochs']:.1f}", "", *accuracies])
    head = ["", "epochs in all (of phase 1)", "as good as fixed after", "validation accuracy", "test accuracy"]
    return markdown(head, rows)


def install_size() -> str:
    """What each way to serve installs."""
    found = result("install-size")["results"].items()
    return markdown(
        ["", "MB", "packages"],
        [[f"`{name}`", *(str(row[key]) for key in ("megabytes", "packages"))] for name, row in found],
    )


def fine_tuning() -> str:
    """What becomes of a trained network in which neurons choose anew, by the rule."""
    rows = []
    for row in result("fine-tuning")["summary"]:
        start, lowest, end = (f"{row[name]:.4f}" for name in ("start", "lowest", "end"))
        sampled, moved = row["sampled"], row["moved"]
        noisy = "" if sampled is None else f"{sampled:.4f}"
        share = "" if moved is None else f"{100 * moved:.0f} %"
        rows.append([f"{row['task']}: {row['rule']}", start, noisy, lowest, f"{row['drop']:.1f}", share, end])
    return markdown(["", "start", "noisy start", "lowest", "drop", "moved", "end"], rows)


def models(package: str) -> str:
    """Other people's networks: what was selected, left and sorted, and how far ONNX Runtime is from PyTorch."""
    rows = []
    for row in result("models")["architectures"]:
        if row["package"] == package and "error" not in row:
            left = "; ".join(f"{count}: {why.partition(':')[0]}" for why, count in row["left"].items())
            reasons = "; ".join(sorted(set(row["unsorted"].values())))
            in_order = row["selected"] - len(row["unsorted"])
            rows.append(
                [
                    row["name"],
                    f"{row['selected']} ({row['neurons']})",
                    left,
                    f"{in_order}" + (f"; others: {reasons}" if reasons else ""),
                    row["sizes"].partition(":")[0],
                    f"{max(row['differs'].values()):.0e}",
                ]
            )
    return markdown(
        ["", "selected (neurons)", "left", "of the selected, sorted", "sizes", "difference"], rows, numbers=False
    )


def models_refused() -> str:
    """The networks that smx refuses, and at which stage."""
    found = [row for row in result("models")["architectures"] if "error" in row]
    rows = [[row["name"], row["stage"], row["error"].replace("](", "] (")] for row in found]  # no link of Markdown
    return markdown(["", "at", "because"], rows, numbers=False)


def models_axes() -> str:
    """What an independent rule says of the axes of neurons."""
    verdicts = [verdict for row in result("models")["architectures"] for verdict in row.get("axes", {}).values()]
    agree, silent = verdicts.count("agrees"), verdicts.count("open")
    counts = (len(verdicts), agree, silent, len(verdicts) - agree - silent)
    return markdown(["layers", "agree", "the rules do not tell", "contradicted"], [map(str, counts)])


def hostile() -> str:
    """How the cases of each attack ended."""
    attacks: dict[str, list[Any]] = {}
    for row in result("hostile")["attacks"]:
        attacks.setdefault(row["attack"], []).append(row)
    rows = []
    for attack, found in attacks.items():
        outcomes = Counter[str]()
        for row in found:
            outcomes.update(row["outcomes"])
        ended = ", ".join(f"{count:,} {how}" for how, count in outcomes.most_common())
        on = {"kills": "commands", "faults": "machines"}.get(attack, "kinds of file")
        rows.append([attack, f"{len(found)} {on}", f"{outcomes.total():,}", ended, str(outcomes["FAILED"])])
    return markdown(["", "on", "cases", "ended", "failures"], rows, numbers=False)


TABLES: dict[str, Callable[[], str]] = {
    "mnist-bench": mnist_bench,
    "rules": partial(rules, whole=False),
    "rules-whole": partial(rules, whole=True),
    "rules-largest": partial(rules, whole=True, name="rules-largest"),
    "choosing": choosing,
    "tasks": tasks,
    "paper-bench": paper_bench,
    "forms": forms,
    "fastest": fastest,
    "prices-check": prices_check,
    "profile": profile,
    "mutation": mutation,
    "serving": serving,
    "opsets": opsets,
    "large-export": large_export,
    "precision": precision,
    "resolution": resolution,
    "tune-check": tune_check,
    "train-step": train_step,
    "commit-rule": commit_rule,
    "install-size": install_size,
    "fine-tuning": fine_tuning,
    "hostile": hostile,
    "models-timm": partial(models, "timm"),
    "models-transformers": partial(models, "transformers"),
    "models-refused": models_refused,
    "models-axes": models_axes,
}


def filled(text: str) -> str:
    """Return a text with its tables as the results have them."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


if __name__ == "__main__":
    for name in TEXTS:
        path = ROOT / name
        path.write_text(filled(path.read_text()))
