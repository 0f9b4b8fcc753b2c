"""Take other people's networks all the way: select, train, commit, sort, export in both layouts, run in ONNX Runtime.

    python benchmarks/models.py --json models.json

Each architecture of `zoo.py` has random weights and a process of its own, which gets so many seconds. What is done is
kept under `--out`, and not done again. The command fails if anything is wrong: an axis that `ground_truth.py`
contradicts, an answer that differs, a logit without a gradient, an error that is not one of smx. A refusal is no fault.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.errors import SmxError, one_line

BATCHES = (2, 3)
"""In ONNX Runtime, and for the axes; 4 examples are trained on."""
STEPS = 3
TOLERANCE = 1e-3
"""How far answers may differ, as a part of the largest one."""
REFUSING = ("select", "export")
"""The stages at which a refusal by smx is no fault."""
PACKAGES = ("timm", "transformers", "torch", "onnxruntime")
BOTH = "both"
"""What is said of a file that takes two sizes of images, or lengths."""
SMALLEST = ("test_convnext", "levit_128s", "BERT", "GPT-2")


def examine(package: str, name: str, seed: int, folder: Path) -> None:
    """Take one architecture all the way, and write what happened to FOLDER/NAME.json."""
    import torch

    torch.set_num_threads(1)
    row: dict[str, Any] = {"package": package, "name": name, "stage": "build"}
    started = time.process_time()
    with offline() as asked:
        try:
            stages(row, package, name, seed, folder)
        except Exception as error:  # whatever other people's networks may raise
            row["error"] = said(error, folder)
            row["refused"] = isinstance(error, SmxError | ValueError) and row["stage"].split()[0] in REFUSING
    row |= {"asked_network": asked, "seconds": round(time.process_time() - started, 1)}
    write_json(str(folder / f"{name}.json"), row)


def stages(row: dict[str, Any], package: str, name: str, seed: int, folder: Path) -> None:
    """Fill a row, stage by stage."""
    import torch
    from ground_truth import verdicts
    from zoo import CASES

    import smx
    from smx import sorting

    case = CASES[package][name]
    torch.manual_seed(seed)
    net = case.build()
    x = case.example(BATCHES[0], case.size)

    row["stage"] = "select"
    how: dict[str, Any] = {"example_input": x, "include": case.include}
    plan = smx.plan(net, **how)
    row["activations"] = len(plan)
    row["left"] = dict(Counter(line.left.partition(" in (")[0] for line in plan if line.left))
    row["neurons"] = sum(line.neurons or 0 for line in plan.selected)
    row["selected"] = len(plan.selected)
    net = smx.select(net, **how)

    row["stage"] = "axes"
    inputs = [case.example(batch, case.size) for batch in BATCHES]
    inputs += [case.example(BATCHES[0], case.other)] if case.other else []
    row["axes"] = verdicts(net, inputs)

    row["stage"] = "train"
    row["losses"], row["no_gradient"] = train(net, case.example(4, case.size, seed=1), seed)

    row["stage"] = "commit"
    net = smx.commit(net).eval()

    row["stage"] = "sort"
    expected = [answers(net, given) for given in inputs]
    row["unsorted"] = sorting.refusals(net, example_input=x)
    row["sorted_differs"] = difference([answers(smx.sort(net, example_input=x), x)], expected[:1])

    row["differs"] = {}
    for layout in ("scatter", "sorted"):
        row["stage"] = f"export {layout}"
        path = folder / f"{name}-{layout}.onnx"
        try:
            report, row["sizes"] = exported(net, path, case.dynamic, example_input=x, layout=layout)
            row[f"{layout}_refusals"] = len({scope for step in report.passes for scope in step.refusals})
            row["stage"] = f"run {layout}"
            given = inputs if row["sizes"] == BOTH else inputs[: len(BATCHES)]
            row["differs"][layout] = difference(in_onnxruntime(path, given), expected)
        finally:
            path.unlink(missing_ok=True)
    row["stage"] = "done"


def exported(net: Any, path: Path, dynamic: dict[int, str], **how: Any) -> tuple[Any, str]:
    """Export, for any size if the network takes another; return the report, and what became of the other size.

    A network that computes some of its shapes in Python takes another size in PyTorch, and not in a file.
    """
    from smx.export import export_onnx

    if not dynamic:
        return export_onnx(net, path, **how), "takes one"
    try:
        return export_onnx(net, path, input_names=["input"], dynamic={"input": dynamic}, **how), BOTH
    except SmxError as error:
        return export_onnx(net, path, **how), f"one in a file: {said(error, path.parent)}"


def said(error: Exception, folder: Path) -> str:
    """Return the line of an error, without the folder in which this machine keeps the files."""
    return one_line(error).replace(f"{folder}/", "")


def train(net: Any, x: Any, seed: int) -> tuple[list[float], list[str]]:
    """Train three steps towards random numbers; return the losses, and the Selectives whose logits got no gradient."""
    import torch

    from smx.layers import Selective

    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    without = {path for path, part in net.named_modules() if isinstance(part, Selective)}
    losses = []
    random = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        outputs = tensors(net(x))
        loss = torch.stack([(y - torch.randn(y.shape, generator=random)).square().mean() for y in outputs]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for path in list(without):
            gradient = net.get_submodule(path).logits.grad
            if gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()):
                without.discard(path)
        optimizer.step()
        losses.append(loss.item())
    return losses, sorted(without)


def tensors(outputs: Any) -> list[Any]:
    """Return what a network returns as a list of tensors."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def answers(net: Any, x: Any) -> list[Any]:
    """Return the outputs as arrays."""
    import torch

    with torch.no_grad():
        return [y.numpy() for y in tensors(net.eval()(x))]


