"""A convolutional network whose channels choose their activations, trained by a loop of your own.

    python cnn.py

trains on scikit-learn's handwritten digits for some seconds, writes cnn.onnx, and checks it against PyTorch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import smx


def fit(network: nn.Module, x: Tensor, y: Tensor, *, epochs: int, lr: float = 3e-3) -> None:
    """Train as one trains any network: neurons that choose learn by the same gradients as the weights."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    network.eval()


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of examples that get their class."""
    with torch.no_grad():
        return (network(x).argmax(1) == y).float().mean().item()


def main() -> None:
    """Select, train, commit, train on, export, check."""
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # (1797, 1, 8, 8)
    y = torch.tensor(digits.target)
    train, test = slice(0, 1500), slice(1500, None)

    network: nn.Module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )
    network = smx.select(network, example_input=x[:1])  # phase 1: in the place of the ReLUs, channels that choose
    fit(network, x[train], y[train], epochs=5)
    network = smx.sort(smx.commit(network), example_input=x[:1])  # phase 2: choices fixed, equal ones side by side
    fit(network, x[train], y[train], epochs=5)
    print(network)
    print(f"test accuracy {accuracy(network, x[test], y[test]):.4f}")

    smx.export.export_onnx(network, "cnn.onnx", example_input=x[:1], layout="sorted")
    report = smx.runtime.check_parity(
        lambda images: network(torch.from_numpy(images)).detach().numpy(),
        smx.runtime.Session("cnn.onnx"),
        {"test": x[test].numpy()},
    )
    print(f"cnn.onnx differs from PyTorch by at most {report.max_abs:.2g}: {'ok' if report.passed else 'too much'}")


if __name__ == "__main__":
    main()
