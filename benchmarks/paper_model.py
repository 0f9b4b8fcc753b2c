"""Write a `model.pt` of the paper's largest architecture with neurons distributed as the paper found them.

    python benchmarks/paper_model.py paper.pt && smx bench paper.pt

`smx.paper.shares` says how they are distributed. The weights are random: latency does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from smx.architecture import MLP, Architecture
from smx.modelfile import SavedModel, choices_of, save_model, without_choices
from smx.paper import LARGEST, PAPER_POOL
from smx.stepbench.networks import PHASE2_UNSORTED, networks


def paper_model(sizes: Sequence[int] = LARGEST, seed: int = 0) -> SavedModel:
    """Return a multilayer perceptron for MNIST with these sizes: inputs, neurons of each hidden layer, outputs."""
    state = networks(sizes, seed=seed)[PHASE2_UNSORTED]().state_dict()
    inputs, *widths, outputs = sizes
    return SavedModel(
        architecture=Architecture(kind=MLP, input_shape=(inputs,), num_classes=outputs, widths=tuple(widths)),
        pool=PAPER_POOL,
        choices=choices_of(state),
        weights=without_choices(state),
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
