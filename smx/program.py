"""A network as a list of PyTorch operators: how one of any class is kept in a file, without its code.

`torch.export` traces the network. Its own files are not used, because reading one can run code: PyTorch 2.13 falls back
to `torch.load(weights_only=False)` and passes strings to `sympy.sympify`, which evaluates them. What is kept here is
plain values, and reading them calls nothing but operators of ATen that change no tensor, none of which takes a file
name, and arithmetic on sizes.
"""

from __future__ import annotations

import copy
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from smx import convert
from smx.errors import one_line
from smx.layers import layers_of
from smx.schema import Axis, Positive, Text, Width, checked

Values = dict[str, Any]
"""Plain values: str, int, float, bool and None, in lists and in dicts with str as keys."""

LAYER = "smx_program.layer.default"
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _ARITHMETIC},
    # The operator that tracing leaves of a BatchNorm returns a tuple, and no pass or rule knows it.
    "aten._native_batch_norm_legit_no_training.default": lambda *arguments: (
        torch.ops.aten.batch_norm(*arguments[:5], False, *arguments[5:], False),
    ),
    "aten._weight_norm.default": torch.ops.aten._weight_norm.default,
}
_RESHAPES = ("aten.view.default", "aten._unsafe_view.default")
_ATEN = re.compile(r"aten\.([a-z]\w*|_to_copy)\.(\w+)")
_WORDS = {"approximate", "rounding_mode", "padding", "mode", "reduce", "equation", "indexing"}
"""Arguments of operators that are strings and no file names."""
_CONSTANTS = (torch.dtype, torch.layout, torch.memory_format)


@torch.library.custom_op("smx_program::layer", mutates_args=())
def _layer(z: Tensor, path: str) -> Tensor:
    """Stands for a `Selective` or `Mixed` while the network is traced."""
    return z.clone()


_layer.register_fake(lambda z, path: torch.empty_like(z))


class _Marked(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, z: Tensor) -> Any:
        return _layer(z, self.path)


