"""Give every activation of a network a module of its own, by rewriting the forwards in which it has none.

`F.relu(x)`, `x.sigmoid()` and the second call of a `self.relu` have no module of their own that could be replaced.
torch.fx finds them: it traces each module's own forward, with calls of submodules as single nodes, and the forward is
rewritten with a module for each activation. The rewritten module keeps its class, its name and its attributes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, count
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from smx.convert import formulas
from smx.convert.tracing import UntraceableError, set_forward, trace, trace_in_both_modes
from smx.layers import Mixed, Selective

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "logsigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "tanhshrink": nn.Tanhshrink,
}
"""PyTorch's elementwise activations: the name of the function, and the module that computes it."""

_NAMES: dict[Any, str] = {
    getattr(home, spelling): name
    for name in ACTIVATIONS
    for spelling in (name, f"{name}_")
    for home in (F, torch, Tensor)
    if hasattr(home, spelling)
} | {torch.special.expit: "sigmoid"}

Types = tuple[type[nn.Module], ...]


def activation_name(function: Any, types: Types) -> str | None:
    """Return the name in `ACTIVATIONS` of a function or a method of tensors, if its module is one of `types`."""
    try:
        name = _NAMES.get(function)
    except TypeError:  # not hashable
        return None
    return name if name is not None and issubclass(ACTIVATIONS[name], types) else None


def name_of(module: nn.Module) -> str:
    """Return the name in `ACTIVATIONS` of an activation module; of others, the name of its class."""
    return next((name for name, kind in ACTIVATIONS.items() if type(module) is kind), type(module).__name__)


def has_own_forward(module: nn.Module, types: Types) -> bool:
    """Tell whether a module's forward is the user's: not PyTorch's, not an activation's, not that of smx's layers."""
    home = getattr(type(module).forward, "__module__", None) or ""
    return home.partition(".")[0] != "torch" and not isinstance(module, (*types, Selective, Mixed))


def modularize(module: nn.Module, types: Types) -> tuple[dict[str, str], set[str]]:
    """Give every activation in `module` a module of its own. None of them is in place any more, and no Dropout is.

    The network computes the same function, unless a value that an activation overwrote is read elsewhere: through a
    view, or by the forward that called the block. Only a run can tell.

    1. An activation module that is registered under several paths becomes one module for each path.
    2. A function that is an attribute (`self.act = F.relu`, as in `nn.TransformerEncoderLayer`) becomes a module.
    3. In each forward, the second call of a module `act` becomes a call of a new module `act_1`, the third of `act_2`;
       calls of functions become calls of new modules `relu`, `relu_1`, ... of the module that has the forward; a
       formula such as x * sigmoid(x) becomes one of a module `silu`. Where an activation is in place, later uses of its
       input become uses of its output.

    Args:
        module: changed in place.
        types: the modules that are activations; a function counts as its module in `ACTIVATIONS`.

    Returns:
        The reasons why forwards were not rewritten, by module path. The paths of activations that were formulas.
    """
    _unshare(module, types)
    for part in list(module.modules()):
        for key, value in list(vars(part).items()):
            if name := activation_name(value, types):
                setattr(part, key, ACTIVATIONS[name]().train(part.training))
    refusals: dict[str, str] = {}
    written_out: set[str] = set()
    used: set[nn.Module] = set()
    for path, part in list(module.named_modules()):
        if has_own_forward(part, types):
            try:
                uses = _rewrite(part, types, used)
            except UntraceableError as error:
                refusals[path] = str(error)
            else:
                written_out |= {f"{path}.{use.path}".strip(".") for use in uses if use.formula}
    for part in module.modules():
        if isinstance(part, types) and getattr(part, "inplace", False):
            setattr(part, "inplace", False)  # noqa: B010
        elif isinstance(part, nn.modules.dropout._DropoutNd):
            part.inplace = False  # it may follow an activation, whose result is needed for the backward pass
    heed_activations(module)
    return refusals, written_out


def heed_activations(module: nn.Module) -> None:
    """Make PyTorch's transformer layers call their activation module, after it was replaced."""
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer) and isinstance(part.activation, Selective | Mixed):
            part.activation_relu_or_gelu = 0  # otherwise its fast path computes ReLU or GELU
        elif isinstance(part, nn.TransformerDecoderLayer) and isinstance(part.activation, nn.Module):
            vars(part)["activation"] = part.activation  # without it, a copy or a pickle computes ReLU
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoder):
            part.use_nested_tensor &= all(getattr(layer, "activation_relu_or_gelu", 1) for layer in part.layers)


def _unshare(module: nn.Module, types: Types) -> None:
    seen: set[nn.Module] = set()
    for parent in list(module.modules()):
        for key, child in parent._modules.items():
            if isinstance(child, types) and not isinstance(child, nn.PReLU):  # whose weights may be shared
                if child in seen:
                    parent._modules[key] = copy.deepcopy(child)
                seen.add(child)


