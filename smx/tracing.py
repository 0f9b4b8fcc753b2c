"""A module's own forward as a graph, by torch.fx, and a graph as the forward of a module."""

from __future__ import annotations

import copy
import inspect
import warnings
from functools import cached_property
from textwrap import indent
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


class UntraceableError(Exception):
    """A forward can't be traced, or would not do the same when written anew; the text is the reason."""


def trace(module: nn.Module, given: dict[str, Any] | None = None) -> fx.Graph:
    """Trace a module's own forward, with the modules that it calls closed.

    Args:
        module: stays as it is; tensors that its forward makes are made at each call of the graph.
        given: values of arguments that are fixed.

    Raises:
        UntraceableError: the reason why it can't be.
    """
    try:
        root = copy.copy(module)  # what a forward notes on its module, it notes on this one
        before = dict(vars(root))
        tracer = _Tracer()
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _Factories(tracer):
            warnings.simplefilter("ignore")
            graph = tracer.trace(root, given)
    except UntraceableError:
        raise
    except Exception as error:  # whatever a forward does with something that is no tensor
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UntraceableError(reason.strip()) from error
    changed = [key for key, value in vars(root).items() if key not in before or before[key] is not value]
    if changed:
        raise UntraceableError(f"it sets attributes of its module ({', '.join(changed)})")
    return graph


def trace_in_both_modes(module: nn.Module) -> tuple[fx.Graph, fx.Graph]:
    """Trace a forward in train() and in eval(), in which `self.training` is a constant.

    Raises:
        UntraceableError: it can't be, or what it does depends on whether an optional argument is given.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        training, evaluation = (trace(module.train(mode)) for mode in (True, False))
    finally:
        for part, mode in modes.items():
            part.training = mode
    optional = [p.name for p in inspect.signature(module.forward).parameters.values() if p.default is None]
    if optional and _operations(trace(module, dict.fromkeys(optional))) != _operations(trace(module)):
        raise UntraceableError(f"its course depends on whether {' and '.join(optional)} is given")
    return training, evaluation


def _operations(graph: fx.Graph) -> list[tuple[str, Any]]:
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    return [(node.op, node.target) for node in nodes if getattr(node.target, "__name__", "") != "_assert_is_none"]


def set_forward(module: nn.Module, training: fx.Graph, evaluation: fx.Graph) -> None:
    """Give a module another forward, for each mode; its class becomes one of the same name, derived from its own.

    Copies and pickles keep it. A `torch.fx.GraphModule`, which has one graph for both modes, stays one.
    """
    if isinstance(module, fx.GraphModule):
        module.graph = training if module.training else evaluation
    else:
        module.__class__ = _Forward(type(module), training, evaluation).as_class


class _Forward:
    """A forward, rewritten for objects of `base`, and the class that they get: `base`, but for this forward."""

    def __init__(self, base: type[nn.Module], training: fx.Graph, evaluation: fx.Graph) -> None:
        codes = [graph.python_code("self") for graph in (training, evaluation)]
        self.base = base
        self.source = _by_mode(*(code.src.strip() for code in codes))
        self.names = {name: value for code in codes for name, value in code.globals.items() if name not in _BUILTINS}

    @cached_property
    def as_class(self) -> type[nn.Module]:
        def reduce(module: nn.Module, protocol: Any) -> tuple[Any, ...]:
            # The class can't be imported, so it is made again.
            return _empty, (self,), object.__reduce_ex__(module, 2)[2]

        body = {name: getattr(self.base, name) for name in ("__module__", "__qualname__", "__doc__")}
        namespace = {**_BUILTINS, **self.names}
        exec(self.source, namespace)
        body |= {"forward": namespace["forward"], "__reduce_ex__": reduce}
        return type(self.base.__name__, (self.base,), body)

    def __deepcopy__(self, memo: Any) -> _Forward:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "as_class"}


_BUILTINS = fx.Graph().python_code("self").globals
"""The names that every traced forward may use; others are functions that a user gave to `torch.fx.wrap`."""


def _by_mode(training: str, evaluation: str) -> str:
    """Write one function that does what the first does in train() and what the second does in eval()."""
    if training == evaluation:
        return training
    (head, _, first), (_, _, second) = training.partition("\n"), evaluation.partition("\n")
    first, second = indent(first, "    "), indent(second, "    ")
    return f"{head}\n    if self.training:\n{first}\n    else:\n{second}\n"


def _empty(forward: _Forward) -> nn.Module:
    return forward.as_class.__new__(forward.as_class)


class _Tracer(fx.Tracer):
    """Traces one forward, with the modules that it calls closed."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self._modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _modes() != self._modes:
            raise UntraceableError("it switches gradients or autocast on or off")  # which the graph would not show
        return super().create_node(*args, **kwargs)


def _modes() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _Factories(TorchFunctionMode):
    """While a forward is traced, tensors that it makes (`torch.zeros(3)`) are made at each call, not once."""

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
