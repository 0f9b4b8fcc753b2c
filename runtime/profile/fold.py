"""ONNX Runtime's profile, folded by layer and operator."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from smx.errors import InputError
from smx.runtime.graph import NodeInfo
from smx.runtime.profile.origins import Origin, origins
from smx.runtime.providers import PROVIDERS

RUN, KERNEL = "model_run", "_kernel_time"
"""How the profile calls a run of the model, and how it ends the names of nodes."""

SHORT_NAMES = {full[0]: short for short, full in PROVIDERS.items()}


class FallenBack(NamedTuple):
    """A node that another provider runs than was asked for."""

    node: str
    operator: str
    provider: str


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """The nodes of one layer with one operator, on one provider.

    Attributes:
        layer: the mixed layer, or else the module path in the name of the node in the file; "" where there is none.
        operator: as executed: `FusedGemm` where a Gemm was fused with its activation.
        provider: a short name of `smx.runtime.providers.PROVIDERS`, or ONNX Runtime's where that has none.
        count: how many nodes.
        microseconds: of all of them in one run of the model; see `fold`.
        share: of the time of all nodes.
        fused: for each node that stands for others of the file, their names with " + " between.
    """

    layer: str
    operator: str
    provider: str
    count: int
    microseconds: float
    share: float
    fused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of a model goes.

    Attributes:
        provider: that was asked for.
        batch_size: examples a run.
        runs: how many were counted.
        microseconds: of one run of the model under the profiler, which adds 2 to 3 microseconds to the time of every
            node, and more between them: a small model is really much faster.
        rows: layer after layer, in the order of the file.
        nodes: how many the file has.
        gone: names of those that don't run as they stand in the file: they are fused, folded away or replaced.
        fallen_back: the executed nodes that another provider runs.
    """

    provider: str
    batch_size: int
    runs: int
    microseconds: float
    rows: tuple[ProfileRow, ...]
    nodes: int
    gone: tuple[str, ...]
    fallen_back: tuple[FallenBack, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "fallen_back": [node._asdict() for node in self.fallen_back]}


class _Executed(NamedTuple):
    """A node that ran; its microseconds are those in one run of the model."""

    name: str
    operator: str
    provider: str
    microseconds: float


def fold(
    events: Iterable[Mapping[str, Any]],
    file: Sequence[NodeInfo],
    optimised: Sequence[NodeInfo],
    *,
    mixed: Sequence[str] = (),
    provider: str = "cpu",
    batch_size: int = 1,
    skip: int = 0,
) -> Profile:
    """Fold the events of ONNX Runtime's profile by layer and operator.

    The time of a node is the mean of the middle half of its runs: the profiler counts whole microseconds, which makes
    a median too coarse, and one run in which the machine did something else would shift the mean of all. Executed nodes
    are found in the optimised graph by name and operator, those without a name in the order they run. What runs inside
    an If, Loop or Scan counts as that.

    Args:
        events: as the profile's JSON has them.
        file: the nodes of the file.
        optimised: the nodes of the graph that ran; what is not in it is traced to the file by name alone.
        mixed: the module paths of the mixed layers.
        provider, batch_size: what was asked for.
        skip: how many runs, the first ones, don't count.

    Raises:
        InputError: the events hold no run after those.
    """
    events = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    runs = [event for event in events if event["name"] == RUN][skip:]
    if not runs:
        raise InputError(f"the profile holds no run of the model after the first {skip}")
    executed = _executed([event for event in events if event["ts"] >= runs[0]["ts"]], len(runs))
    found = _find(executed, optimised)
    traced = origins(file, found)
    wanted = PROVIDERS[provider]
    return Profile(
        provider=provider,
        batch_size=batch_size,
        runs=len(runs),
        microseconds=_mean_of_middle([event["dur"] for event in runs]),
        rows=_rows(executed, traced, file, mixed),
        nodes=len(file),
        gone=_gone(found, traced, file),
        fallen_back=tuple(
            FallenBack(node.name, node.operator, _short(node.provider))
            for node in executed
            if node.provider not in wanted
        ),
    )


