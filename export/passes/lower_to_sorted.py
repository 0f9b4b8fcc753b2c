"""The layout `sorted`: groups that lie side by side need no indices."""

from __future__ import annotations

import math
from itertools import groupby

import onnx_ir as ir

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter
from smx.export.passes.base import Lowering
from smx.export.passes.lower_in_place import groups_in_place
from smx.hinges import hinge_of, operator_of

RIDERS = 32
"""A run of at most this many values, ReLU or the like, joins neighbours that have an exponential: fewer operators."""

MOVED = 50
"""To gather and scatter this many values takes about as long as to start an operator."""

Run = list[str]
"""Neighbouring neurons that are computed together: the name of the activation of each."""


class LowerToSorted(Lowering):
    """Replace a MixedActivation whose choice is sorted by operators on neighbouring neurons.

    The neurons are in runs R_1, R_2, ... A run is computed by the same operators f_k: its neurons have one activation,
    or they are neighbours with activations of one form that has an exponential (`smx.hinges`).

    Case 1: there is one run. Then h = f_1(z).

    Case 2: there are n runs. Then, along the neurons' axis,

        h = Concat(f_1(z_1), ..., f_n(z_n)),    z_1, ..., z_n = Split(z)

    Case 3: there are so many runs that `LowerInPlace` takes less time. The layer is left to it, and `refusals` says
    why its neurons could not be sorted into fewer runs. The form `in place` is left to it in any case.

    The other forms of `smx.prices.FORMS` differ in the runs. `operators`: a run has one activation, and is computed by
    the one operator that ONNX has for it. `shared`: neighbours that have an exponential make one run. `joined`: all
    neighbours of the common form do.
    """

    def lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value | None:
        """Add the operators of a layer that is sorted."""
        if mixed.form == "in place":
            return None
        runs = _runs(mixed)
        if len(runs) > 1 and len(runs) + 2 > _cost_in_place(mixed):  # case 3
            self.refusals[emit.scope] = f"{len(mixed.groups)} groups in {len(runs)} runs, since {mixed.unsorted}"
            return None
        return emit.apart(  # case 1, without Split and Concat, and case 2
            mixed.z,
            mixed.axis,
            [len(run) for run in runs],
            ["_".join(dict.fromkeys(run)) for run in runs],
            lambda i, z: _compute(mixed, runs[i], z, emit),
        )


def _runs(mixed: MixedActivation) -> list[Run]:
    """Return the layer's neurons in runs."""
    runs = [list(run) for _, run in groupby(mixed.pool[k] for k in mixed.choice)]
    if mixed.form == "operators":
        return runs
    joined = runs[:1]
    for run in runs[1:]:
        if _together(mixed, joined[-1]) and _together(mixed, run):
            run = joined.pop() + run
        joined.append(run)
    return joined


def _together(mixed: MixedActivation, run: Run) -> bool:
    """Whether a run has an exponential, or has the same form and at most `RIDERS` values or is `joined` anyway."""
    hinges = [hinge_of(mixed.functions[name]) for name in set(run)]
    if any(hinge is not None and hinge.exponential for hinge in hinges):
        return True
    return None not in hinges and (mixed.form == "joined" or len(run) * _values(mixed) <= RIDERS)


def _cost_in_place(mixed: MixedActivation) -> float:
    """Return how many operators take about as long as what `LowerInPlace` makes of the layer."""
    in_place = groups_in_place(mixed)
    left = [len(neurons) for name, neurons in mixed.groups.items() if name not in in_place]
    operators = 7 if len(in_place) > 1 else 1
    return operators + 7 + len(left) + sum(left) * _values(mixed) / MOVED if left else operators


def _values(mixed: MixedActivation) -> int:
    """Return how many values a neuron has in one example; axes of unknown length count as 1."""
    return math.prod(size for size in (mixed.z.shape or ())[mixed.axis + 1 :] if isinstance(size, int))


def _compute(mixed: MixedActivation, run: Run, z: ir.Value, emit: Emitter) -> ir.Value:
    part = "_".join(dict.fromkeys(run))
    hinges = [hinge for name in run if (hinge := hinge_of(mixed.functions[name])) is not None]
    if not hinges:
        return emit.activation(mixed.functions[run[0]], z, part=part)
    if mixed.form == "operators" and (operator := operator_of(hinges[0])) is not None:
        return emit.activation(operator, z, part=part)
    return emit.hinges(hinges, z, trailing=mixed.trailing, part=part)
