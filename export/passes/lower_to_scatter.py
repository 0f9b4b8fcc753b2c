"""The layout `scatter`: eq. 11 of the paper, operator by operator."""

from __future__ import annotations

import onnx_ir as ir

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter
from smx.export.passes.base import Lowering


class LowerToScatter(Lowering):
    """Replace every MixedActivation by Gather, activation and ScatterElements for each of its groups.

    Case 1: all neurons have the activation f. Then h = f(z).

    Case 2: the groups G_1, G_2, ... (eq. 9) have the activations f_1, f_2, .... Then, along the neurons' axis,

        h_0 = z,    h_k = ScatterElements(h_k-1, G_k, f_k(Gather(z, G_k))),    h = the last h_k

    Every neuron is in one group (eq. 11), so no value of h_0 is left in h, and any tensor of this shape could be h_0.
    It is z because that takes no operator of its own, while zeros take a Shape and a ConstantOfShape.
    """

    def lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value:
        """Add the operators of a layer."""
        groups = mixed.groups
        if len(groups) == 1:  # case 1
            (name,) = groups
            return emit.activation(mixed.functions[name], mixed.z, part=name)
        h = mixed.z  # case 2
        for name, neurons in groups.items():
            f = emit.activation(mixed.functions[name], emit.gather(mixed, neurons, part=name), part=name)
            h = emit.scatter(mixed, h, neurons, f, part=name)
        return h
