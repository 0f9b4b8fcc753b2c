"""How any network is called, and what it returns: arguments by place or by name, results in whatever holds them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_flatten, tree_leaves, tree_unflatten


class Keywords(dict[str, Any]):
    """Arguments by name; they may follow the others, as the last entry of a tuple of arguments."""


register_pytree_node(
    Keywords,
    lambda given: (list(given.values()), list(given)),
    lambda values, names: Keywords(zip(names, values, strict=True)),
)


def split(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], Keywords]:
    """Return the arguments by place, and those by name."""
    if arguments and isinstance(arguments[-1], Keywords):
        return arguments[:-1], arguments[-1]
    return arguments, Keywords()


def call(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """Run a module on arguments of which the last may be `Keywords`."""
    places, names = split(arguments)
    return module(*places, **names)


def parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """Return the parameters of a module's forward by name."""
    return dict(inspect.signature(module.forward).parameters)


def tensors_by_name(result: Any, ignored: tuple[type, ...] = ()) -> dict[str, Tensor]:
    """Return the tensors that a network returned, with the names that they get as outputs of a file.

    1. A tensor alone is `output`; the entries of a list or tuple are `output0`, `output1`, ...
    2. Those of a dict, a dataclass or a named tuple have their own names. `None` stands for nothing.
    3. What is held inside of an entry is named `entry_inner`.

    Args:
        result: of the forward.
        ignored: types of what else may be among them.

    Raises:
        TypeError: something else is among them; the message names the first.
    """
    found = list(_tensors_in(result, (), ignored))
    if len(found) == 1 and not isinstance(result, Mapping) and not _fields(result):
        return {"output": found[0][1]}
    names: dict[str, Tensor] = {}
    for path, tensor in found:
        name = stem = "_".join((_name(path[0]), *map(str, path[1:])))
        number = 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names[name] = tensor
    return names


def _tensors_in(x: Any, path: tuple[Any, ...], ignored: tuple[type, ...]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    if isinstance(x, Tensor):
        yield path, x
    elif isinstance(x, list | tuple | Mapping) or _fields(x):
        fields = {name: getattr(x, name) for name in _fields(x)} or x
        for key, entry in fields.items() if isinstance(fields, Mapping) else enumerate(fields):
            yield from _tensors_in(entry, (*path, key), ignored)
    elif x is not None and not isinstance(x, ignored):
        where = f" in {'.'.join(map(str, path))}" if path else ""
        raise TypeError(f"it returns a {type(x).__name__}{where}")


def _fields(x: Any) -> tuple[str, ...]:
    """Return the names of the entries of a dataclass or a named tuple; a dict that is also a dataclass knows better."""
    if isinstance(x, Mapping | type):
        return ()
    return tuple(field.name for field in dataclasses.fields(x)) if dataclasses.is_dataclass(x) else _names_of_tuple(x)


def _names_of_tuple(x: Any) -> tuple[str, ...]:
    return tuple(getattr(x, "_fields", ())) if isinstance(x, tuple) else ()


def _name(key: Any) -> str:
    return key if isinstance(key, str) and key else f"output{key}"


class Flat(nn.Module):
    """A network as one that takes its tensors by place and returns a tuple of tensors.

    Every path in it starts with `module.`. What else the arguments hold, as a flag or None, is a constant of it.

    Args:
        module: any network.
        arguments: of its forward, as `smx.example_input.as_arguments` returns them.

    Attributes:
        example: the tensors among the arguments.
        usual: their names as inputs of a file.
        names, results: the names that inputs and outputs get in the end, for who wants others.
    """

    def __init__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.module = module
        leaves, structure = tree_flatten(arguments)
        self.example: tuple[Tensor, ...] = tuple(x for x in leaves if isinstance(x, Tensor))
        self.usual = self.names = _input_names(arguments)
        self.results: list[str] = []

        def with_tensors(*tensors: Tensor) -> tuple[Any, ...]:
            given = iter(tensors)
            filled = tree_unflatten([next(given) if isinstance(x, Tensor) else x for x in leaves], structure)
            return tuple(filled)

        self.arguments = with_tensors
        """Returns the arguments of the network with given tensors in their places. (A function is never copied.)"""

    def result(self, *tensors: Tensor) -> Any:
        """Return what the network itself returns."""
        return call(self.module, self.arguments(*tensors))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the result.

        Raises:
            TypeError: see `tensors_by_name`.
        """
        return tuple(tensors_by_name(self.result(*tensors)).values())

    @property
    def places(self) -> dict[str, int]:
        """Return which input it is, for each name of one, and for each parameter of the forward that is a tensor."""
        arguments, _ = split(self.arguments(*self.example))
        found: dict[str, int] = {}
        index = 0
        for parameter, argument in zip(parameters(self.module).values(), arguments, strict=False):
            if parameter.kind is parameter.VAR_POSITIONAL:
                break
            if isinstance(argument, Tensor):
                found[parameter.name] = index
            index += _count(argument)
        return {name: i for names in (self.usual, self.names) for i, name in enumerate(names)} | found


def _input_names(arguments: tuple[Any, ...]) -> list[str]:
    """Name the tensors: `input`, or `input0`, `input1`, ...; those of arguments by name after these."""
    places, keywords = split(arguments)
    count = _count(places)
    names = ["input"] if count == 1 else [f"input{i}" for i in range(count)]
    for name, value in keywords.items():
        inner = _count(value)
        names += [name] if inner == 1 else [f"{name}_{i}" for i in range(inner)]
    return names


def _count(x: Any) -> int:
    return sum(isinstance(leaf, Tensor) for leaf in tree_leaves(x))


def parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network with their paths in it, also if it is a `Flat`."""
    network: nn.Module = module.module if isinstance(module, Flat) else module
    yield from network.named_modules()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into `eval()`, and each part of it back into the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
