"""Where in a user's network something happens that can't be exported: the module's path, the file, the line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smx.calling import Flat

_OWN = ("torch", "smx", "onnx", "onnxscript", "onnx_ir", "einops", "contextlib", "functools", "importlib")
"""The packages whose lines are not the user's."""


def place_of(error: BaseException, root: nn.Module) -> str:
    """Return the innermost place of the user's code at which an error, or a cause of it, was raised.

    Args:
        error: that was caught.
        root: the network; a module's path in it becomes a part of the answer.

    Returns:
        `in block.gate (net.py, line 12: if x.sum() > 0:)`, or as much of that as is known; may be empty.
    """
    seen: set[int] = set()
    found = ""
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        lines = dict(walk_tb(link.__traceback__))  # a frame that is there twice counts where it is innermost
        found = _place(lines, root, lines) or found
        link = link.__cause__ or link.__context__
    return found


def squeezed_at(flat: Flat, inputs: tuple[Tensor, ...]) -> str:
    """Return where a `squeeze()` without axes takes away the first axis of a tensor, in a run on inputs."""
    watch = _Squeeze(flat)
    with watch, torch.no_grad():
        flat.result(*inputs)
    return watch.place


def attention_at(flat: Flat, inputs: tuple[Tensor, ...]) -> str:
    """Return where `scaled_dot_product_attention` gets values that have not 4 axes, in a run on inputs."""
    watch = _Attention(flat)
    with watch, torch.no_grad():
        flat.result(*inputs)
    return watch.place


class _Watch(TorchFunctionMode):
    """Notes the place of the first function call of a kind."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root
        self.place = ""

    def matches(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        """Whether a call is of the kind."""
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, and note where it was called."""
        result = func(*args, **(kwargs or {}))
        if not self.place and self.matches(func, args, result):
            frames = list(_frames(sys._getframe(1)))[::-1]
            self.place = _place(frames, self.root, {frame: frame.f_lineno for frame in frames})
        return result


class _Squeeze(_Watch):
    def matches(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        named = getattr(func, "__name__", "") in ("squeeze", "squeeze_")
        return named and len(args) == 1 and isinstance(args[0], Tensor) and args[0].shape[:1] == (1,)


class _Attention(_Watch):
    def matches(self, func: Any, args: tuple[Any, ...], result: Any) -> bool:
        return func is F.scaled_dot_product_attention and isinstance(result, Tensor) and result.dim() != 4


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frames: Iterable[FrameType], root: nn.Module, lines: dict[FrameType, int]) -> str:
    """Return the innermost place of frames, which come from the outermost."""
    paths = {id(part): path for path, part in root.named_modules()}
    path = line = None
    for frame in frames:
        if id(own := frame.f_locals.get("self")) in paths and isinstance(own, nn.Module):
            path = paths[id(own)].removeprefix("module").removeprefix(".")
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OWN and path is not None:
            line = (frame.f_code.co_filename, lines[frame])
    if path is None:
        return ""
    where = f"in {path or 'its own forward'}"
    if line is None or line[0].startswith("<"):
        return where
    source = " ".join(linecache.getline(*line).split())
    return f"{where} ({Path(line[0]).name}, line {line[1]}{source and ': '}{source[:80]})"