def in_onnxruntime(path: Path, inputs: list[Any]) -> list[list[Any]]:
    """Return the outputs of a file for each input."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    return [session.run(None, {name: x.numpy()}) for x in inputs]


def difference(found: list[list[Any]], expected: list[list[Any]]) -> float:
    """Return the largest difference of two lists of outputs, as a part of the largest expected entry."""
    import numpy as np

    worst = 0.0
    for ys, wants in zip(found, expected, strict=False):
        for y, want in zip(ys, wants, strict=True):
            assert y.shape == want.shape, f"{y.shape} instead of {want.shape}"
            worst = max(worst, float(np.abs(y - want).max() / max(np.abs(want).max(), 1e-6)))
    return worst


@contextmanager
def offline() -> Iterator[list[str]]:
    """Refuse connections to other machines; yields the list of those that were asked for."""
    asked: list[str] = []
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            asked.append(str(address))
            raise OSError("no network here")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[assignment, method-assign]
    try:
        yield asked
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


def fault(row: dict[str, Any]) -> str:
    """Return what is wrong with an architecture; empty where nothing is. A refusal is no fault."""
    if row["asked_network"]:
        return f"it asks the network for {row['asked_network'][0]}"
    if wrong := {path: axis for path, axis in row.get("axes", {}).items() if axis not in ("agrees", "open")}:
        path = next(iter(wrong))
        return f"{path}: {wrong[path]}"
    if row.get("no_gradient"):
        return f"no gradient reaches {', '.join(row['no_gradient'])}"
    worst = max([row.get("sorted_differs", 0.0), *row.get("differs", {}).values()])
    if not worst < TOLERANCE:
        return f"answers differ by {worst:.2g}"
    return row["error"] if "error" in row and not row["refused"] else ""


def in_process(package: str, name: str, seed: int, folder: Path, limit: float) -> dict[str, Any]:
    """Examine an architecture in a process of its own; return the row."""
    path = folder / f"{name}.json"
    process = CONTEXT.Process(target=examine, args=(package, name, seed, folder))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        error = f"not done after {limit:g} seconds"
    elif path.exists():
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    else:
        error = f"the process ended with {process.exitcode}"
    row = {"package": package, "name": name, "stage": "process", "error": error, "refused": False, "asked_network": []}
    write_json(str(path), row)
    return row


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["zoo", "onnxruntime", "smx.export", "torch._dynamo", "torch.onnx._internal.exporter._core"]
)


@click.command()
@click.option("--names", metavar="NAME,...", help="Only these architectures.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--limit", type=float, default=300, show_default=True, metavar="SECONDS", help="For an architecture.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/models"), show_default=True)
@click.option("--smallest", is_flag=True, help="Four architectures, to see that everything runs.")
@options.json
def main(names: str | None, seed: int, limit: float, out: Path, smallest: bool, json_path: str | None) -> None:
    """Examine every architecture."""
    from zoo import CASES

    os.environ["OMP_NUM_THREADS"] = "1"
    wanted = SMALLEST if smallest else names.split(",") if names else None
    key: dict[str, Any] = {"seed": seed, "versions": {package: version(package) for package in PACKAGES}}
    folder = out / "-".join([str(seed), *key["versions"].values()])
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for package, cases in CASES.items():
        for name in cases:
            if wanted is not None and name not in wanted:
                continue
            path = folder / f"{name}.json"
            row = json.loads(path.read_text()) if path.exists() else in_process(package, name, seed, folder, limit)
            rows.append(row)
            logs().print(f"{name}: {fault(row) or row.get('error') or 'done'}  [{row.get('seconds')} s]", markup=False)
    table = Table(title="faults")
    table.add_column("architecture")
    table.add_column("fault")
    faults = {row["name"]: fault(row) for row in rows if fault(row)}
    for name, what in faults.items():
        table.add_row(name, what)
    console(json_path).print(table)
    write_json(json_path, {**key, "architectures": rows})
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
