"""What training needs of the process that it runs in, and leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from smx.errors import InputError


@contextmanager
def isolated() -> Iterator[None]:
    """Train with gradients, in float32, whatever the caller's mode; and leave the caller's settings alone.

    These are the states of random generators, and whether algorithms must be deterministic.

    Raises:
        InputError: PyTorch's default dtype is not float32.
    """
    if torch.get_default_dtype() != torch.float32:
        raise InputError(
            f"networks are trained in float32, and PyTorch's default is {torch.get_default_dtype()};"
            " call torch.set_default_dtype(torch.float32) first"
        )
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.callback(torch.use_deterministic_algorithms, strict, warn_only=warns)
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