def layer_of(name: str, mixed: Sequence[str]) -> str:
    """Return the layer of a node `module/path/Operator`: the mixed layer it is a part of, or else its module path."""
    scope = name.rpartition("/")[0].replace("/", ".")
    return max((layer for layer in mixed if layer and f"{scope}.".startswith(f"{layer}.")), key=len, default=scope)


def _executed(events: Iterable[Mapping[str, Any]], runs: int) -> list[_Executed]:
    """Return the nodes in the order they run first, from events in order of time."""
    durations: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    ends: dict[Any, int] = {}  # of the last node, by thread
    for event in events:
        thread, name = event.get("tid"), event["name"].removesuffix(KERNEL)
        if event.get("cat") != "Node" or name == event["name"] or event["ts"] < ends.get(thread, 0):
            continue
        ends[thread] = event["ts"] + event["dur"]
        args = event["args"]
        durations[name, args["op_name"], args["provider"], args.get("node_index", "")].append(event["dur"])
    return [
        _Executed(
            name=name,
            operator=operator,
            provider=provider,
            microseconds=_mean_of_middle(times) * len(times) / runs,
        )
        for (name, operator, provider, _), times in durations.items()
    ]


def _mean_of_middle(times: Sequence[int]) -> float:
    cut = len(times) // 4
    middle = sorted(times)[cut : len(times) - cut]
    return sum(middle) / len(middle)


def _find(executed: Iterable[_Executed], optimised: Iterable[NodeInfo]) -> list[NodeInfo]:
    """Return for each executed node that of the optimised graph, or one of which only the name is known."""
    waiting: dict[tuple[str, str], deque[NodeInfo]] = defaultdict(deque)
    for node in optimised:
        waiting[node.name, node.operator].append(node)
    found = []
    for ran in executed:
        # The profile calls a node without a name by its operator and a number.
        there = waiting[ran.name, ran.operator] or waiting["", ran.operator]
        found.append(there.popleft() if there else NodeInfo(name=ran.name, operator=ran.operator))
    return found


def _rows(
    executed: Sequence[_Executed], traced: Sequence[Origin], file: Sequence[NodeInfo], mixed: Sequence[str]
) -> tuple[ProfileRow, ...]:
    total = sum(node.microseconds for node in executed) or 1.0
    layers = ["" if origin.home is None else layer_of(file[origin.home].name, mixed) for origin in traced]
    homes = [-1 if origin.home is None else origin.home for origin in traced]
    places: dict[str, int] = {}
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i in sorted(range(len(executed)), key=homes.__getitem__):
        places.setdefault(layers[i], len(places))
        groups[layers[i], executed[i].operator, _short(executed[i].provider)].append(i)
    rows = []
    for (layer, operator, provider), members in groups.items():
        microseconds = sum(executed[i].microseconds for i in members)
        rows.append(
            ProfileRow(
                layer=layer,
                operator=operator,
                provider=provider,
                count=len(members),
                microseconds=microseconds,
                share=microseconds / total,
                fused=tuple(filter(None, (_fused(operator, traced[i], file) for i in members))),
            )
        )
    return tuple(sorted(rows, key=lambda row: places[row.layer]))


def _fused(operator: str, origin: Origin, file: Sequence[NodeInfo]) -> str:
    """Return the names of what a node stands for, or "" where that is itself, or unknown."""
    covered = [file[i] for i in origin.covers]
    return "" if [node.operator for node in covered] in ([], [operator]) else " + ".join(map(_label, covered))


def _gone(found: Sequence[NodeInfo], traced: Sequence[Origin], file: Sequence[NodeInfo]) -> tuple[str, ...]:
    there = set()
    for node, origin in zip(found, traced, strict=True):
        same = [i for i in origin.covers if file[i].operator == node.operator]
        namesakes = [i for i in same if file[i].name == node.name]
        there |= set((namesakes or same)[:1])
    return tuple(_label(node) for i, node in enumerate(file) if i not in there)


def _label(node: NodeInfo) -> str:
    """Return the name of a node, or what can be said of one without."""
    return node.name or f"{node.operator} ({next(filter(None, node.outputs), '')})"


def _short(provider: str) -> str:
    return SHORT_NAMES.get(provider, provider)
