"""Write a `model.pt` of the paper's largest architecture with neurons distributed as the paper found them.

    python benchmarks/paper_model.py paper.pt && smx bench paper.pt

`smx.paper.shares` says how they are distributed. The weights are random: latency does not depend on their values.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from smx.activations import resolve_pool
from smx.modelfile import SavedModel, mixed_mlp, save_model, without_choices
from smx.paper import LARGEST as SIZES
from smx.paper import PAPER_POOL
from smx.stepbench.networks import choices


def paper_model(seed: int = 0) -> SavedModel:
    """Return the network."""
    drawn = choices(SIZES[1:-1], resolve_pool(PAPER_POOL), seed)
    chosen = {f"layer{i}.activation": choice for i, choice in enumerate(drawn, 1)}
    torch.manual_seed(seed)
    return SavedModel(
        sizes=SIZES,
        pool=PAPER_POOL,
        choices=chosen,
        weights=without_choices(mixed_mlp(SIZES, chosen, PAPER_POOL).state_dict()),
        data={"name": "mnist", "sample_shape": (28, 28), "maximum": 255.0, "class_names": tuple("0123456789")},
        training={},
        metrics={},
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Write the network to PATH."""
    save_model(path, paper_model())


if __name__ == "__main__":
    main()