class _Use(NamedTuple):
    """An activation in a traced forward: its node, and the module that will compute it; new or not."""

    node: fx.Node
    path: str
    module: nn.Module
    new: bool
    formula: formulas.Formula | None = None

    @property
    def inplace(self) -> bool:
        """Whether it overwrites its input, by the argument `inplace` or by the function's name, as in `relu_`."""
        if self.formula:
            return False
        function = str(getattr(self.node.target, "__name__", self.node.target))
        return bool(getattr(self.module, "inplace", False)) or (self.node.op != "call_module" and function[-1] == "_")

    @property
    def needs_rewriting(self) -> bool:
        """Whether the call must be rewritten, since replacing the module under its path is not enough."""
        return self.new or bool(self.node.kwargs) or (self.inplace and any(user > self.node for user in self.z.users))

    @property
    def z(self) -> fx.Node:
        """The input of the activation."""
        if self.formula:
            return self.formula.z
        z = self.node.args[0] if self.node.args else self.node.kwargs["input"]
        assert isinstance(z, fx.Node)
        return z


def _rewrite(part: nn.Module, types: Types, used: set[nn.Module]) -> list[_Use]:
    """Rewrite the forward of `part` if that is needed; return its activations, and add their modules to `used`."""
    uses = list(_uses(part, trace(part), types, used))
    if any(use.needs_rewriting for use in uses):
        graphs = trace_in_both_modes(part)
        uses, others = by_mode = [list(_uses(part, graph, types, used)) for graph in graphs]
        if [(use.path, repr(use.module)) for use in uses] != [(use.path, repr(use.module)) for use in others]:
            raise UntraceableError("its activations differ between train() and eval()")
        for graph, in_mode in zip(graphs, by_mode, strict=True):
            for use in in_mode:
                _call_module(graph, use)
        for use in uses:
            if use.new:
                parent, _, name = use.path.rpartition(".")
                part.get_submodule(parent).add_module(name, use.module.train(part.training))
        set_forward(part, *graphs)
    used.update(use.module for use in uses)
    return uses


def _uses(part: nn.Module, graph: fx.Graph, types: Types, used: set[nn.Module]) -> Iterator[_Use]:
    taken = set(used)
    paths: set[str] = set()

    def fresh(path: str) -> str:
        holder = part.get_submodule(path.rpartition(".")[0])
        numbered = chain([path], (f"{path}_{i}" for i in count(1)))
        return next(p for p in numbered if p not in paths and not hasattr(holder, p.rpartition(".")[2]))

    whole = {formula.end: formula for formula in formulas.find(part, graph, types)}
    inner = {node for formula in whole.values() for node in formula.inner}
    for node in graph.nodes:
        formula = whole.get(node)
        if node in inner:
            continue
        if formula:
            path, module, new = fresh(formula.name), formula.module, True
        elif node.op == "call_module":
            called = part.get_submodule(str(node.target))
            if not isinstance(called, types) or isinstance(called, nn.PReLU):
                continue
            path, module, new = str(node.target), called, called in taken
            if new:
                path, module = fresh(path), copy.deepcopy(called)
            if name_of(called) in ACTIVATIONS and (node.args[1:] or node.kwargs.keys() - {"input"}):
                # It was a function, and is called as one.
                module, new = as_module(name_of(called), node.args, node.kwargs), True
            taken.add(called)
        elif (name := activation_name(_function_of(node), types)) and name != "prelu":
            path, module, new = fresh(name), as_module(name, node.args, node.kwargs), True
        else:
            continue
        taken.add(module)
        paths.add(path)
        yield _Use(node, path, module, new, formula)


def _function_of(node: fx.Node) -> Any:
    if node.op == "call_method":
        return getattr(Tensor, str(node.target), None)
    return node.target if node.op == "call_function" else None


def as_module(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
    """Make the module that computes the same as a call of a function; both have the same names of arguments.

    Raises:
        UntraceableError: an argument beside the input is computed.
    """
    given, (args, kwargs) = (args, kwargs), (args[1:], dict(kwargs))
    with suppress(TypeError, ValueError):  # functions in C have no signature; the modules take the same order
        args, kwargs = (), inspect.signature(getattr(F, name)).bind(*given[0], **given[1]).arguments
    kwargs = {key: value for key, value in kwargs.items() if key not in ("input", "training")}
    if any(isinstance(value, fx.Node) for value in (*args, *kwargs.values())):
        raise UntraceableError(f"the arguments of {name} are computed, or parameters")
    return ACTIVATIONS[name](*args, **kwargs)


def _call_module(graph: fx.Graph, use: _Use) -> None:
    z = use.z
    with graph.inserting_after(use.node):
        call = graph.call_module(use.path, (z,))
    use.node.replace_all_uses_with(call)
    if use.inplace:
        z.replace_all_uses_with(call, delete_user_cb=lambda user: user > call)
    graph.erase_node(use.node)
    for node in reversed(list(graph.nodes)) if use.formula else ():
        if use.formula and node in use.formula.inner:
            graph.erase_node(node)
