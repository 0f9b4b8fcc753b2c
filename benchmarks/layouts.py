"""Time forms of a mixed layer in ONNX: the two layouts of `smx export`, its form in place, and forms that lost.

    python benchmarks/layouts.py --json layouts.json

The network is the paper's largest, with neurons distributed as the paper found them (`paper_model.py`). The ratios
refer to the same network with ReLU. Every form is compared with PyTorch before it is timed. Then ONNX Runtime's
profiler says where the time of the layouts goes; it adds a few microseconds to every operator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.runtime.latency.measure import LatencyReport, measure_latency
from smx.runtime.profile.run import profile
from smx.subprocesses import in_subprocess

if TYPE_CHECKING:
    import onnx_ir as ir

    from smx.export.capture import MixedActivation
    from smx.export.emit import Emitter

    Lowering = Callable[[MixedActivation, Emitter], ir.Value]

LAYOUTS = ("sorted", "scatter")
PROFILED = ("relu", *LAYOUTS)
BASELINES = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")


def largest_first(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """The largest group's activation on the whole layer, the others by one Gather and one ScatterElements."""
    parts = mixed.groups
    largest = max(parts, key=lambda name: len(parts[name]))
    h = emit.activation(mixed.functions[largest], mixed.z, part=largest)
    rest = {name: neurons for name, neurons in parts.items() if name != largest}
    neurons = np.concatenate(list(rest.values()))
    f = split_by_group(mixed, emit, emit.gather(mixed, neurons, part=""), list(rest.items()))
    return emit.scatter(mixed, h, neurons, f, part="")


