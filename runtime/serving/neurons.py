"""What the neurons of each mixed layer do for one example, counted as in PyTorch.

The file is loaded once more, when the first request comes, with the values z and h of its layers as outputs. ONNX
Runtime can't fuse such an operator with the next one, so this is slower than the model, and is done beside it, on one
thread of the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from weakref import proxy

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.graph import expose
from smx.runtime.metadata import LayerInfo
from smx.runtime.parity.locate import activations_of, in_order
from smx.runtime.serving.batcher import Arrays, Batcher, Batching
from smx.runtime.serving.model import ServedModel
from smx.runtime.serving.protocol import Cause, InferRequest, Refusal
from smx.runtime.serving.repository import stamp
from smx.runtime.session import Session
from smx.runtime.settings import Settings

MAX_QUEUE = 16
"""Requests that may wait; a further one is refused."""


@dataclass(frozen=True, kw_only=True)
class LayerValues:
    """What the neurons of one mixed layer did.

    Attributes:
        name: the layer's module path.
        activations: of each neuron.
        z, h: pre-activations and activations, (N,); of neurons with several values, as of a channel, their means.
        positions: the values of each neuron.
    """

    name: str
    activations: Sequence[str]
    z: NDArray[np.float64]
    h: NDArray[np.float64]
    positions: int


class Neurons:
    """The neurons of a served model, which it does not keep in memory.

    Args:
        model: what is asked.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model: ServedModel = proxy(model)
        self._session: Session | None = None
        self._queue = Batcher(self._run, Batching(max_rows=1, max_queue=MAX_QUEUE), together=False)

    @property
    def layers(self) -> Sequence[LayerInfo]:
        """The mixed layers; none where the file does not say where they are."""
        layers = self.model.info.layers if self.model.info else ()
        return layers if all(layer.provenance for layer in layers) else ()

    async def read(self, request: InferRequest, seconds: float | None = None) -> list[LayerValues]:
        """Return what the neurons of every layer do for one example, in so many seconds if they are given.

        Raises:
            Refusal: the request is not one example of the model, or the model does not say where its neurons are, or
                the answer does not come in time.
        """
        if not self.layers:
            raise Refusal(Cause.INVALID, f"{self.model.name} has no mixed layers, or does not say where they are")
        inputs = self.model.checked(request)
        if any(x.shape[:1] != (1,) for x in inputs):
            raise Refusal(Cause.INVALID, f"neurons are shown for one example, got {[list(x.shape) for x in inputs]}")
        try:
            values = iter(await self._queue.submit(inputs, seconds))
        except InputError as error:
            raise Refusal(Cause.INVALID, str(error)) from error
        with np.errstate(all="ignore"):
            return [
                LayerValues(
                    name=layer.name, activations=activations_of(layer), z=z.mean(0), h=h.mean(0), positions=z.shape[0]
                )
                for layer, z, h in zip(self.layers, values, values, strict=True)
            ]

    def _run(self, inputs: Sequence[NDArray[np.generic]]) -> Arrays:
        """Return z and h of each layer, one after the other, (positions, N)."""
        session = self._session = self._session or self._open()
        examples = session.batch or 1
        outputs = session.run_all(*(np.repeat(x, examples, 0) for x in inputs))
        named = dict(zip([output.name for output in session.outputs], outputs, strict=True))
        arrays = []
        with np.errstate(all="ignore"):  # of values that are not finite
            for layer in self.layers:
                _, *both = in_order(session.name, layer, named)
                arrays += [_of_first(values, layer.axis, examples) for values in both]
        return arrays

    def _open(self) -> Session:
        """Load the file; not one that took its place and is not served yet, or was refused."""
        path = self.model.path
        check = partial(_check_same, self.model)
        check()
        places = [layer.provenance for layer in self.layers]
        exposed = expose(path, [name for place in places if place for name in (place.z, place.h)])
        settings = Settings(threads=1, spinning=False)
        session = Session(exposed, settings=settings, folder=path.parent, name=self.model.name)
        check()
        return session


def _check_same(model: ServedModel) -> None:
    if stamp(model.path) != model.stamp:
        raise Refusal(Cause.BUSY, f"the file of {model.name} was replaced, and the new one does not answer yet")


def _of_first(values: NDArray[np.generic], axis: int, examples: int) -> NDArray[np.float64]:
    """Return the values of the first example, (positions, N); all where the first axis is not the examples."""
    moved = np.moveaxis(values.astype(np.float64), axis, -1)
    apart = moved.ndim > 1 and len(moved) % examples == 0
    share = len(moved) // examples if apart else len(moved)
    return moved[:share].reshape(-1, moved.shape[-1])
