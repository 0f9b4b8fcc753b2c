"""Write a `model.pt` of the paper's largest architecture with neurons distributed as the paper found them.

    python benchmarks/paper_model.py paper.pt && smx bench paper.pt

Between the first hidden layer (ReLU 37 %, Leaky ReLU 34 %) and the last (SELU 64 %, ELU 31 %) the shares are
interpolated; what the paper does not say of the rest is spread over the activations that it calls avoided or rare. The
weights are random: latency does not depend on their values.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from smx.modelfile import SavedModel, mixed_mlp, save_model, without_choices
from smx.paper import PAPER_POOL

SIZES = (784, 768, 512, 512, 256, 256, 128, 10)
FIRST = {"relu": 0.37, "leaky_relu": 0.34, "tanh": 0.10, "elu": 0.10, "selu": 0.06, "sigmoid": 0.03}
LAST = {"selu": 0.64, "elu": 0.31, "relu": 0.02, "leaky_relu": 0.02, "tanh": 0.005, "sigmoid": 0.005}


def paper_model(seed: int = 0) -> SavedModel:
    """Return the network."""
    random = torch.Generator().manual_seed(seed)
    hidden = SIZES[1:-1]
    choices = {}
    for i, neurons in enumerate(hidden):
        position = i / (len(hidden) - 1)
        shares = torch.tensor([FIRST[name] + position * (LAST[name] - FIRST[name]) for name in PAPER_POOL])
        choices[f"layer{i + 1}.activation"] = torch.multinomial(shares, neurons, replacement=True, generator=random)
    torch.manual_seed(seed)
    return SavedModel(
        sizes=SIZES,
        pool=PAPER_POOL,
        choices=choices,
        weights=without_choices(mixed_mlp(SIZES, choices, PAPER_POOL).state_dict()),
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
