"""Which nodes of a file an optimised graph's nodes stand for.

ONNX Runtime fuses nodes, folds constants and adds nodes of its own, but keeps the names of most values: an optimised
node stands for what lies in the file between the values that it takes and those that it makes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from smx.runtime.graph import NodeInfo

# How ONNX Runtime renames a value that it converts, and calls a node that it moves to blocks of channels: by the value
# that it made when it was moved.
CONVERTED = re.compile(r"(?:InsertedPrecisionFreeCast_|FusedBack_)(.+?)(?:_token_\d+)?")
BLOCKED = re.compile(r"(.+?)(?:_bn|_mul)?_nchwc(?:_token_\d+)?")
COPIES = ("ReorderInput", "ReorderOutput", "MemcpyFromHost", "MemcpyToHost")
"""Nodes that ONNX Runtime adds and that change no value."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an optimised node comes from.

    Attributes:
        covers: the nodes of the file that it stands for, by their positions there; none for one that was added, or
            that can't be traced.
        home: the node of the file that says where it belongs: of those it covers its namesake, or the first with a
            module path, with the same operator if there is one; where it covers none, the home of the node that takes
            what it makes, or makes what it takes; None where nothing is known.
    """

    covers: tuple[int, ...]
    home: int | None


def origins(file: Sequence[NodeInfo], optimised: Sequence[NodeInfo]) -> list[Origin]:
    """Trace every optimised node back to the file.

    Args:
        file: the nodes of the file, sorted as ONNX asks for.
        optimised: the nodes of the optimised graph, in an order in which they can run. Those without inputs and
            outputs, of which only the name is known, are traced by that.
    """
    original = _names(file, optimised)
    makers = {value: i for i, node in enumerate(file) for value in node.outputs if value}
    alive = {original.get(value, value) for node in optimised for value in node.outputs}
    namesakes = _namesakes(file)
    covers, homes = [], []
    for node in optimised:
        inputs = {original.get(value, value) for value in node.inputs if value}
        outputs = {original.get(value, value) for value in node.outputs if value} - inputs
        namesake = namesakes.get((node.name, node.operator))
        covered = _between(file, makers, inputs, outputs, alive)
        if not covered and namesake is not None:
            covered = [namesake]
        covers.append(covered)
        homes.append(_home(file, node, covered))
    return [
        Origin(covers=tuple(covered), home=home)
        for covered, home in zip(covers, _neighbours(optimised, homes), strict=True)
    ]


def _names(file: Sequence[NodeInfo], optimised: Sequence[NodeInfo]) -> dict[str, str]:
    """Return the names in the file of values that were renamed."""
    known = {value for node in file for value in (*node.inputs, *node.outputs) if value}
    namesakes = _namesakes(file)
    found: dict[str, str] = {}
    for value in {value for node in optimised for value in (*node.inputs, *node.outputs)} - known:
        if (match := CONVERTED.fullmatch(value)) and match[1] in known:
            found[value] = match[1]
    for node in optimised:
        if node.operator in COPIES and node.inputs and node.outputs:
            for value, same in ((node.outputs[0], node.inputs[0]), (node.inputs[0], node.outputs[0])):
                if value not in known and same in known:
                    found[value] = same
    blocked: list[NodeInfo] = []
    for node in optimised:
        before: tuple[str, ...] = ()
        if node.outputs and (match := BLOCKED.fullmatch(node.name)) and match[1] in known:
            before = (match[1],)
            blocked.append(node)
        elif (node.name, node.operator) in namesakes:
            before = file[namesakes[node.name, node.operator]].outputs
        for value, name in zip(node.outputs, before, strict=False):
            if name and value not in known:
                found.setdefault(value, name)
    alive = {found.get(value, value) for node in optimised for value in node.outputs}
    for node in blocked:
        inputs = {found.get(value, value) for value in node.inputs}
        value = node.outputs[0]
        found[value] = _last(file, found.get(value, value), inputs, alive)
    return found


def _last(file: Sequence[NodeInfo], value: str, inputs: set[str], alive: set[str]) -> str:
    """Follow a value through nodes that went into its maker: each alone takes it, and nothing its maker does not."""
    while True:
        takers = [node for node in file if value in node.inputs]
        if len(takers) != 1 or set(takers[0].inputs) - inputs - {value, ""} or alive & set(takers[0].outputs):
            return value
        value = takers[0].outputs[0]


def _namesakes(file: Sequence[NodeInfo]) -> dict[tuple[str, str], int]:
    """Return the positions of nodes by name and operator, where that is unique."""
    count = Counter(node.name for node in file)
    return {(node.name, node.operator): i for i, node in enumerate(file) if node.name and count[node.name] == 1}


def _between(
    file: Sequence[NodeInfo], makers: dict[str, int], inputs: set[str], outputs: set[str], alive: set[str]
) -> list[int]:
    """Return the nodes on the ways from the inputs to the outputs that pass no value that is still made elsewhere."""
    before: set[int] = set()
    pending = [value for value in outputs if value in makers]
    while pending:
        maker = makers[pending.pop()]
        if maker not in before:
            before.add(maker)
            passed = [value for value in file[maker].inputs if value not in inputs and value not in alive]
            pending += [value for value in passed if value in makers]
    reached = set(inputs)
    found = []
    for i in sorted(before):
        if reached & set(file[i].inputs) or outputs & set(file[i].outputs):
            reached |= set(file[i].outputs)
            found.append(i)
    return found


def _home(file: Sequence[NodeInfo], node: NodeInfo, covered: list[int]) -> int | None:
    namesakes = [i for i in covered if node.name and file[i].name == node.name]
    scoped = [i for i in covered if "/" in file[i].name]
    alike = [i for i in scoped if file[i].operator == node.operator]
    return next(iter([*namesakes, *alike, *scoped, *covered]), None)


def _neighbours(optimised: Sequence[NodeInfo], homes: list[int | None]) -> list[int | None]:
    """Give nodes without a home that of the first node that takes what they make, or else makes what they take."""
    found = list(homes)
    takers: dict[str, int] = {}
    for i in reversed(range(len(optimised))):
        if found[i] is None:
            taking = [takers[value] for value in optimised[i].outputs if value in takers]
            found[i] = found[min(taking)] if taking else None
        takers |= {value: i for value in optimised[i].inputs if value}
    makers = {value: i for i, node in enumerate(optimised) for value in node.outputs if value}
    for i, node in enumerate(optimised):
        if found[i] is None:
            found[i] = next((found[makers[value]] for value in node.inputs if value in makers), None)
    return found
