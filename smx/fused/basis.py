"""Activations as combinations of five functions, so that a layer of many activations is one formula:

    f_k(z) = sum over j of C[j, k] b_j(z),   b(z) = (max(z, 0), min(z, 0), expm1(min(z, 0)), sigmoid(z), tanh(z))

ReLU, Leaky ReLU, ELU, SELU, the identity, Sigmoid and Tanh are such combinations: a line on either side of 0, or a line
and a curve, or one of the last two as it is. The passes rely on that. With s one-hot, sum_k s[k] f_k(z) is
sum_j c[j] b_j(z) with c = C s: a neuron has five numbers instead of a choice.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from smx import activations
from smx.activations import Activation, is_built_in
from smx.hinges import hinge_of

SIZE = 5
"""Functions in the basis."""

Table = tuple[tuple[float, ...], ...]
"""C, for each activation of a pool its column: K tuples of `SIZE` numbers."""


def table_of(pool: Sequence[Activation], chosen: Container[int] | None = None) -> Table | None:
    """Return the numbers of a pool, or None if one of its activations is no combination of the basis.

    Only our own activations count: of a user's, the function is all we know.

    Args:
        pool: K activations.
        chosen: the indices of those that occur; the others may be anything, and are zeros here. None: all.
    """
    columns = [
        _NONE if chosen is not None and k not in chosen else _COLUMNS.get(f.name) if is_built_in(f) else None
        for k, f in enumerate(pool)
    ]
    return None if None in columns else tuple(column for column in columns if column is not None)


def _column(name: str) -> tuple[float, ...] | None:
    if name in ("sigmoid", "tanh"):
        return (0.0, 0.0, 0.0, float(name == "sigmoid"), float(name == "tanh"))
    onnx = activations.get(name).onnx
    hinge = hinge_of(onnx) if onnx is not None else None
    if hinge is None or hinge.constant != -hinge.exponential or (hinge.exponential and hinge.negative):
        return None
    return (hinge.positive, hinge.negative, hinge.exponential, 0.0, 0.0)


_NONE = (0.0,) * SIZE
_COLUMNS = {name: column for name in activations.known() if (column := _column(name)) is not None}
