"""`model.pt`: a trained and committed network with all that is needed to use it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from smx import __version__, torchfile
from smx.activations import resolve_pool
from smx.architecture import FACTORY, PROGRAM, Architecture
from smx.arrays import as_taken
from smx.errors import InputError, one_line
from smx.layers import Mixed, Selective
from smx.preprocessing import Normalize, normalise
from smx.program import Program
from smx.schema import Plain, Pool, Positive, Shape, Text, checked
from smx.wrappers import not_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from smx.data.dataset import Dataset

FORMAT = "smx-model"
RAW = "uint8"
"""The dtype of networks that take raw values by themselves."""
_CHOICE = ".choice"


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """The content of `model.pt`.

    Attributes:
        architecture: of the network.
        pool: names of the candidate activations.
        choices: for each mixed layer, by its module path, int64 (N,).
        weights: the state dict without the choices.
        data: of the data set `name`, `sample_shape`, `maximum` (raw values are divided by it) and `class_names`;
            `signed` where some values are below 0.
        training: the settings of the run.
        metrics: accuracies and best epochs of each phase.
        trusted: whether code of the user's that the architecture names may be imported and run.
    """

    architecture: Architecture
    pool: tuple[str, ...]
    choices: dict[str, Tensor] = field(repr=False)
    weights: dict[str, Tensor] = field(repr=False)
    data: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict, repr=False)
    metrics: dict[str, Any] = field(default_factory=dict)
    trusted: bool = True

    def build(self, *, raw: bool = False, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the network in `eval()`: (B, *input_shape) of `dtype`, or `raw` uint8 (B, *sample_shape) -> logits.

        A network that takes uint8 itself is as it is.

        Raises:
            InputError: `raw` is asked for, but the data set's values are no integers up to 255; or a user's own network
                is not trusted, can't be made, or is no longer the one that was trained.
        """
        model = self._network().eval().to(dtype)
        if not raw or self.architecture.dtype == RAW:
            return model
        maximum, signed = self.data["maximum"], self.data.get("signed")
        if signed or not 1 < maximum <= 255:
            why = "some are below 0" if signed else f"divided by {maximum:g} in training"
            raise InputError(
                f"the values of {self.data['name'] or 'the data'} are no whole numbers from 0 to 255 ({why}), so the"
                " model can't take them as uint8"
            )
        first = ("normalize", Normalize(maximum, self.architecture.input_shape, dtype))
        # Our own are plain chains, and keep the names of their layers.
        rest = [("network", model)] if self.architecture.name else model.named_children()
        return nn.Sequential(OrderedDict([first, *rest])).eval()

    def example_input(self, *, raw: bool = False) -> Tensor:
        """Return one example (1, *) of the shape and dtype that the network takes: random, or zeros if whole numbers.

        With `raw` these are random pixels.
        """
        if not raw or self.architecture.dtype == RAW:
            shape, dtype = (1, *self.architecture.input_shape), getattr(torch, self.architecture.dtype)
            if not dtype.is_floating_point:
                return torch.zeros(shape, dtype=dtype)
            return torch.rand(
                shape, generator=torch.Generator().manual_seed(0), dtype=dtype
            )  # some divide by their norm
        shape = (1, *self.data["sample_shape"])
        random = torch.Generator().manual_seed(0)
        return torch.randint(int(self.data["maximum"]) + 1, shape, dtype=torch.uint8, generator=random)

    def examples(self, dataset: Dataset, x: NDArray[Any], *, raw: bool = False) -> NDArray[Any]:
        """Return raw examples (B, *) of a data set as the network takes them, float32, or with `raw` as uint8.

        Their channels may come first or last.

        Raises:
            InputError: the examples have more or fewer values, or with `raw` are no whole numbers up to 255.
        """
        if raw and not (1 < dataset.maximum <= 255 and x.min(initial=0) >= 0):
            raise InputError(f"the values of {dataset.name} are no whole numbers from 0 to 255, which the model takes")
        try:
            own = as_taken(x, self.data["sample_shape"])
            if raw:
                return own.astype("uint8")
            return normalise(torch.from_numpy(own), dataset.maximum, self.architecture.input_shape).contiguous().numpy()
        except InputError as error:
            raise InputError(f"{dataset.name} does not fit the model: {error}") from error

    def description(self) -> dict[str, Any]:
        """Return what the ONNX metadata say of the model: the `describe` of `smx.export.export_onnx`."""
        return {
            "architecture": str(self.architecture),
            "pool": self.pool,
            **{name: self.data[name] for name in ("class_names", "sample_shape", "maximum")},
        }

    def _network(self) -> nn.Module:
        if self.architecture.kind == FACTORY and not self.trusted:
            raise InputError(f"the model names code of yours, {self.architecture.name}; give --trust-code to run it")
        if self.architecture.kind != PROGRAM:
            network = self.architecture.mixed(self.pool)
            choices = {path + _CHOICE: choice for path, choice in self.choices.items()}
            self.architecture.load(network, {**self.weights, **choices})
            return network
        program = self.architecture.program
        layers: dict[str, nn.Module] = {}
        for path, arguments in program["layers"].items():
            prefix = f"{path}."
            own = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
            if path in self.choices:
                layers[path] = Mixed(self.choices[path], self.pool, dim=arguments["dim"])
                own["choice"] = self.choices[path]
            else:
                layers[path] = Selective(**{"num_features": len(own["logits"]), "pool": self.pool, **arguments})
            layers[path].load_state_dict(own)
        return Program(program, self.weights, layers)


