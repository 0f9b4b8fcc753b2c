"""Random multilayer perceptrons with random activations, for the benchmarks of prices and of `fastest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smx.paper import PAPER_POOL

if TYPE_CHECKING:
    from torch import nn

INPUTS, OUTPUTS = 784, 10
WIDTHS = (64, 128, 256, 384, 512, 768)
DEEPEST = 6
ALIKE = 0.25
"""So many of the layers have one activation."""


@dataclass(frozen=True)
class Drawn:
    """A network: for each hidden layer, how many neurons have each activation."""

    layers: tuple[dict[str, int], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, neurons of each hidden layer, outputs."""
        return (INPUTS, *(sum(groups.values()) for groups in self.layers), OUTPUTS)


def draw(seed: int, *, smallest: bool = False) -> Drawn:
    """Draw a network: 1 to 6 layers, shares from nearly equal to nearly one activation alone."""
    random = np.random.default_rng(seed)
    layers = []
    for _ in range(2 if smallest else random.integers(1, DEEPEST + 1)):
        width = 16 if smallest else int(random.choice(WIDTHS))
        if random.random() < ALIKE:
            layers.append({str(random.choice(PAPER_POOL)): width})
            continue
        shares = random.dirichlet([random.choice([0.3, 1.0, 5.0])] * len(PAPER_POOL))
        sizes = random.multinomial(width, shares)
        layers.append({name: int(size) for name, size in zip(PAPER_POOL, sizes, strict=True) if size})
    return Drawn(tuple(layers))


def build(drawn: Drawn, *, fixed: str | None = None) -> nn.Module:
    """Return the network, its neurons in random order; or with one fixed activation."""
    import torch

    from smx.activations import get
    from smx.layers import Mixed
    from smx.models import Fixed, mlp

    torch.manual_seed(0)
    choices = []
    for groups in drawn.layers:
        parts = [torch.full((size,), PAPER_POOL.index(name)) for name, size in groups.items()]
        neurons = torch.cat(parts)
        choices.append(neurons[torch.randperm(len(neurons))])
    if fixed is not None:
        return mlp(drawn.sizes, lambda i: Fixed(get(fixed).function))
    return mlp(drawn.sizes, lambda i: Mixed(choices[i - 1], PAPER_POOL))


def export(folder: Path, networks: list[Drawn], layouts: list[str], seconds: float = 60.0) -> list[dict[str, Path]]:
    """Write each network in each layout, and with ReLU; return the files by the name of the layout, and `relu`."""
    import torch

    from smx.export import Search, export_onnx

    example, files = torch.zeros(2, INPUTS), []
    for i, drawn in enumerate(networks):
        paths = {name: folder / f"{i}-{name}.onnx" for name in (*layouts, "relu")}
        for name, path in paths.items():
            module = build(drawn, fixed="relu" if name == "relu" else None)
            layout = "sorted" if name == "relu" else name
            search = Search(seconds=seconds) if name == "fastest" else None
            export_onnx(module, path, example_input=example, layout=layout, search=search)
        files.append(paths)
    return files
