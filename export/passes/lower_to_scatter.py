"""The layout `scatter`: neurons stay where they are."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter, emitters
from smx.export.passes.rewriting import Rewriting
from smx.hinges import hinge_of

EXPANDED = 8192
"""So many indices, 8 bytes each, may stand in the file so that they need not be expanded at run time."""


class LowerToScatter(Rewriting):
    """Replace every MixedActivation by standard operators, its neurons where they are.

    Some of the groups are computed in place, on the whole layer: all those that have a common form
    (`smx.hinges`), or the largest one, whichever leaves fewer neurons. With G_1, G_2, ... the groups that are
    left (eq. 9) and G all their neurons,

        h = ScatterElements(in_place(z), G, Concat(f_1(z[G_1]), f_2(z[G_2]), ...)),    z[G_1], ... = Split(Gather(z, G))

    along the neurons' axis. ScatterElements wants an index for every value: where the batch is not known, or they would
    be many, G is expanded to their shape at run time. The groups cover every neuron (eq. 11), and what was computed in
    place for those of G is overwritten.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the whole graph."""
        for node, mixed, emit in emitters(model):
            emit.replace(node, self._lower(mixed, emit))
            self.applied += 1
        return ir.passes.PassResult(model, modified=self.applied > 0)

    def _lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value:
        in_place = groups_in_place(mixed)
        moved = {name: np.flatnonzero(mixed.choice == k) for k, name in enumerate(mixed.pool) if name not in in_place}
        moved = {name: neurons for name, neurons in moved.items() if len(neurons)}
        h = self._in_place(mixed, in_place, emit)
        return self._scatter(mixed, moved, h, emit) if moved else h

    def _in_place(self, mixed: MixedActivation, names: list[str], emit: Emitter) -> ir.Value:
        hinges = [hinge_of(mixed.functions[name]) for name in names]
        known = [hinge for hinge in hinges if hinge is not None]
        part = "_".join(names)
        if len(known) < len(names) or not known:
            return emit.activation(mixed.functions[names[0]], mixed.z, part=part)
        of = dict(zip(names, known, strict=True))
        neurons = [of.get(mixed.pool[k]) for k in mixed.choice]
        (other, _), *_ = Counter(hinge for hinge in neurons if hinge is not None).most_common(1)
        return emit.hinges([hinge or other for hinge in neurons], mixed.z, trailing=mixed.trailing, part=part)

    def _scatter(
        self, mixed: MixedActivation, moved: dict[str, NDArray[np.int64]], h: ir.Value, emit: Emitter
    ) -> ir.Value:
        z, axis = mixed.z, mixed.axis
        part = next(iter(moved)) if len(moved) == 1 else ""
        neurons = np.concatenate(list(moved.values()))
        index = emit.constant(neurons, part=part, name="neurons")
        gathered = emit.node("Gather", [z, index], {"axis": axis}, part=part)
        names = list(moved)
        f = emit.apart(
            gathered,
            axis,
            [len(group) for group in moved.values()],
            names,
            lambda i, value: emit.activation(mixed.functions[names[i]], value, part=names[i]),
        )
        assert z.shape is not None
        row = neurons.reshape([-1 if i == axis else 1 for i in range(len(z.shape))])
        shape = [size for size in z.shape if isinstance(size, int)]
        if len(shape) == len(z.shape):
            shape[axis] = len(neurons)
        if len(shape) == len(z.shape) and math.prod(shape) <= EXPANDED:
            expanded = np.ascontiguousarray(np.broadcast_to(row, shape))
            indices = emit.constant(expanded, part=part, name="indices")
        else:
            row_value = emit.constant(row, part=part, name="neurons_row")
            indices = emit.node("Expand", [row_value, emit.node("Shape", [f], part=part)], part=part)
        return emit.node("ScatterElements", [h, indices, f], {"axis": axis}, part=part)


def groups_in_place(mixed: MixedActivation) -> list[str]:
    """Return the activations that are best computed on the whole layer."""
    sizes = Counter(mixed.pool[k] for k in mixed.choice)
    hinges = [name for name in mixed.pool if name in sizes and hinge_of(mixed.functions[name])]
    (largest, size), *_ = sizes.most_common(1)
    return hinges if sum(sizes[name] for name in hinges) >= size else [largest]
