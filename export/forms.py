"""Does an activation's ONNX form compute its function? Both are evaluated on a wide grid before a file is made."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from smx.activations import Activation, is_built_in
from smx.errors import InputError, ParityError, SmxError, one_line
from smx.export.emit import Emitter
from smx.export.opsets import oldest_ir_version
from smx.layers import Mixed
from smx.runtime.session import Session

OPSET = 18
ATOL, RTOL = 1e-5, 1e-4
"""The tolerance of values: ATOL max(1, |z|) + RTOL |f(z)|."""


def check_forms(module: nn.Module) -> None:
    """Hold every activation that a mixed layer's pool has, and that does not come with smx, against its ONNX form.

    Raises:
        ParityError: a form is another function.
        InputError: a function fails.
    """
    pools = [layer.pool for layer in module.modules() if isinstance(layer, Mixed)]
    for activation in dict.fromkeys(activation for pool in pools for activation in pool):
        if not is_built_in(activation):
            check_form(activation)


def check_form(activation: Activation) -> None:
    """Hold an activation's function against its ONNX form, at each z of `grid` at which the function is finite.

    A form that ONNX Runtime can't load passes: an export of it fails, and says why.

    Raises:
        ParityError: they differ; the message names the first z.
        InputError: the function fails.
    """
    try:
        session = _session(activation)
    except SmxError:
        return
    if session is None:
        return
    z, neighbours = grid()
    got = session.run(z)
    # At a jump, one rounding decides on the side; a neighbour of z may be right then.
    wanted = [_values(activation, z), *(_values(activation, near) for near in neighbours)]
    allowed = ATOL * np.maximum(1, np.abs(np.nan_to_num(z, posinf=1, neginf=1)))
    with np.errstate(all="ignore"):
        close = [np.abs(got - f) <= allowed + RTOL * np.abs(f) for f in wanted]
        wrong = np.flatnonzero(np.isfinite(wanted[0]) & ~np.any(close, axis=0))
    if len(wrong):
        i = min(wrong, key=lambda i: abs(z[i]))
        raise ParityError(
            f"the activation {activation.name!r} and its ONNX form are two functions: at z = {z[i]:.6g} the function"
            f" is {wanted[0][i]:.6g} and the form {got[i]:.6g}; mend one of them in smx.Activation"
        )


def grid() -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return pre-activations float32 (N,), and neighbours of them, for each one below and one above.

    They are 0, both infinities, and of both signs: denormals and all sizes up to 10000; halves up to 100, as kinks are
    at such numbers, and the next numbers beside them; and close to 0 every hundredth. Halves, whose values are exact,
    are their own neighbours.
    """
    sizes = np.concatenate([np.geomspace(1e-45, 1e-38, 15), np.geomspace(1e-38, 1e4, 1700), np.arange(1, 1500) / 100])
    sizes = sizes.astype(np.float32)
    halves = (np.arange(201) / 2).astype(np.float32)
    beside = np.concatenate([np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)])
    z = np.concatenate([sizes, beside])
    exact = np.concatenate([halves, -halves, np.array([np.inf, -np.inf], np.float32)])
    near = [np.nextafter(z, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([z, -z, exact]), [np.concatenate([x, -x, exact]) for x in near]


def _values(activation: Activation, z: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        with torch.no_grad():
            values: NDArray[np.float32] = activation.function(torch.from_numpy(z.copy())).numpy()
    except Exception as error:  # whatever a user's function may raise
        raise InputError(f"the activation {activation.name!r} fails: {one_line(error)}") from error
    return values


def _session(activation: Activation) -> Session | None:
    if activation.onnx is None:
        return None
    z = ir.Value(name="z", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))
    graph = ir.Graph([z], [], nodes=[], opset_imports={"": OPSET}, name="activation")
    emit = Emitter(graph, "", ir.DataType.FLOAT)
    h = emit.activation(activation.onnx, z, part=activation.name)
    h.type, h.shape = z.type, z.shape
    graph.extend(emit.nodes)
    graph.outputs.append(h)
    model = ir.to_proto(ir.Model(graph, ir_version=oldest_ir_version(OPSET)))
    return Session(model.SerializeToString())
