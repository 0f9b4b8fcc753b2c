"""Edits of what a file says: values of other types, out of range, nested too deep, missing or added."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch


def deep(depth: int = 10_000) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 80_000_000, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "relu", "\0", "\x1b[2J", "ä" * 2000, "\ud800", "a\nb", "../x", [], {}, [[]], [None],
    [1, "x", None], {"x": {}}, {"": None}, list(range(300)), [80_000_000, 80_000_000], deep(100),
]  # fmt: skip
TENSORS: list[Any] = [
    torch.zeros(0), torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(80_000_000, 0),
    torch.tensor([9, -1]), torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.complex64),
    torch.zeros(1).expand(80_000_000), torch.zeros(3).bool(),
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key or index of a structure."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def edited(content: dict[str, Any], draw: random.Random, values: list[Any]) -> dict[str, Any]:
    """Return a copy with one or two values replaced, removed, added, swapped or wrapped."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 2])):
        owner, key = draw.choice(list(places(content)) or [(content, next(iter(content), "x"))])
        match draw.choice(["replace", "replace", "replace", "remove", "add", "rename", "wrap", "repeat"]):
            case "remove":
                del owner[key]
            case "add" if isinstance(owner, dict):
                owner[draw.choice(["extra", "", "\x1b[2J", key])] = copy.copy(draw.choice(values))
            case "rename" if isinstance(owner, dict):
                owner[draw.choice(["x", "training", "a..b", 7])] = owner.pop(key)
            case "wrap":
                owner[key] = [owner.get(key)] if isinstance(owner, dict) else {"x": owner[key]}
            case "repeat" if isinstance(owner, list):
                owner.extend(owner[:50] * 3)
            case _:
                owner[key] = copy.copy(draw.choice(values))
    return content
