"""What training needs of the process that it runs in, and leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smx.errors import InputError


@contextmanager
def isolated() -> Iterator[None]:
    """Train with gradients, in float32, whatever the caller's mode; and leave the caller's random generators alone.

    Raises:
        InputError: PyTorch's default dtype is not float32.
    """
    if torch.get_default_dtype() != torch.float32:
        raise InputError(
            f"networks are trained in float32, and PyTorch's default is {torch.get_default_dtype()};"
            " call torch.set_default_dtype(torch.float32) first"
        )
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        yield
