"""Rewrite the source of forwards that torch.fx can't follow: those that branch, loop, or read shapes.

A run says where in the source an activation is called. There, `F.relu(x)` becomes `self.relu(x)`, with a new module
`relu`, and nothing else of the forward changes: it follows data and shapes as before.
"""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, count
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from smx.convert.modularize import as_module
from smx.convert.recording import Place, Site
from smx.convert.tracing import Rewritten, UntraceableError


def rewrite(module: nn.Module, sites: Mapping[str, Site], refused: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Give activations in forwards that torch.fx refused a module of their own.

    Args:
        module: changed in place.
        sites: the activations of a run of it.
        refused: why torch.fx refused forwards, by the paths of their modules.

    Returns:
        Why calls were not replaced, by the path of the forward's module and the name of the activation.
    """
    reasons: dict[tuple[str, str], str] = {}
    for path, reason in refused.items():
        own = [site for site in sites.values() if site.caller == path and (not site.module or site.shared)]
        if own:
            try:
                called = Counter(x for site in sites.values() if site.caller == path for x in set(site.places))
                several = {place for place, activations in called.items() if activations > 1}
                left = _rewrite(module.get_submodule(path), own, several)
            except UntraceableError as error:
                left = {site.activation: str(error) for site in own}
            brief = reason.partition(". ")[0]
            reasons |= {(path, name): f"{brief}; {why}" for name, why in left.items()}
    return reasons


def _rewrite(part: nn.Module, sites: list[Site], several: Collection[Place]) -> dict[str, str]:
    """Rewrite the methods of a module that call activations; return why activations of some names stay.

    `several` are the places that call several activations in turn, as `act(x)` in a loop does.
    """
    methods = {
        name: method
        for name in dir(type(part))
        if isinstance(method := inspect.getattr_static(type(part), name), FunctionType)
        and name not in (*vars(part), "__init__")  # whose lambdas are made already
    }
    homes = {code: name for name, method in methods.items() for code in _codes(method.__code__)}
    left: dict[str, str] = {}
    calls: dict[str, dict[Any, tuple[str, Site]]] = {}
    taken: set[str] = set()
    for site in sites:
        for place in list(dict.fromkeys(site.places))[site.module :]:  # the first call of a module keeps it
            if place.code not in homes or place in several:
                left[site.activation] = _why_it_stays(part, site, place, place in several)
                continue
            name = site.path.rpartition(".")[2] if site.module else site.activation
            numbered = chain([name], (f"{name}_{i}" for i in count(1)))
            free = next(key for key in numbered if key not in taken and not hasattr(part, key))
            taken.add(free)
            calls.setdefault(homes[place.code], {})[place.lines] = free, site
    sources: dict[str, str] = {}
    new: dict[str, nn.Module] = {}
    for name, found in calls.items():
        editor = _Editor(part, found)
        sources[name] = ast.unparse(ast.fix_missing_locations(editor.visit(_tree(methods[name]))))
        left |= editor.left
        new |= editor.new
    for name, child in new.items():
        part.add_module(name, child.train(part.training))
    if sources:
        part.__class__ = _Edited(type(part), sources).as_class
    return left


def _why_it_stays(part: nn.Module, site: Site, place: Place, several: bool) -> str:
    home, _, method = place.code.co_qualname.rpartition(".")
    if several:
        return f"one line calls {site.activation} and other activations"
    for kind in type(part).__mro__:
        if home == kind.__qualname__:
            if inspect.getattr_static(type(part), method, None) is not vars(kind).get(method):
                return f"{site.activation} is called in {home}.{method}, by way of super()"
            return f"its {method} has a decorator"
    return f"{site.activation} is called in {place.code.co_qualname}"


class _Editor(ast.NodeTransformer):
    """Turns calls, by their lines and columns, into calls of new modules.

    Attributes:
        new: the modules that it made, by their names.
        left: why calls stay, by the names of their activations.
    """

    def __init__(self, part: nn.Module, calls: Mapping[Any, tuple[str, Site]]) -> None:
        self.part = part
        self.calls = calls
        self.new: dict[str, nn.Module] = {}
        self.left: dict[str, str] = {}
        self._self = ""
        self._rebound: set[ast.AST] = set()  # calls whose input no later line can read

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        """Note how the forward names its module: the first class holds it, see `_tree`."""
        if not self._self:
            method = next(each for each in node.body if isinstance(each, ast.FunctionDef))
            names = method.args.posonlyargs + method.args.args
            if not names:
                raise UntraceableError("it has no name for its module")
            self._self = names[0].arg
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Note `x = F.relu(x, inplace=True)`."""
        inputs = node.value.args[:1] if isinstance(node.value, ast.Call) else []
        if [ast.unparse(target) for target in node.targets] == [ast.unparse(x) for x in inputs]:
            self._rebound.add(node.value)
        return self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> Any:
        """Note `return F.relu(x, inplace=True)`."""
        if node.value is not None:
            self._rebound.add(node.value)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        """Replace a call."""
        found = self.calls.get((node.lineno, node.end_lineno, node.col_offset, node.end_col_offset))
        rebound = node in self._rebound
        self.generic_visit(node)
        if found is None:
            return node
        name, site = found
        try:
            z, self.new[name] = self._made(node, site, rebound)
        except UntraceableError as error:
            self.left[site.activation] = str(error)
            return node
        function = ast.Attribute(ast.Name(self._self, ast.Load()), name, ast.Load())
        return ast.copy_location(ast.Call(function, [z], []), node)

    def _made(self, node: ast.Call, site: Site, rebound: bool) -> tuple[ast.expr, nn.Module]:
        """Return the input of a call, and a module that computes the same."""
        keywords = {keyword.arg or "**": keyword.value for keyword in node.keywords}
        z = node.args[0] if node.args else keywords.pop("input", None)
        if site.module and z is not None:
            return z, copy.deepcopy(self.part.get_submodule(site.path.removeprefix(f"{site.caller}.")))
        if z is None and isinstance(node.func, ast.Attribute):
            z = node.func.value  # x.relu()
        if z is None or isinstance(z, ast.Constant | ast.Starred):
            raise UntraceableError(f"the arguments of {site.activation} are not understood")
        try:
            values = [ast.literal_eval(argument) for argument in node.args[1:]]
            options = {key: ast.literal_eval(value) for key, value in keywords.items()}
        except ValueError:
            raise UntraceableError(f"the arguments of {site.activation} are computed") from None
        in_place = options.get("inplace", False) or ast.unparse(node.func).endswith("_")
        if in_place and not rebound and isinstance(z, ast.Name | ast.Attribute | ast.Subscript):
            raise UntraceableError(f"{site.activation} is in place")
        return z, as_module(site.activation, (None, *values), options)


class _Edited(Rewritten):
    """Methods with other source."""

    def __init__(self, base: type[nn.Module], sources: dict[str, str]) -> None:
        super().__init__(base)
        self.sources = sources

    def make(self) -> dict[str, Any]:
        """Return the methods; globals, defaults and variables of outer functions are those of the old ones."""
        return {name: self._made(getattr(self.base, name), source) for name, source in self.sources.items()}

    def _made(self, old: Any, source: str) -> FunctionType:
        code = next(code for code in _codes(compile(source, f"<smx: {old.__qualname__}>", "exec")) if _is(code, old))
        return _with_code(old, code)


def _with_code(old: Any, code: CodeType) -> FunctionType:
    cells = dict(zip(old.__code__.co_freevars, old.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    function = FunctionType(code, old.__globals__, old.__name__, old.__defaults__, closure)
    function.__kwdefaults__ = old.__kwdefaults__
    return function


def _tree(forward: FunctionType) -> ast.Module:
    """Return the source of a method, within a class of its name and a function with the variables of outer ones."""
    code = forward.__code__
    lines = linecache.getlines(inspect.getsourcefile(forward) or "", forward.__globals__)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        raise UntraceableError("its source can't be read") from None
    defined = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == code.co_name)
    node = next((node for node in defined if node.lineno == code.co_firstlineno), None)
    if node is None or node.decorator_list:
        raise UntraceableError("its source is not found")
    if all(other.co_code != code.co_code for other in _codes(compile(tree, "<smx>", "exec")) if _is(other, forward)):
        raise UntraceableError("its source has changed since it was imported")
    node.returns = None
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    names = forward.__qualname__.split(".")
    holder = ast.parse(f"class {names[-2] if len(names) > 1 else 'Holder'}:\n    pass")
    holder.body[0].body = [node]  # type: ignore[attr-defined]
    outer = [name for name in code.co_freevars if name != "__class__"]
    if outer:
        around = ast.parse(f"def outer({', '.join(outer)}):\n    pass")
        around.body[0].body = holder.body  # type: ignore[attr-defined]
        holder = around
    return holder


def _is(code: CodeType, function: Any) -> bool:
    return code.co_qualname.endswith(function.__qualname__.rpartition("<locals>.")[2])


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
