"""`model.pt`: a trained and committed network with all that is needed to use it."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smx import __version__, torchfile
from smx.activations import resolve_pool
from smx.errors import InputError, one_line
from smx.layers import Mixed
from smx.models import Normalize, mlp

FORMAT = "smx-model"
_CHOICE = ".choice"


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """The content of `model.pt`.

    Attributes:
        sizes: inputs, neurons of each hidden layer, outputs.
        pool: names of the candidate activations.
        choices: for each mixed layer, by its module path, int64 (N,).
        weights: the state dict without the choices.
        data: `name`, `sample_shape`, `maximum` (raw values are divided by it) and `class_names` of the data set.
        training: the settings of the run.
        metrics: accuracies and best epochs of each phase.
    """

    sizes: tuple[int, ...]
    pool: tuple[str, ...]
    choices: dict[str, Tensor]
    weights: dict[str, Tensor]
    data: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The sizes as people write them: `784-512-10`."""
        return "-".join(map(str, self.sizes))

    def build(self, *, raw: bool = False) -> nn.Sequential:
        """Return the network in `eval()`, (B, sizes[0]) float32 -> logits (B, sizes[-1]).

        With `raw` it takes the values as the data set has them, uint8 (B, *sample_shape).

        Raises:
            InputError: `raw` is asked for, but the data set's values are no whole numbers up to 255.
        """
        model = mixed_mlp(self.sizes, self.choices, self.pool)
        choices = {name + _CHOICE: choice for name, choice in self.choices.items()}
        model.load_state_dict({**self.weights, **choices})
        if raw:
            maximum = self.data["maximum"]
            if not 1 < maximum <= 255:
                raise InputError(
                    f"the values of {self.data['name']} are no whole numbers from 0 to 255 (divided by {maximum:g} in"
                    " training), so the model can't take them as uint8"
                )
            model = nn.Sequential(OrderedDict([("normalize", Normalize(maximum)), *model.named_children()]))
        return model.eval()


def mixed_mlp(sizes: tuple[int, ...], choices: dict[str, Tensor], pool: tuple[str, ...]) -> nn.Sequential:
    """Build a multilayer perceptron with fresh weights and the given choices."""
    return mlp(sizes, lambda i: Mixed(choices[f"layer{i}.activation"], pool))


def choices_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the choices that a state dict holds, by the module path of their `Mixed` layer."""
    return {key.removesuffix(_CHOICE): value for key, value in state.items() if key.endswith(_CHOICE)}


def without_choices(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the rest of a state dict: the weights."""
    return {key: value for key, value in state.items() if not key.endswith(_CHOICE)}


def save_model(path: Path, model: SavedModel) -> None:
    """Write `model.pt`, atomically; equal models give equal files."""
    plain = {
        "smx_version": __version__,
        "architecture": {"kind": "mlp", "sizes": model.sizes},
        "pool": model.pool,
        "data": model.data,
        "training": model.training,
        "metrics": model.metrics,
    }
    # Through JSON, because pickle's output depends on which equal strings happen to be the same object.
    plain = json.loads(json.dumps(plain))
    torchfile.save(path, FORMAT, {**plain, "choices": model.choices, "weights": model.weights})


def load_model(path: Path) -> SavedModel:
    """Read `model.pt` and check that a network can be built of it.

    Raises:
        InputError: not a model that `smx train` wrote, damaged, or with weights that are not finite.
    """
    content = torchfile.load(path, FORMAT)
    try:
        data = content["data"]
        model = SavedModel(
            sizes=tuple(map(int, content["architecture"]["sizes"])),
            pool=tuple(content["pool"]),
            choices=dict(content["choices"]),
            weights=dict(content["weights"]),
            data={
                "name": str(data["name"]),
                "sample_shape": tuple(map(int, data["sample_shape"])),
                "maximum": float(data["maximum"]),
                "class_names": tuple(map(str, data["class_names"])),
            },
            training=dict(content["training"]),
            metrics=dict(content["metrics"]),
        )
        resolve_pool(model.pool)
        model.build()
    except KeyError as error:
        raise InputError(f"{path} lacks {error}; it was not written by smx train, or is damaged") from error
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        reason = one_line(error)
        raise InputError(f"{path} can't be built: {reason}") from error
    for name, weight in model.weights.items():
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise InputError(f"{path}: {name} has {bad} of {weight.numel()} values that are not finite; train it again")
    return model
