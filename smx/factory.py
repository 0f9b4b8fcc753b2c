"""A network of the user's own, named `module:factory`: found, checked and called.

Importing a module runs it. A `model.pt` names the factory of its network; it is imported only if the user trusts it
(`--trust-code`), from the current folder or the Python path. Even then three things are not imported: a module with the
name of one of Python's own, a module in Python's folders such as `site-packages`, and `smx`. An editable install lies
elsewhere and counts as the user's own. Only a function or `nn.Module` class that the named module itself defines is
called, so that no file can reach `os.system` through `my_module:system`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from smx.calling import evaluating
from smx.errors import InputError, SmxError, reason

ENDS = (Exception, SystemExit, GeneratorExit)
"""How a user's code may end. A KeyboardInterrupt is the user's own."""

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""`module:factory`, the module with dots if it lies in a package."""


def make_network(name: str, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Call the factory `name` and try its network on an `example`.

    The factory is called with those of the keywords `input_shape` (a tuple, of one example) and `num_classes` that it
    takes; one that takes neither always makes the same network.

    Raises:
        InputError: the factory can't be found, is not the user's own, fails, or makes no module that puts out
            (B, num_classes) for (B, *input_shape).
    """
    shape = tuple(map(int, input_shape))
    before = torch.get_default_dtype(), torch.get_default_device()
    factory = find(name)
    arguments = _taken(name, factory, {"input_shape": shape, "num_classes": num_classes})
    try:
        with _current_folder_first():
            network = factory(**arguments)
    except ENDS as error:
        raise InputError(f"{name} failed ({reason(error)})") from error
    if before != (torch.get_default_dtype(), torch.get_default_device()):
        torch.set_default_dtype(before[0])
        torch.set_default_device(None if before[1].type == "cpu" else before[1])  # "cpu" would slow every call
        raise InputError(f"{name} sets PyTorch's default dtype or device, for all that runs after it; leave them")
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} must return an nn.Module, got {type(network).__name__}")
    _try(name, network, shape, num_classes)
    return network


def find(name: str) -> Callable[..., Any]:
    """Import the module and return the factory; modules are found as `python -m` finds them.

    Raises:
        InputError: it can't be found or imported, or is not the user's own; see the head of this file.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"expected module:factory, such as my_network:Net, got {name!r}")
    module_name, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    with _current_folder_first():
        _require_own(name, module_name.partition(".")[0])
        try:
            module = importlib.import_module(module_name)
        except ENDS as error:
            raise InputError(f"{name}: {module_name} can't be imported ({reason(error)})") from error
    factory: Any = getattr(module, attribute, None)
    is_module = inspect.isclass(factory) and issubclass(factory, nn.Module)
    if not (is_module or inspect.isfunction(factory)) or factory.__module__ != module_name:
        raise InputError(
            f"{name} must be a function or an nn.Module class that {module_name} itself defines,"
            f" got {'nothing of that name' if factory is None else repr(factory)}"
        )
    return cast("Callable[..., Any]", factory)


def example(input_shape: Sequence[int]) -> Tensor:
    """Return two examples to try a network on: always the same values from 0 to 1, as zeros would hide faults."""
    return torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Let modules be found as `python -m` finds them, for as long as the user's own code is imported or called."""
    folder = str(Path.cwd())
    added = not {"", folder} & set(sys.path)
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _require_own(name: str, package: str) -> None:
    """Refuse modules that are not the user's own, without importing them."""
    if package in sys.stdlib_module_names:
        raise InputError(f"{name}: {package} is the name of a module of Python's own; give yours another one")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that was made in memory
        spec = None
    if spec is None or package == "__main__":
        raise InputError(
            f"{name}: there is no module {package}; run smx in the folder that holds it, or add that to PYTHONPATH"
        )
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin or ""]]
    library = Path(sysconfig.get_path("stdlib")).resolve()
    installed = {"site-packages", "dist-packages"}
    if package == "smx" or any(installed & set(place.parts) or place.is_relative_to(library) for place in places):
        raise InputError(
            f"{name}: {package} is an installed package; write a module of your own with a function that calls it"
        )


def _taken(name: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that the factory takes: as many as it can be called with."""
    shape, classes = ({key: value} for key, value in arguments.items())
    for taken in (arguments, shape, classes, {}):
        try:
            inspect.signature(factory).bind(**taken)
        except TypeError as error:
            reason = error
        else:
            return taken
    raise InputError(f"{name} must be callable with {' and '.join(arguments)}, or one of them, or nothing: {reason}")


def _try(name: str, network: nn.Module, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Run the network once in `eval()`, which also gives lazy layers their shape, and a copy of it in `train()`."""
    x = example(input_shape)
    try:
        with torch.no_grad(), evaluating(network):
            outputs = {"eval": network(x)}
            with torch.random.fork_rng(devices=()):  # what Dropout draws here is drawn for nothing
                outputs["train"] = copy.deepcopy(network).train()(x)
    except ENDS as error:
        raise InputError(f"{name} can't take examples of shape {input_shape} ({reason(error)})") from error
    for mode, output in outputs.items():
        if not isinstance(output, Tensor) or output.shape != (2, num_classes):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"{name} must put out {num_classes} scores an example, one for each class: (2, {num_classes})"
                f" for two examples of shape {input_shape}, got {got} in {mode}()"
            )
        if not output.is_floating_point():
            raise InputError(f"{name} must put out scores in floating numbers, got {output.dtype} in {mode}()")
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if not weights or not all(map(torch.is_floating_point, weights)):
        raise InputError(f"{name} must have parameters to train, all of floating numbers")


def require_trainable(name: str, network: nn.Module, input_shape: Sequence[int]) -> None:
    """Take one step of training with a copy of a network, on three examples.

    Raises:
        InputError: it fails, or has gradients that no optimiser here takes.
    """
    x = example(input_shape)[[0, 1, 1]]
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=()):
            trial = copy.deepcopy(network).train()
            functional.cross_entropy(trial(x), torch.zeros(3, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
        if any(weight.grad is not None and weight.grad.is_sparse for weight in trial.parameters()):
            raise ValueError("it has sparse gradients, which Adam does not take")
    except ENDS as error:
        raise InputError(f"{name} can't be trained ({reason(error)})") from error


@contextmanager
def naming_failures(name: str) -> Iterator[None]:
    """Say in one line where the user's module fails, or leaves, in what runs meanwhile; other errors pass.

    Raises:
        SmxError: it failed.
    """
    try:
        yield
    except ENDS as error:
        own = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        inside = any(frame.filename == own for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SmxError) or not inside:
            raise
        raise SmxError(f"{name} failed ({reason(error)})") from error
