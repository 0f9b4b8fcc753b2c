"""What the layout `sorted` does with layers whose neurons have to keep their order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter
from smx.export.passes.base import Lowering
from smx.hinges import hinge_of


class LowerInPlace(Lowering):
    """Replace every MixedActivation by operators that compute most of its neurons in place.

    The groups G_1, G_2, ... (eq. 9) have the activations f_1, f_2, .... Some groups are computed on the whole layer, by
    f_0: all those that have a common form (`smx.hinges`), each neuron with its own numbers, or the largest group,
    whichever has more neurons.

    Case 1: every group is computed in place. Then h = f_0(z).

    Case 2: the groups G_1 to G_n are left; G are all their neurons. Then, along the neurons' axis,

        h = ScatterElements(f_0(z), G, Concat(f_1(z_1), ..., f_n(z_n))),    z_1, ..., z_n = Split(Gather(z, G))
    """

    def lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value:
        """Add the operators of a layer."""
        in_place = groups_in_place(mixed)
        h = _in_place(mixed, in_place, emit)
        left = {name: neurons for name, neurons in mixed.groups.items() if name not in in_place}
        if not left:
            return h  # case 1
        names, neurons = list(left), np.concatenate(list(left.values()))  # case 2
        part = names[0] if len(names) == 1 else ""
        f = emit.apart(
            emit.gather(mixed, neurons, part=part),
            mixed.axis,
            [len(group) for group in left.values()],
            names,
            lambda i, z: emit.activation(mixed.functions[names[i]], z, part=names[i]),
        )
        return emit.scatter(mixed, h, neurons, f, part=part)


def groups_in_place(mixed: MixedActivation) -> list[str]:
    """Return the activations that are computed on the whole layer."""
    sizes = {name: len(neurons) for name, neurons in mixed.groups.items()}
    hinges = [name for name in sizes if hinge_of(mixed.functions[name])]
    largest = max(sizes, key=lambda name: sizes[name])
    return hinges if sum(sizes[name] for name in hinges) >= sizes[largest] else [largest]


def _in_place(mixed: MixedActivation, names: list[str], emit: Emitter) -> ir.Value:
    part = "_".join(names)
    of = {name: hinge for name in names if (hinge := hinge_of(mixed.functions[name])) is not None}
    if not of:
        return emit.activation(mixed.functions[names[0]], mixed.z, part=part)
    neurons = [of.get(mixed.pool[k]) for k in mixed.choice]
    # The neurons that are left get the most frequent numbers: equal numbers save operators, and case 2 overwrites them.
    (frequent, _), *_ = Counter(hinge for hinge in neurons if hinge is not None).most_common(1)
    return emit.hinges([hinge or frequent for hinge in neurons], mixed.z, trailing=mixed.trailing, part=part)
