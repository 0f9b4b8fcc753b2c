"""Write a `model.pt` of the paper's largest architecture with neurons distributed as the paper found them.

    python benchmarks/paper_model.py paper.pt && smx bench paper.pt

`smx.paper.shares` says how they are distributed. The weights are random: latency does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from smx.activations import resolve_pool
from smx.architecture import MLP, Architecture
from smx.layers import Mixed
from smx.modelfile import SavedModel, save_model, split_state
from smx.models import mlp
from smx.paper import LARGEST, PAPER_POOL
from smx.stepbench.networks import choices

SMALLEST = (784, 24, 16, 10)
"""The network of `--smallest`."""


def paper_model(sizes: Sequence[int] = LARGEST, seed: int = 0) -> SavedModel:
    """Return the network: inputs, neurons of each hidden layer, classes are `sizes`."""
    drawn = choices(sizes[1:-1], resolve_pool(PAPER_POOL), seed)
    torch.manual_seed(seed)
    network = mlp(sizes, lambda i: Mixed(drawn[i - 1]))
    chosen, weights = split_state(network.state_dict())
    return SavedModel(
        architecture=Architecture(kind=MLP, input_shape=(sizes[0],), num_classes=sizes[-1], widths=tuple(sizes[1:-1])),
        pool=PAPER_POOL,
        choices=chosen,
        weights=weights,
        data={"name": "mnist", "sample_shape": (28, 28), "maximum": 255.0, "class_names": tuple("0123456789")},
        training={},
        metrics={},
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--smallest", is_flag=True, help="Write a small network of the same kind.")
def main(path: Path, smallest: bool) -> None:
    """Write the network to PATH."""
    save_model(path, paper_model(SMALLEST if smallest else LARGEST))


if __name__ == "__main__":
    main()
