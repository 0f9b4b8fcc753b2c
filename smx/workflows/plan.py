"""What `smx.select` will do with a network, and whether what comes out of it can be exported."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smx.errors import SmxError, one_line
from smx.files import scratch
from smx.paper import PAPER_POOL

if TYPE_CHECKING:
    from torch import nn

    from smx.activations import Activation
    from smx.convert import Plan
    from smx.example_input import ExampleInput


def plan(
    module: nn.Module,
    *,
    example_input: ExampleInput | None = None,
    export: bool | Mapping[str, Any] = False,
    pool: Iterable[str | Activation] = PAPER_POOL,
    **how: Any,
) -> Plan:
    """Return what `smx.select` does with each activation of a network if it gets the same arguments: a table.

    `str()` shows the table; its rows have the path, the call, the name, the neurons and their axis, and why it is left.

    Args:
        module, example_input: as for `smx.select`.
        export: try to export the network as it will be after `smx.commit`, with random choices, into a folder that is
            removed. `Plan.export` then says why it can't be, in one line. A dict has the arguments of
            `smx.export.export_onnx` with which you will export it. It takes seconds.
        pool: for that export.
        how: `types`, `include`, `exclude` and `dim`, as for `smx.select`.

    Raises:
        ValueError: as for `smx.select`, but not if nothing can be selected.
    """
    from smx import convert
    from smx.wrappers import unwrapped

    module, pool = unwrapped(module), tuple(pool)
    made = convert.plan(module, example_input=example_input, **how)
    if export is False:
        return made
    with warnings.catch_warnings(action="ignore"):
        network = module
        if made.selected:
            network = convert.commit(convert.select(module, pool, example_input=example_input, **how))
        return replace(made, export=_why_not(network, example_input, {} if export is True else dict(export)))


def _why_not(network: nn.Module, example_input: ExampleInput | None, how: dict[str, Any]) -> str:
    """Return why a network can't be exported; an empty text if it can."""
    import torch

    from smx.example_input import infer
    from smx.export import export_onnx

    if example_input is None:
        device = next((parameter.device for parameter in network.parameters()), None)
        example_input = torch.zeros_like(infer(network), device=device)[:2]
    with scratch() as folder:
        try:
            export_onnx(network, folder / "network.onnx", example_input=example_input, **how)
        except SmxError as error:
            return one_line(error).replace(f"{folder}/", "")
    return ""
