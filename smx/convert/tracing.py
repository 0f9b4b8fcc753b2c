"""From a module's own forward to a graph of torch.fx, and from a graph to the forward of a module."""

from __future__ import annotations

import copy
import inspect
import operator
import pickle
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from textwrap import indent
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from smx.calling import evaluating


class UntraceableError(Exception):
    """A forward can't be traced, or would compute something else when rewritten; the text is the reason."""


@torch.enable_grad()  # a torch.autograd.Function, whose gradient a graph would lose, is known by switching them off
def trace(module: nn.Module, fixed: dict[str, Any] | None = None) -> fx.Graph:
    """Trace a module's own forward; a call of another module is one node.

    Args:
        module: stays as it is; tensors that its forward makes are made at each call of the graph.
        fixed: arguments that have a fixed value.

    Raises:
        UntraceableError: it can't be traced.
    """
    if "forward" in vars(module):
        raise UntraceableError("its forward is an attribute of the module, not a method of the class")
    try:
        root = copy.copy(module)  # attributes that the forward sets are set on this one
        before = dict(vars(root))
        tracer = _Tracer()
        with warnings.catch_warnings(), _random_numbers_stay(), _containers_stay(root), _Factories(tracer):
            warnings.simplefilter("ignore")
            graph = tracer.trace(root, fixed)
    except UntraceableError:
        raise
    except Exception as error:  # whatever a forward may raise for a proxy
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UntraceableError(reason.strip()) from error
    changed = [key for key, value in vars(root).items() if key not in before or before[key] is not value]
    if changed:
        raise UntraceableError(f"it sets attributes of its module ({', '.join(changed)})")
    for old, new in tracer.augmented:
        if old.op == "placeholder" or any(user > new for user in old.users):
            raise UntraceableError(f"it changes {old} in place, which others may read")
    return graph


@contextmanager
def random_numbers_back(gpus: Sequence[int] = ()) -> Iterator[Callable[[], bool]]:
    """Put back the random numbers of Python, NumPy and PyTorch; a call tells whether the first two were drawn from."""
    numpy = sys.modules.get("numpy")  # a forward can't draw from it before it is imported

    def states() -> tuple[Any, ...]:
        return random.getstate(), numpy and numpy.random.get_state()

    before = states()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield lambda: pickle.dumps(states()) != pickle.dumps(before)
    finally:
        random.setstate(before[0])
        if numpy:
            numpy.random.set_state(before[1])


@contextmanager
def _random_numbers_stay() -> Iterator[None]:
    """Refuse numbers drawn by Python or NumPy, which would be constants of the graph; PyTorch's are drawn each time."""
    with random_numbers_back() as drawn:
        yield
        if drawn():
            raise UntraceableError("it draws random numbers from Python or NumPy")


@contextmanager
def _containers_stay(module: nn.Module) -> Iterator[None]:
    """Refuse a forward that changes a list, dict or set of its module, and undo the change."""
    containers = [(key, x, copy.copy(x)) for key, x in vars(module).items() if isinstance(x, list | dict | set)]
    changed = []
    try:
        yield
    finally:
        for key, value, before in containers:
            if len(value) != len(before) or not all(map(operator.is_, _contents(value), _contents(before))):
                changed.append(key)
                value.clear()
                value.extend(before) if isinstance(value, list) else value.update(before)
    if changed:
        raise UntraceableError(f"it changes what its module holds ({', '.join(changed)})")


