from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smx.torchrunner import TorchRunner


@pytest.mark.parametrize("compiled", [False, True])
def test_runs_are_predictions_of_a_module_that_is_new_in_every_block_unless_compiled(compiled: bool) -> None:
    built: list[nn.Module] = []
    seen: list[tuple[Tensor, bool]] = []

    def build() -> nn.Module:
        built.append(nn.Linear(3, 2))
        built[-1].register_forward_hook(lambda _, x, y: seen.append((y, torch.is_inference_mode_enabled())))
        return built[-1]

    threads = torch.get_num_threads()
    runner = TorchRunner(build, compiled=compiled, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    x = np.random.default_rng(0).random((4, 3), np.float32)
    with torch.compiler.set_stance("force_eager"):
        for block in range(2):
            seconds = runner.start()
            assert (seconds is None) == (compiled and block == 1)
            runner.prepare([x])
            assert runner.time(3).shape == (3,)
    assert len(built) == (1 if compiled else 2)
    assert len(seen) == 2 * 4
    assert all(inference for _, inference in seen)
    weights = [parameter.detach().numpy() for parameter in built[-1].parameters()]
    np.testing.assert_allclose(seen[-1][0].numpy(), x @ weights[0].T + weights[1], rtol=1e-5, atol=1e-6)