def split_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the choices of a state dict, by the module path of their `Mixed` layer, and the rest: the weights."""
    choices = {key.removesuffix(_CHOICE): value for key, value in state.items() if key.endswith(_CHOICE)}
    return choices, {key: value for key, value in state.items() if not key.endswith(_CHOICE)}


def save_model(path: Path, model: SavedModel) -> None:
    """Write `model.pt`, atomically; equal models give equal files.

    Raises:
        InputError: it has what `load_model` would refuse; or the path can't be written to.
    """
    plain = {name: getattr(model, name) for name in ("pool", "data", "training", "metrics")}
    plain = {"smx_version": __version__, "architecture": model.architecture.to_dict(), **plain}
    # Through JSON, because pickle's output depends on which equal strings happen to be the same object.
    try:
        plain = json.loads(json.dumps(plain, ensure_ascii=False).encode())
        content = {**plain, "choices": model.choices, "weights": model.weights}
        Architecture.from_dict(checked(content, _Content).architecture)
    except (InputError, UnicodeEncodeError) as error:
        raise InputError(f"{path} is not written, since it could not be read again: {one_line(error)}") from error
    torchfile.save(path, FORMAT, content)


def load_model(path: Path, *, trust_code: bool = False) -> SavedModel:
    """Read `model.pt` and check that a network can be built of it.

    No code in the file is run. The file may name a factory of the user's; its module is imported only with
    `trust_code`, and as far as `smx.factory` lets it. Otherwise everything but `build` works.

    Raises:
        InputError: not a model that `smx train` or `smx.save` wrote, damaged, or with weights that are not finite; or a
            user's own network can't be made, or is no longer the one that was trained.
    """
    content = torchfile.load(path, FORMAT)
    try:
        found = checked(content, _Content)
        model = SavedModel(
            architecture=Architecture.from_dict(found.architecture),
            pool=found.pool,
            choices=found.choices,
            weights=found.weights,
            data=msgspec.structs.asdict(found.data),
            training=found.training,
            metrics=found.metrics,
            trusted=trust_code,
        )
        resolve_pool(model.pool)
        for choice in model.choices.values():
            Mixed(choice, model.pool)  # refuses what is no choice
        declared, there = model.architecture.parameters(), sum(weight.numel() for weight in model.weights.values())
        if declared > there:  # before memory is taken for them
            raise InputError(f"{model.architecture} has {declared} parameters, and the file {there}")
        trained = None
        if trust_code or model.architecture.kind != FACTORY:
            trained = {name for name, _ in model.build().named_parameters()}
        infinite = _not_finite(model, trained)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise InputError(f"{path} can't be built: {shorten(one_line(error), 300)}") from error
    for name, bad in infinite.items():
        if bad:
            values = model.weights[name].numel()
            raise InputError(f"{path}: {name} has {bad} of {values} values that are not finite; train it again")
    return model


def _not_finite(model: SavedModel, trained: Container[str] | None) -> dict[str, int]:
    """Count the values of each weight that are not finite; of code that does not run, any may be a buffer.

    `trained` are the parameters of the network that was built, if it was; a program has its own list.
    """
    program = model.architecture.program
    buffers = {*program.get("tensors", {}).values()} - {*program.get("parameters", ())}

    def is_parameter(name: str) -> bool:
        return name not in buffers if program else trained is not None and name in trained

    return {name: not_finite(name, weight, parameter=is_parameter(name)) for name, weight in model.weights.items()}


class _Data(msgspec.Struct):
    """What the file says of the data set."""

    name: Text
    sample_shape: Shape
    maximum: Positive
    class_names: tuple[Text, ...]
    signed: bool = False


class _Content(msgspec.Struct):
    """What the file holds, beside its format and version."""

    architecture: dict[str, Any]
    pool: Pool
    choices: dict[str, Tensor]
    weights: dict[str, Tensor]
    data: _Data
    training: dict[str, Plain | list[Plain]]
    metrics: dict[str, dict[str, int | float | None]]
