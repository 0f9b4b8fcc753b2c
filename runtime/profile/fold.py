"""Sum the times of ONNX Runtime's profile by layer and operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from smx.errors import InputError
from smx.runtime.graph import NodeInfo
from smx.runtime.profile.layers import OTHER, layers
from smx.runtime.providers import PROVIDERS

RUN, KERNEL = "model_run", "_kernel_time"
"""The profile's name of a run of the model, and the suffix of its names of nodes."""


class FallenBack(NamedTuple):
    """A node that another provider runs than the requested one."""

    node: str
    operator: str
    provider: str


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """The nodes of one layer with one operator, on one provider.

    Attributes:
        layer: the mixed layer, or the module path in the node's name, or `smx.runtime.profile.layers.OTHER`.
        operator: as executed, such as `FusedGemm` for a Gemm with its activation.
        provider: a short name of `smx.runtime.providers.PROVIDERS`, or ONNX Runtime's name of another one.
        count: number of nodes.
        microseconds: of all these nodes in one run of the model; see `fold`.
        share: of the time of all nodes.
    """

    layer: str
    operator: str
    provider: str
    count: int
    microseconds: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The time of a model by layer and operator.

    Attributes:
        provider: the requested one.
        batch_size: examples a run.
        runs: number of counted runs.
        microseconds: of one run of the model under the profiler, which adds 2 to 3 microseconds to the time of every
            node, and more between nodes: a small model is much faster without it.
        rows: layer after layer, in the order in which they run.
        nodes: number of nodes in the file.
        gone: names of the file's nodes that don't run as in the file: fused, folded or replaced.
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
    """Sum the times of ONNX Runtime's profile by layer and operator.

    The time of a node is the mean of the middle half of its runs: the profiler counts whole microseconds, which makes
    a median too coarse, and one disturbed run would shift the mean of all. What runs inside an If, Loop or Scan counts
    as that node.

    Args:
        events: as in the profile's JSON.
        file: the nodes of the file.
        optimised: the nodes of the graph that ran; empty if the provider can't save it.
        mixed: module paths of the mixed layers.
        provider, batch_size: the requested ones.
        skip: number of runs at the beginning that don't count.

    Raises:
        InputError: the events hold no run after those.
    """
    events = sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    runs = [event for event in events if event["name"] == RUN][skip:]
    if not runs:
        raise InputError(f"the profile holds no run of the model after the first {skip}")
    executed = _executed([event for event in events if event["ts"] >= runs[0]["ts"]], len(runs))
    by_name = {(node.name, node.operator): node for node in optimised}
    ran = [by_name.get(node[:2], NodeInfo(name=node.node, operator=node.operator)) for node in executed]
    total = sum(executed.values()) or 1.0
    groups: dict[tuple[str, str, str], list[float]] = {}
    for (node, time), layer in zip(executed.items(), layers(ran, file, mixed), strict=True):
        groups.setdefault((layer, node.operator, node.provider), []).append(time)
    order = {layer: (layer == OTHER, i) for i, (layer, _, _) in reversed(list(enumerate(groups)))}
    return Profile(
        provider=provider,
        batch_size=batch_size,
        runs=len(runs),
        microseconds=_mean_of_middle([event["dur"] for event in runs]),
        rows=tuple(
            ProfileRow(
                layer=layer, operator=operator, provider=_short(full), count=len(times), microseconds=sum(times),
                share=sum(times) / total,
            )
            for (layer, operator, full), times in sorted(groups.items(), key=lambda group: order[group[0][0]])
        ),
        nodes=len(file),
        gone=_gone(optimised or ran, file),
        fallen_back=tuple(
            FallenBack(node.node, node.operator, _short(node.provider))
            for node in executed
            if node.provider not in PROVIDERS[provider]
        ),
    )  # fmt: skip


class _Executed(NamedTuple):
    """A node that ran; `position` tells nodes without names apart."""

    node: str
    operator: str
    provider: str
    position: str


def _executed(events: Iterable[Mapping[str, Any]], runs: int) -> dict[_Executed, float]:
    """Return the microseconds of each node in one run, in the order of their first run; events are in order of time."""
    durations: dict[_Executed, list[int]] = {}
    ends: dict[Any, int] = {}  # of the last node, by thread
    for event in events:
        thread, name = event.get("tid"), event["name"].removesuffix(KERNEL)
        if event.get("cat") != "Node" or name == event["name"] or event["ts"] < ends.get(thread, 0):
            continue
        ends[thread] = event["ts"] + event["dur"]
        args = event["args"]
        node = _Executed(name, args["op_name"], args["provider"], args.get("node_index", ""))
        durations.setdefault(node, []).append(event["dur"])
    return {node: _mean_of_middle(times) * len(times) / runs for node, times in durations.items()}


def _mean_of_middle(times: Sequence[int]) -> float:
    cut = len(times) // 4
    middle = sorted(times)[cut : len(times) - cut]
    return sum(middle) / len(middle)


def _gone(executed: Iterable[NodeInfo], file: Iterable[NodeInfo]) -> tuple[str, ...]:
    """Return the names of the file's nodes of which none runs with the same operator and the same name or output."""
    there = {(node.operator, name) for node in executed for name in (node.name, *node.outputs) if name}
    return tuple(
        node.name or node.operator
        for node in file
        if there.isdisjoint((node.operator, name) for name in (node.name, *node.outputs))
    )


def _short(provider: str) -> str:
    return next((short for short, full in PROVIDERS.items() if full[0] == provider), provider)
