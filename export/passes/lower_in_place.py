"""What the layout `sorted` does with layers whose neurons have to keep their order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter, emitters
from smx.export.passes.rewriting import Rewriting
from smx.hinges import hinge_of


class LowerInPlace(Rewriting):
    """Replace every MixedActivation by operators that compute most of its neurons in place.

    The groups G_1, G_2, ... (eq. 9) have the activations f_1, f_2, .... Some groups are computed on the whole layer, by
    f_0: all those that have a common form (`smx.hinges`), each neuron with its own numbers, or the largest group,
    whichever has more neurons.

    Case 1: every group is computed in place. Then h = f_0(z).

    Case 2: the groups G_1 to G_n are left; G are all their neurons. Then, along the neurons' axis,

        h = ScatterElements(f_0(z), G, Concat(f_1(z_1), ..., f_n(z_n))),    z_1, ..., z_n = Split(Gather(z, G))
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the whole graph."""
        for node, mixed, emit in emitters(model):
            emit.replace(node, _lower(mixed, emit))
            self.applied += 1
        return ir.passes.PassResult(model, modified=self.applied > 0)


def groups_in_place(mixed: MixedActivation) -> list[str]:
    """Return the activations that are computed on the whole layer."""
    sizes = {name: len(neurons) for name, neurons in mixed.groups.items()}
    hinges = [name for name in sizes if hinge_of(mixed.functions[name])]
    largest = max(sizes, key=lambda name: sizes[name])
    return hinges if sum(sizes[name] for name in hinges) >= sizes[largest] else [largest]


def _lower(mixed: MixedActivation, emit: Emitter) -> ir.Value:
    in_place = groups_in_place(mixed)
    left = {name: neurons for name, neurons in mixed.groups.items() if name not in in_place}
    h = _in_place(mixed, in_place, emit)
    return _scatter(mixed, left, h, emit) if left else h  # case 2, case 1


def _in_place(mixed: MixedActivation, names: list[str], emit: Emitter) -> ir.Value:
    part = "_".join(names)
    of = {name: hinge for name in names if (hinge := hinge_of(mixed.functions[name])) is not None}
    if not of:
        return emit.activation(mixed.functions[names[0]], mixed.z, part=part)
    neurons = [of.get(mixed.pool[k]) for k in mixed.choice]
    # The neurons that are left get the most frequent numbers: equal numbers save operators, and case 2 overwrites them.
    (frequent, _), *_ = Counter(hinge for hinge in neurons if hinge is not None).most_common(1)
    return emit.hinges([hinge or frequent for hinge in neurons], mixed.z, trailing=mixed.trailing, part=part)


def _scatter(mixed: MixedActivation, left: dict[str, NDArray[np.int64]], h: ir.Value, emit: Emitter) -> ir.Value:
    names = list(left)
    neurons = np.concatenate(list(left.values()))
    part = names[0] if len(names) == 1 else ""
    f = emit.apart(
        emit.gather(mixed, neurons, part=part),
        mixed.axis,
        [len(group) for group in left.values()],
        names,
        lambda i, value: emit.activation(mixed.functions[names[i]], value, part=names[i]),
    )
    return emit.scatter(mixed, h, neurons, f, part=part)
