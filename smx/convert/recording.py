"""A run of a network in `eval()` as a graph of values, and where its activations are called."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from smx.calling import call
from smx.convert.modularize import Types, activation_name, name_of
from smx.convert.neurons import RECURRENT, Neurons, carried, created, normalized
from smx.convert.tracing import random_numbers_back
from smx.convert.values import ACTIVATION, CONSTANT, INPUT, OTHER, POINTWISE, VIEW, WEIGHTED, Graph, Value
from smx.layers import Mixed, Selective
from smx.sorting import rules
from smx.sorting.aten import Operators
from smx.sorting.rules import Call, Rule

_VIEWS = ("alias", "detach", "expand", "lift_fresh", "select", "slice", "split", "split_with_sizes", "unbind")
_VIEW_RULES = (rules.reshape, rules.transpose)
_NORMS = (rules.channelwise, rules.trailing)


class Place(NamedTuple):
    """Where in a program a call is written: the code, and lines and columns of the expression."""

    code: CodeType
    lines: tuple[int | None, ...]


@dataclass
class Site:
    """An activation as it is called in a run.

    Attributes:
        path: of its module; of the module that calls it, and its name, where it is a function.
        activation: its name.
        caller: the path of the module whose forward calls it.
        module: whether it is a module.
        places: where it is called, in the order of the calls.
        shared: whether one call of its caller calls it several times.
    """

    path: str
    activation: str
    caller: str
    module: bool
    places: list[Place] = field(default_factory=list)
    shared: bool = False


@dataclass
class Recording:
    """What a run showed: its values, and its activations by their paths."""

    graph: Graph
    sites: dict[str, Site]


def run(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """Run a module in `eval()` without gradients, and return its outputs.

    The module and the arguments stay as they are, and so do the states of random numbers.
    """
    return _run(_throwaway(module), _cloned(arguments))


def _run(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    fast = torch.backends.mha.get_fastpath_enabled()
    gpus = {parameter.device.index for parameter in module.parameters() if parameter.device.type == "cuda"}
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it does not call an encoder's activations
        with torch.no_grad(), random_numbers_back(sorted(gpus)):
            return call(module.eval(), arguments)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _throwaway(module: nn.Module) -> nn.Module:
    """Return a copy that shares the weights; buffers, modes and hooks are its own."""
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


def _cloned(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    cloned: tuple[Any, ...] = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, arguments)
    return cloned


def shapes(module: nn.Module, arguments: tuple[Any, ...], types: Types) -> tuple[dict[str, list[torch.Size]], Any]:
    """Run a module; return the shapes of the inputs of each activation module, by path, and the outputs."""
    module, arguments = _throwaway(module), _cloned(arguments)
    found: dict[str, list[torch.Size]] = defaultdict(list)

    def note(path: str, part: nn.Module, inputs: Any) -> None:
        found[path] += [x.shape for x in inputs[:1] if isinstance(x, Tensor)]

    for path, part in module.named_modules():
        if isinstance(part, types):
            part.register_forward_pre_hook(partial(note, path))
    return found, _run(module, arguments)


def record(module: nn.Module, arguments: tuple[Any, ...], types: Types) -> Recording:
    """Run a module and record it.

    Args:
        module: stays as it is.
        arguments: of its forward.
        types: the modules that are activations.
    """
    module, arguments = _throwaway(module), _cloned(arguments)
    recorder = _Recorder(module, arguments)
    watch = _Activations(recorder, types)
    for path, part in module.named_modules():
        part.register_forward_pre_hook(partial(watch.enter, path), with_kwargs=True)
        part.register_forward_hook(partial(watch.leave, path))
    with torch.inference_mode(), recorder, watch:
        outputs = _run(module, arguments)
    values = [recorder.of(x) for x in tensors_in(outputs)]
    return Recording(Graph(recorder.values, values), watch.sites)


def tensors_in(x: Any) -> Iterator[Tensor]:
    """Yield the tensors in what a network takes or returns: containers, dataclasses, objects with attributes."""
    match x:
        case Tensor():
            yield x
        case str() | nn.Module() | type():
            return
        case dict():
            x = list(x.values())
        case _ if dataclasses.is_dataclass(x):
            x = [getattr(x, entry.name) for entry in dataclasses.fields(x)]
    if isinstance(x, list | tuple | set):
        for entry in x:
            yield from tensors_in(entry)


class _Recorder(Operators):
    """Makes a `Value` of each result of an operator."""

    whole = RECURRENT

    def __init__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[Value] = []
        self._of: dict[Tensor, Value] = {}
        self._sharing: dict[int, list[Tensor]] = defaultdict(list)  # tensors by their memory
        for weight in (*module.parameters(), *module.buffers()):
            self._put(weight, CONSTANT, "weight", leaves=frozenset([id(weight)]))
        for x in tensors_in(arguments):
            self._put(x, INPUT, "input")

    def of(self, tensor: Tensor) -> Value:
        """Return the value of a tensor; one that no operator made is a constant."""
        return self._of.get(tensor) or self._put(tensor, CONSTANT, "constant")

    def activation(self, z: Value, h: Tensor, name: str, site: str) -> None:
        """Take what operators did between z and h as one activation."""
        self._put(h, CONSTANT if z.kind == CONSTANT else ACTIVATION, name, (z,), z.neurons, site=site)

    def note(self, call: Call, rule: Rule | None) -> None:
        """Make the values of the outputs, and of what the operator overwrote."""
        inputs = tuple(self.of(x) for x in call.inputs)
        kind = self._kind(call, rule, inputs)
        for y, neurons in zip(call.outputs, self._neurons(call, rule, inputs, kind), strict=True):
            self._put(y, kind, call.name, inputs, neurons)
        for x in call.written:
            if not any(x is y for y in call.outputs):
                self._put(x, kind, call.name, inputs)
            new = self.of(x)
            for other in self._sharing[_memory(x)]:
                if other is not x:
                    old = self.of(other)
                    self._put(other, OTHER, "write", (old, new), old.neurons)

    def _put(
        self,
        x: Tensor,
        kind: str,
        op: str,
        inputs: tuple[Value, ...] = (),
        neurons: Neurons | None = None,
        leaves: frozenset[int] = frozenset(),
        site: str = "",
    ) -> Value:
        constants = [value.leaves for value in inputs if value.kind == CONSTANT] if kind in (CONSTANT, WEIGHTED) else []
        leaves = leaves.union(*constants)
        value = Value(len(self.values), kind, op, inputs, tuple(x.shape), neurons, leaves, site)
        if x not in self._of:
            self._sharing[_memory(x)].append(x)
        self._of[x] = value
        self.values.append(value)
        return value

    def _kind(self, call: Call, rule: Rule | None, inputs: tuple[Value, ...]) -> str:
        if all(value.kind == CONSTANT for value in inputs):
            return CONSTANT
        if call.name in RECURRENT or self._has_weights(call, rule):
            return WEIGHTED
        if rule in _VIEW_RULES or call.name in _VIEWS:
            return VIEW
        return POINTWISE if rule is rules.elementwise and "softmax" not in call.name else OTHER

    def _has_weights(self, call: Call, rule: Rule | None) -> bool:
        """Tell whether an operator mixes a value's entries by weights; unknown ones do, if they have any."""
        constant = [self._is_weight(x) for x in call.inputs]
        if rule in (rules.linear, rules.conv, rules.embedding):
            return any(self._is_weight(weight) for weight in call.get("weight"))
        if rule is rules.matmul:
            return any(constant[-2:])
        unknown = rule is None and any(constant)
        return unknown and any(x.is_floating_point() and x.dim() > 1 for x in call.inputs if self._is_weight(x))

    def _is_weight(self, x: Tensor) -> bool:
        return self.of(x).kind == CONSTANT

    def _neurons(self, call: Call, rule: Rule | None, inputs: tuple[Value, ...], kind: str) -> list[Neurons | None]:
        if kind == CONSTANT or not call.outputs:
            return [None] * len(call.outputs)
        if kind == WEIGHTED:
            return [created(call, self._is_weight), *[None] * (len(call.outputs) - 1)]
        known = [value.neurons for value in inputs]
        found = carried(call, rule, known, self._is_weight)
        if rule in _NORMS:
            found[0] = normalized(call) or found[0]
        return found