def capture(
    module: nn.Module, example_input: Tensor, dynamic: Collection[int] = ()
) -> tuple[Values, dict[str, Tensor]]:
    """Trace a network of one tensor (B, *) in `eval()`, with a batch of any length, and other axes that are `dynamic`.

    Its `Selective` and `Mixed` layers become operators of their own.

    Returns:
        The program, as plain values for `Program`, and the tensors that it needs, by name: parameters, buffers and
        constants, but not those of the layers.

    Raises:
        ValueError: the network can't be traced, or uses an operator that a file may not name.
    """
    name, marked = type(module).__name__, copy.deepcopy(module).eval()
    layers: dict[nn.Module, nn.Module] = {part: _Marked(path) for path, part in layers_of(marked).items()}
    x = example_input
    for axis in (0, *dynamic):  # a length of 1 would be a constant
        x = x.index_select(axis, torch.arange(max(2, x.shape[axis]), device=x.device) % x.shape[axis])
    dims = {0: torch.export.Dim("batch")} | dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it would compute ReLU or GELU in the place of a layer
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                convert.replace(marked, layers), (x,), dynamic_shapes=(dims,)
            ).run_decompositions({})  # after which no operator changes a tensor
    except Exception as error:
        if dynamic and ("specialized it to be a constant" in str(error) or "static shape" in str(error)):
            axes = ", ".join(map(str, dynamic))
            raise ValueError(
                f"{name} does not take any length on all of the axes {axes}; leave out those where it does not"
            ) from error
        raise ValueError(f"{name} can't be traced by torch.export: {one_line(error)[:200]}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    signature = exported.graph_signature
    inputs = {spec.arg.name: spec for spec in signature.input_specs}
    taken = [node for node, spec in inputs.items() if spec.kind is InputKind.USER_INPUT]
    if len(taken) != 1 or [spec.kind for spec in signature.output_specs] != [OutputKind.USER_OUTPUT]:
        raise ValueError(f"{name} must take one tensor and return one, and change none of its buffers in eval()")
    used = {
        node.name: str(inputs[node.name].target)
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name not in taken and node.users
    }
    program = {
        "input": taken[0],
        "tensors": used,
        "parameters": [spec.target for spec in inputs.values() if spec.kind is InputKind.PARAMETER],
        "nodes": [
            [node.name, _operator_name(node), _plain(node.args), _plain(node.kwargs)]
            for node in exported.graph.nodes
            if node.op == "call_function" and "assert" not in str(node.target)
        ],
        "output": signature.output_specs[0].arg.name,
    }
    tensors = {**exported.state_dict, **exported.constants}
    return program, {target: tensors[target].detach() for target in used.values()}


class Program(nn.Module):
    """A network that runs what `capture` returned: the operators, one after another.

    Parameters, buffers and layers are at the paths that they had in the network, so what else it has begins with
    `_program_`, as nothing there does.

    Args:
        program: plain values. They may come from a file that somebody else wrote.
        tensors: by name.
        layers: the `Selective` and `Mixed` layers, by path.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: the program is damaged, or names an operator that is not allowed.
    """

    def __init__(self, program: Values, tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        _check(checked(program, _Content))
        self._program_input, self._program_output = program["input"], program["output"]
        self._program_tensors = dict(program["tensors"])
        self._program_nodes = [
            (node, self._program_layer if name == LAYER else _operator(name), list(arguments), dict(options))
            for node, name, arguments, options in program["nodes"]
        ]
        for target in self._program_tensors.values():
            owner, name = self._program_owner(target)
            if target in program["parameters"]:
                owner.register_parameter(name, nn.Parameter(tensors[target]))
            else:
                owner.register_buffer(name, tensors[target])
        for path, layer in layers.items():
            owner, name = self._program_owner(path)
            owner.add_module(name, layer)

    def _program_owner(self, path: str) -> tuple[nn.Module, str]:
        """Return the module that holds what has this path, made where it is missing, and the last word of the path."""
        owner: nn.Module = self
        *parents, name = path.split(".")
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, nn.Module())
            owner = owner.get_submodule(parent)
        return owner, name

    def _program_layer(self, z: Tensor, path: str) -> Any:
        return self.get_submodule(path)(z)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network, (B, *) as in training -> its output."""
        values: dict[str, Any] = {self._program_input: x}
        for node, target in self._program_tensors.items():
            owner, name = self._program_owner(target)
            values[node] = getattr(owner, name)
        dtype = next((value.dtype for value in values.values() if value.is_floating_point()), torch.float32)

        def read(value: Any) -> Any:
            if isinstance(value, list):
                return [read(entry) for entry in value]
            if not isinstance(value, dict):
                return value
            ((kind, word),) = value.items()
            if kind == "node":
                return values[word]
            if kind == "device":
                return x.device
            found = getattr(torch, word)
            return dtype if found == torch.float32 else found

        for node, function, arguments, options in self._program_nodes:
            values[node] = function(*read(arguments), **{key: read(value) for key, value in options.items()})
        output: Tensor = values[self._program_output]
        return output


class _Layer(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a `Mixed` or `Selective`."""

    dim: Axis
    temperature: Positive = 1.0
    selection: Text = ""
    num_features: Width = 1
    per: Width = 1


class _Left(msgspec.Struct, forbid_unknown_fields=True):
    """An activation that `select` left, and why."""

    path: Text
    activation: Text
    reason: Text


class _Content(msgspec.Struct):
    """What a program holds; the arguments of its operators are looked at by `_check`."""

    input: Text
    tensors: dict[str, Text]
    parameters: list[Text]
    nodes: list[tuple[Text, Text, list[Any], dict[str, Any]]]
    output: Text
    layers: dict[str, _Layer] = {}
    left: list[_Left] = []


def _check(program: _Content) -> None:
    """Raise ValueError unless every argument is a plain value, a constant of PyTorch's, or was computed before."""
    known = {program.input, *program.tensors}

    def check(value: object) -> None:
        if isinstance(value, list):
            for entry in value:
                check(entry)
        elif isinstance(value, dict):
            kind, word = next(iter(value.items())) if len(value) == 1 else ("", "")
            if kind == "node" and word in known:
                return
            if kind == "torch" and isinstance(word, str):
                if not isinstance(getattr(torch, word, None), _CONSTANTS):
                    raise ValueError(f"{word!r} is no dtype, layout or memory format of PyTorch's")
            elif kind != "device":
                raise ValueError(f"an operator can't take {value!r}")

    for name, _, arguments, options in program.nodes:
        check([arguments, *options.values()])
        known.add(name)
    if program.output not in known:
        raise ValueError(f"the program does not compute its output {program.output!r}")


def _operator_name(node: fx.Node) -> str:
    """Return the operator's name in a file, if a file may name it."""
    target: Any = node.target
    name = str(target) if isinstance(target, torch._ops.OpOverload) else f"operator.{target.__name__}"
    if name not in (LAYER, *_RESHAPES):
        _operator(name)
    # What can be viewed depends on strides, which operators choose differently on other devices.
    return "aten.reshape.default" if name in _RESHAPES else name


def _operator(name: str) -> Callable[..., Any]:
    """Return an operator that a file may name; raise ValueError for any other."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if found := _ATEN.fullmatch(name):
        function: Any = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if isinstance(function, torch._ops.OpOverload):
            schema = function._schema
            words = {argument.name for argument in schema.arguments if "str" in str(argument.type)}
            if not schema.is_mutable and words <= _WORDS:
                return function
    raise ValueError(f"a saved network can't use the operator {name}")


def _plain(value: Any) -> Any:
    """Return an argument as plain values: `{"node": name}` for a result, `{"torch": name}` for a dtype, ..."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, torch.device):
        return {"device": ""}  # that of the input
    if isinstance(value, _CONSTANTS):
        return {"torch": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a saved network can't hold the argument {value!r}")