def masks(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """Every activation on the whole layer, chosen by Where."""
    parts = mixed.groups
    first, *others = parts
    h = emit.activation(mixed.functions[first], mixed.z, part=first)
    for name in others:
        mask = np.zeros(len(mixed.choice), bool)
        mask[parts[name]] = True
        f = emit.activation(mixed.functions[name], mixed.z, part=name)
        h = emit.node("Where", [emit.constant(mask, part=name, name="mask"), f, h], part=name)
    return h


def rows(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """Neurons first, so that Gather and ScatterND move whole rows: between two Transposes, group by group."""
    z = emit.node("Transpose", [mixed.z], {"perm": [1, 0]})
    h = z
    for name, neurons in mixed.groups.items():
        gathered = emit.node("Gather", [z, emit.constant(neurons, part=name, name="neurons")], {"axis": 0}, part=name)
        f = emit.activation(mixed.functions[name], gathered, part=name)
        index = emit.constant(neurons.reshape(-1, 1), part=name, name="index")
        h = emit.node("ScatterND", [h, index, f], part=name)
    return emit.node("Transpose", [h], {"perm": [1, 0]})


def inverse_gather(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """Gather all neurons in the order of their groups, Split, activations, Concat, and Gather them back."""
    parts = mixed.groups
    order = np.concatenate(list(parts.values()))
    gathered = emit.node("Gather", [mixed.z, emit.constant(order, part="", name="order")], {"axis": 1})
    h = split_by_group(mixed, emit, gathered, list(parts.items()))
    return emit.node("Gather", [h, emit.constant(np.argsort(order), part="", name="inverse")], {"axis": 1})


def split(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """Sorted neurons: Split, an operator for each activation, Concat."""
    runs = [(mixed.pool[k], np.arange(len(list(run)))) for k, run in groupby(mixed.choice)]
    return split_by_group(mixed, emit, mixed.z, runs)


def gemms(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """Sorted neurons: a Gemm with its activation for each group, Concat."""
    producer = mixed.z.producer()
    assert producer is not None
    x, w, b = producer.inputs
    weight, bias = (value.const_value.numpy() for value in (w, b))  # type: ignore[union-attr]
    values, start = [], 0
    for k, run in groupby(mixed.choice):
        name, size = mixed.pool[k], len(list(run))
        here = slice(start, start + size)
        constants = [
            emit.constant(array[here], part=name, name=what) for array, what in ((weight, "weight"), (bias, "bias"))
        ]
        z = emit.node("Gemm", [x, *constants], {"transB": 1}, part=name)
        values.append(emit.activation(mixed.functions[name], z, part=name))
        start += size
    return emit.node("Concat", values, {"axis": 1}) if len(values) > 1 else values[0]


def in_place_and_masks(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """What has one form on the whole layer, with numbers for each neuron; the others on the whole layer by Where."""
    from smx.hinges import Hinge, hinge_of

    hinges = [hinge_of(mixed.functions[mixed.pool[k]]) for k in mixed.choice]
    h = emit.hinges([hinge or Hinge() for hinge in hinges], mixed.z, trailing=0, part="in_place")
    for name, neurons in mixed.groups.items():
        if hinge_of(mixed.functions[name]) is None:
            mask = np.zeros(len(mixed.choice), bool)
            mask[neurons] = True
            f = emit.activation(mixed.functions[name], mixed.z, part=name)
            h = emit.node("Where", [emit.constant(mask, part=name, name="mask"), f, h], part=name)
    return h


def split_by_group(mixed: MixedActivation, emit: Emitter, z: ir.Value, parts: list[tuple[str, np.ndarray]]) -> ir.Value:
    """Split, apply an activation to each part, Concat."""
    return emit.apart(
        z,
        1,
        [len(neurons) for _, neurons in parts],
        [name for name, _ in parts],
        lambda i, piece: emit.activation(mixed.functions[parts[i][0]], piece, part=parts[i][0]),
    )


def in_place(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    """What `sorted` does with a layer whose order is fixed: most neurons in place, one ScatterElements for the rest."""
    from smx.export.passes import LowerInPlace

    return LowerInPlace().lower(mixed, emit)


class Form(NamedTuple):
    """A form of a mixed layer: its lowering, and whether groups are merged and neurons are sorted before."""

    lower: Lowering
    merged: bool = False
    sorted: bool = False


FORMS = {
    "in place": Form(in_place, merged=True),
    "in place, with masks for each activation": Form(masks),
    "in place, with masks for what has another form": Form(in_place_and_masks, merged=True),
    "scatter: the largest group in place, one ScatterElements": Form(largest_first),
    "scatter: the same, groups merged": Form(largest_first, merged=True),
    "neurons first: Transpose, ScatterND by rows": Form(rows),
    "Gather by group, and Gather back": Form(inverse_gather),
    "sorted: an operator for each activation": Form(split, sorted=True),
    "sorted: the same, groups merged": Form(split, merged=True, sorted=True),
    "sorted: a Gemm for each activation": Form(gemms, sorted=True),
    "sorted: a Gemm for each group, merged": Form(gemms, merged=True, sorted=True),
}


def export(folder: Path, smallest: bool) -> dict[str, Path]:
    """Write the baselines, the layouts, and every other form; return the files by name."""
    import copy

    import onnx
    import onnx_ir as ir
    import torch
    from paper_model import SMALLEST, paper_model

    import smx
    from smx.activations import get
    from smx.export import export_onnx
    from smx.export.capture import attach, capture, expressions_of, simplify
    from smx.export.compiler import known_shapes, tidy
    from smx.export.emit import emitters
    from smx.export.passes import MergeGroups, NameByModule
    from smx.models import Fixed, mlp
    from smx.paper import LARGEST
    from smx.runtime.session import Session

    sizes = SMALLEST if smallest else LARGEST
    net, example = paper_model(sizes).build(), torch.rand(16, sizes[0])
    with torch.no_grad():
        expected = net(example).numpy()
    files = {}
    for layout in LAYOUTS:
        files[layout] = folder / f"{layout}.onnx"
        export_onnx(net, files[layout], example_input=example, layout=layout)
    for name in BASELINES[:1] if smallest else BASELINES:
        files[name] = folder / f"{name}.onnx"
        function = get(name).function
        export_onnx(mlp(sizes, lambda i, f=function: Fixed(f)), files[name], example_input=example)  # type: ignore[misc]
    captured = {}
    for is_sorted, module in ((False, net), (True, smx.sort(copy.deepcopy(net), example_input=example))):
        captured[is_sorted] = capture(module, (example,), 18)
        attach(captured[is_sorted], expressions_of(module))
        simplify(captured[is_sorted])
    for i, (name, form) in enumerate(FORMS.items()):
        model = captured[form.sorted].clone()
        ir.passes.Sequential(NameByModule(), *known_shapes(), *[MergeGroups()] * form.merged)(model)
        for node, mixed, emit in emitters(model):
            emit.replace(node, form.lower(mixed, emit))
        ir.passes.Sequential(*tidy())(model)
        files[name] = folder / f"form{i}.onnx"
        onnx.save(ir.to_proto(model), files[name])
        np.testing.assert_allclose(Session(files[name]).run(example.numpy()), expected, atol=1e-5)
    return files


@click.command()
@click.option(
    "--batch-sizes", type=options.WIDTHS, default=options.USUAL_BATCH_SIZES, show_default=True, help="Examples a run."
)
@click.option("--rounds", type=click.IntRange(min=1), default=40, show_default=True, metavar="N")
@click.option("--smallest", is_flag=True, help="Time a small network once, to see that everything runs.")
@options.json
def main(batch_sizes: tuple[int, ...], rounds: int, smallest: bool, json_path: str | None) -> None:
    """Time every form, on one thread."""
    if smallest:
        batch_sizes, rounds = (2,), 1
    with tempfile.TemporaryDirectory() as folder:
        # The process that measures never loads torch, whose threads would disturb it.
        files = in_subprocess(export, Path(folder), smallest)
        logs().print(f"measuring {len(files)} candidates ...")
        report = measure_latency(files, baseline="relu", batch_sizes=batch_sizes, rounds=rounds, memory=False)
        profiles = {name: {size: operators(files[name], size) for size in batch_sizes} for name in PROFILED}
    show(report, json_path)
    show_profiles(profiles, json_path)
    forms = {name: form.lower.__doc__ for name, form in FORMS.items()}
    write_json(json_path, {"forms": forms, **report.to_dict(), "profiles": profiles})


def operators(path: Path, batch_size: int) -> dict[str, dict[str, float]]:
    """Return for each operator how often it runs, and its microseconds, in one run of the model on one thread."""
    found: dict[str, dict[str, float]] = {}
    for row in profile(path, batch_size).rows:
        entry = found.setdefault(row.operator, {"count": 0, "microseconds": 0.0})
        entry["count"] += row.count
        entry["microseconds"] += row.microseconds
    return found


def show_profiles(profiles: dict[str, dict[int, dict[str, dict[str, float]]]], json_path: str | None) -> None:
    """Print where time goes."""
    for name, by_size in profiles.items():
        table = Table(title=f"{name}: microseconds a run, as profiled")
        table.add_column("operator")
        table.add_column("count", justify="right")
        for size in by_size:
            table.add_column(f"batch {size}", justify="right")
        first = next(iter(by_size.values()))
        for operator in sorted(first, key=lambda operator: -first[operator]["microseconds"]):
            times = (f"{by_size[size][operator]['microseconds']:,.1f}" for size in by_size)
            table.add_row(operator, f"{first[operator]['count']:g}", *times)
        console(json_path).print(table)


def show(report: LatencyReport, json_path: str | None) -> None:
    """Print the ratios."""
    sizes = list(dict.fromkeys(row.batch_size for row in report.results))
    table = Table(title="ratio to ReLU, one thread")
    table.add_column("form")
    for size in sizes:
        table.add_column(f"batch {size}", justify="right")
    for name in dict.fromkeys(row.name for row in report.results):
        ratios = {row.batch_size: f"{row.ratio:.2f}" for row in report.results if row.name == name}
        table.add_row(name, *(ratios[size] for size in sizes))
    console(json_path).print(table)


if __name__ == "__main__":
    main()