class _Activations(TorchFunctionMode):
    """Tells a recorder of activations, modules and functions, and notes where they are called."""

    def __init__(self, recorder: _Recorder, types: Types) -> None:
        super().__init__()
        self.recorder = recorder
        self.types = types
        self.sites: dict[str, Site] = {}
        self._functions: dict[tuple[str, str, Place], str] = {}
        self._running: list[tuple[str, nn.Module, set[str], Value | None]] = []

    def enter(self, path: str, part: nn.Module, args: Any, kwargs: Any) -> None:
        """Note the call of a module: it is one of an activation, or may call some."""
        z = None
        if isinstance(part, self.types) and not self._inside():
            caller, used = (self._running[-1][0], self._running[-1][2]) if self._running else ("", set())
            z = next((self.recorder.of(x) for x in tensors_in((args, kwargs))), None)
            site = self.sites.setdefault(path, Site(path, name_of(part), caller, module=True))
            site.shared |= path in used
            site.places.append(_place())
            used.add(path)
        self._running.append((path, part, set(), z))

    def leave(self, path: str, part: nn.Module, inputs: Any, output: Any) -> None:
        """Take the output of an activation as such."""
        z = self._running.pop()[3]
        if z is not None and isinstance(output, Tensor):
            self.recorder.activation(z, output, name_of(part), path)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; if it is an activation, outside of an activation's module, note it."""
        kwargs = kwargs or {}
        name = activation_name(func, self.types)
        if name is None or self._inside() or not self._running:
            return func(*args, **kwargs)
        if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in tensors_in((args, kwargs))):
            self._function(name)  # within torch.vmap, whose values no operator shows
            return func(*args, **kwargs)
        z = next((self.recorder.of(x) for x in tensors_in((args, kwargs))), None)
        result = func(*args, **kwargs)
        if z is not None and isinstance(result, Tensor):
            path = self._function(name)
            self.recorder.activation(z, result, name, path)
        return result

    def _inside(self) -> bool:
        return any(isinstance(part, (*self.types, Selective, Mixed)) for _, part, _, _ in self._running)

    def _function(self, name: str) -> str:
        caller, place = self._running[-1][0], _place()
        path = self._functions.get((caller, name, place))
        if path is None:
            count = sum(key[:2] == (caller, name) for key in self._functions)
            path = f"{caller}.{name}{f'_{count}' if count else ''}()".strip(".")
            self._functions[caller, name, place] = path
            self.sites[path] = Site(path, name, caller, module=False)
        self.sites[path].places.append(place)
        return path


def _place() -> Place:
    """Find the innermost call that is written neither in PyTorch nor here."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "smx"):
        frame = frame.f_back
    return Place(frame.f_code, tuple(list(frame.f_code.co_positions())[frame.f_lasti // 2]))


def _memory(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