def _contents(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else [*container]


def trace_in_both_modes(module: nn.Module) -> tuple[fx.Graph, fx.Graph]:
    """Trace a forward in train() and in eval(); `self.training` is a constant in each of the two graphs.

    Raises:
        UntraceableError: it can't be traced, or its course depends on whether an optional argument is given.
    """
    with evaluating(module):
        training = trace(module.train())
        evaluation = trace(module.eval())
    optional = [p.name for p in inspect.signature(module.forward).parameters.values() if p.default is None]
    if optional and _course(trace(module, dict.fromkeys(optional)), optional) != _course(trace(module), optional):
        raise UntraceableError(f"its course depends on whether {' and '.join(optional)} is given")
    return training, evaluation


def _course(graph: fx.Graph, optional: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the operations of a graph with what each one takes; optional arguments count as None."""
    names: dict[fx.Node, str | None] = {}
    operations: list[tuple[str, ...]] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = None if node.target in optional else node.name
        elif node.op == "get_attr":
            names[node] = str(node.target)
        elif getattr(node.target, "__name__", "") != "_assert_is_none":
            taken = fx.node.map_arg((node.args, dict(node.kwargs)), names.get)
            names[node] = f"%{len(operations)}"
            operations.append((node.op, str(node.target), repr(taken)))
    return operations


def set_forward(module: nn.Module, training: fx.Graph, evaluation: fx.Graph) -> None:
    """Give a module another forward for each mode. Its class becomes a subclass with the same name.

    Copies and pickles keep the forward. A `torch.fx.GraphModule` has one graph for both modes and stays one.
    """
    if isinstance(module, fx.GraphModule):
        module.graph = training if module.training else evaluation
    else:
        module.__class__ = _Traced(type(module), training, evaluation).as_class


class Rewritten:
    """Rewritten methods for modules of the class `base`, and the subclass of `base` that has them."""

    def __init__(self, base: type[nn.Module]) -> None:
        self.base = base

    def make(self) -> dict[str, Any]:
        """Return the methods by name, the forward among them or those that it calls."""
        raise NotImplementedError

    @cached_property
    def as_class(self) -> type[nn.Module]:
        """The subclass; it has the name of the base."""

        def reduce(module: nn.Module, protocol: Any) -> tuple[Any, ...]:
            # The class can't be imported, so unpickling makes it again.
            return _empty, (self,), object.__reduce_ex__(module, 2)[2]

        body = {name: getattr(self.base, name) for name in ("__module__", "__qualname__", "__doc__")}
        body |= {**self.make(), "__reduce_ex__": reduce}
        return type(self.base.__name__, (self.base,), body)

    def __deepcopy__(self, memo: Any) -> Rewritten:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "as_class"}


class _Traced(Rewritten):
    """A forward that is the code of two graphs."""

    def __init__(self, base: type[nn.Module], training: fx.Graph, evaluation: fx.Graph) -> None:
        super().__init__(base)
        for graph in (training, evaluation):
            graph.set_codegen(_Signature(base))
        codes = [graph.python_code("self") for graph in (training, evaluation)]
        self.source = _by_mode(*(code.src.strip() for code in codes))
        self.names = {name: value for code in codes for name, value in code.globals.items() if name not in _BUILTINS}

    def make(self) -> dict[str, Any]:
        """Return the forward."""
        namespace = {**_BUILTINS, **self.names}
        exec(self.source, namespace)
        return {"forward": namespace["forward"]}


class _Signature(fx.graph.CodeGen):
    """Defines a forward with the arguments of the class's own: torch.fx puts those by name alone before `*args`."""

    def __init__(self, base: type[nn.Module]) -> None:
        super().__init__()
        self.kinds = {name: one.kind for name, one in inspect.signature(base.forward).parameters.items()}

    def gen_fn_def(self, free_vars: list[str], *args: Any, **kwargs: Any) -> str:
        """Return the line that defines the forward."""
        kinds = {text: self.kinds[re.findall(r"\w+", text)[0]] for text in free_vars}
        ordered = sorted(free_vars, key=kinds.__getitem__)
        by_name = [text for text in ordered if kinds[text] is inspect.Parameter.KEYWORD_ONLY]
        if by_name and inspect.Parameter.VAR_POSITIONAL not in kinds.values():
            ordered.insert(ordered.index(by_name[0]), "*")
        return super().gen_fn_def(ordered, *args, **kwargs)


_BUILTINS = fx.Graph().python_code("self").globals
"""The names that all traced forwards use; other names are functions that a user gave to `torch.fx.wrap`."""


def _by_mode(training: str, evaluation: str) -> str:
    """Return the source of one function that is the first one in train() and the second one in eval()."""
    if training == evaluation:
        return training
    heads, bodies = zip(*(source.split("\n    ", 1) for source in (training, evaluation)), strict=True)
    definition = heads[0].splitlines()[-1]
    wrapped = sorted({line for head in heads for line in head.splitlines()[:-1]})  # calls of torch.fx.wrap
    first, second = (indent(f"    {body}", "    ") for body in bodies)
    return "\n".join([*wrapped, definition, "    if self.training:", first, "    else:", second, ""])


def _empty(forward: Rewritten) -> nn.Module:
    return forward.as_class.__new__(forward.as_class)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.augmented: list[tuple[fx.Node, fx.Node]] = []
        self._modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Follow the forward of a module that is no part of this one, as those in a list, dict or global are."""
        if not any(m is part for part in self.root.modules()):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self._modes:
            raise UntraceableError("it switches gradients or autocast on or off")  # the graph does not record it
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """Records `x += y`: torch.fx makes `x + y` of it, so that other references to `x` would keep the old values."""


def _augmented(binary: Callable[[Any, Any], Any]) -> Callable[[_Proxy, Any], Any]:
    def assign(self: _Proxy, other: Any) -> Any:
        result = binary(self, other)
        self.tracer.augmented.append((self.node, result.node))  # type: ignore[attr-defined]
        return result

    return assign


for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "lshift", "rshift"]:
    setattr(_Proxy, f"__i{_name.rstrip('_')}__", _augmented(getattr(operator, _name)))


def _modes() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _Factories(TorchFunctionMode):
    """Makes tensors that a traced forward creates (`torch.zeros(3)`) nodes of the graph instead of constants."""

    def __init__(self, tracer: fx.Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        if isinstance(result, Tensor) and not any(isinstance(leaf, Tensor | fx.Proxy) for leaf in leaves):
            return self.tracer.create_proxy("call_function", func, args, kwargs)
        return result
