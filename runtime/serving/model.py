"""One loaded version of a model: what it takes, and how a request becomes an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.serving.batcher import Arrays, Batcher, Batching
from smx.runtime.serving.classes import classification, further_outputs
from smx.runtime.serving.protocol import DATATYPES, Cause, InferRequest, InferResponse, Refusal, Tensor
from smx.runtime.session import DTYPES, Session
from smx.runtime.settings import Settings
from smx.runtime.tuning import read_tuning

PLATFORM = "onnxruntime_onnx"
"""What Triton calls ONNX models in ONNX Runtime."""
OPEN_LENGTH = 8
"""What an axis of open length gets in a warm-up."""


CLOSE = 1e-2
"""Relative to the largest value of an example: float16, TF32 and int8 round differently in other batches."""
LARGER = 64


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How models are loaded.

    Attributes:
        provider, allow_fallback: see `smx.runtime.Session`.
        threads: of one operator; None takes what `smx tune` wrote beside the file, or ONNX Runtime's default.
        batching: see `Batching`.
        max_rows: examples of one request.
    """

    provider: str = "cpu"
    allow_fallback: bool = False
    threads: int | None = None
    batching: Batching = field(default_factory=Batching)
    max_rows: int = 4096


class Port(NamedTuple):
    """An input or output of a model, as plain values: ONNX Runtime makes its own anew each time that they are read.

    Attributes:
        shape: -1 is an open length.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def datatype(self) -> str:
        """The protocol's name of the dtype."""
        return DATATYPES[self.dtype]

    @property
    def metadata(self) -> dict[str, Any]:
        """What the protocol says of it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def takes(self, array: NDArray[Any]) -> bool:
        """Whether an array has its shape. The first axis is the examples', of which there may be none."""
        if array.ndim != len(self.shape):
            return False
        return all(
            got == size if size >= 0 else got > 0 for size, got in zip(self.shape[1:], array.shape[1:], strict=True)
        )


class ServedModel:
    """A model in ONNX Runtime that answers requests.

    Args:
        path: of the ONNX file.
        name, version: in the protocol.
        loading: see `Loading`.
        observe: is called with the rows of each run.

    Attributes:
        stamp: the state of the file that was loaded, see `smx.runtime.serving.repository.stamp`; set by who loads it.

    Raises:
        InputError: the file is missing or no ONNX model, ONNX Runtime can't run it, or its name has line breaks.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        version: str,
        loading: Loading,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        if not name.isprintable():
            raise InputError(f"a served model has a name on one line, got {name!r}; rename {str(path)!r}")
        start = time.perf_counter()
        self.stamp: object = None
        self.path, self.name, self.version, self.loading = path, name, version, loading
        self.session = _open(path, loading)
        self.session.name = name  # in messages to clients, who need not know where the file is
        self.inputs, self.outputs = (self._ports(each) for each in (self.session.inputs, self.session.outputs))
        self.info = self.session.info
        self.class_names = self.info.class_names if self.info else ()
        self.batched = self._warm_up(loading.batching.max_rows)
        self.batcher = Batcher(self._run, loading.batching, together=self.batched, observe=observe)
        self.load_seconds = time.perf_counter() - start

    @property
    def metadata(self) -> dict[str, Any]:
        """What the protocol says of a model; open axes have the length -1."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [port.metadata for port in self.inputs.values()],
            "outputs": [port.metadata for port in self.outputs.values()],
        }

    def _ports(self, nodes: Sequence[Any]) -> dict[str, Port]:
        for each in nodes:
            if each.type not in DTYPES:
                raise InputError(f"{self.path} has {each.name!r} of {each.type}; only tensors of numbers are served")
        shapes = [tuple(size if isinstance(size, int) else -1 for size in each.shape) for each in nodes]
        return {each.name: Port(each.name, DTYPES[each.type], shape) for each, shape in zip(nodes, shapes, strict=True)}

    async def infer(self, request: InferRequest, seconds: float | None = None) -> InferResponse:
        """Answer a request, in so many seconds if they are given.

        Raises:
            Refusal: the request does not fit the model, the queue is full, or the answer does not come in time.
        """
        inputs = self.checked(request)
        known = list(self.outputs)
        wanted = [output.name for output in request.outputs]
        if not {*wanted} <= {*known} or len({*wanted}) < len(wanted):
            raise Refusal(Cause.INVALID, f"{self.name} has the outputs {known}, each once; wanted were {wanted[:20]}")
        try:
            arrays = await self.batcher.submit(inputs, seconds)
        except InputError as error:
            raise Refusal(Cause.INVALID, str(error)) from error
        made = {name: Tensor(name, array) for name, array in zip(known, arrays, strict=True)}
        outputs = []
        for output in request.outputs:
            tensor, k = made[output.name], output.parameters.get("classification")
            outputs.append(tensor if k is None else classification(tensor, k, self._names(tensor.array)))
        outputs = outputs or list(made.values())
        further = further_outputs(request, made[known[0]], self._names(arrays[0]))
        if twice := {*made} & {each.name for each in further}:
            raise Refusal(Cause.INVALID, f"{self.name} has an output {min(twice)!r} of its own; ask for that")
        outputs += further
        return InferResponse(model_name=self.name, model_version=self.version, outputs=outputs, id=request.id)

    def _names(self, output: NDArray[Any]) -> Sequence[str]:
        """Return the class names, if the output (B, C) has a class for each."""
        return self.class_names if output.shape[1:] == (len(self.class_names),) else ()

    def checked(self, request: InferRequest) -> list[NDArray[Any]]:
        """Return the arrays in the model's order; refuse what the model does not take."""
        given = {tensor.name: tensor for tensor in request.inputs}
        if len(given) != len(request.inputs) or given.keys() != self.inputs.keys():
            names = [tensor.name for tensor in request.inputs[:20]]
            raise Refusal(Cause.INVALID, f"{self.name} takes the inputs {list(self.inputs)} once each, got {names}")
        for port in self.inputs.values():
            array = given[port.name].array
            if array.dtype != port.dtype:
                got = given[port.name].datatype
                raise Refusal(Cause.INVALID, f"the input {port.name!r} must be {port.datatype}, got {got}")
            if not port.takes(array):
                wanted = f"must have the shape {list(port.shape)}, got {list(array.shape)}"
                raise Refusal(Cause.INVALID, f"the input {port.name!r} {wanted}")
        arrays = [given[name].array for name in self.inputs]
        rows = {len(array) if array.ndim else 1 for array in arrays}
        if max(rows, default=0) > self.loading.max_rows:
            raise Refusal(Cause.TOO_LARGE, f"a request may have {self.loading.max_rows} rows, got {max(rows)}")
        if self.batched and len(rows) != 1:
            raise Refusal(Cause.INVALID, f"all inputs need as many rows, got {sorted(rows)}")
        return arrays

    def _run(self, inputs: Sequence[NDArray[Any]]) -> Arrays:
        return self.session.run_all(*inputs, batch_size=self.session.batch)

    def _warm_up(self, max_rows: int) -> bool:
        """Run the model on batches of 1, 2, 4, ... zeros, and find out whether examples can share a batch.

        They can if each input and output has the examples on an open first axis, and two examples get the same answers
        together as each alone: whole numbers exactly, others up to `CLOSE`.
        """
        try:
            first, second = ([self._example(port, other) for port in self.inputs.values()] for other in (False, True))
            alone = [self._run(first), self._run(second)]
            if self.session.batch or any(port.shape[:1] != (-1,) for port in self.inputs.values()):
                return False
            both = self._run([np.concatenate(parts) for parts in zip(first, second, strict=True)])
            for y, *parts in zip(both, *alone, strict=True):
                if any(part.shape[:1] != (1,) for part in parts) or y.shape[:1] != (2,):
                    return False
                if not (_close(y[:1], parts[0]) and _close(y[1:], parts[1])):
                    return False
            rows = 4
            while rows <= max_rows:
                self._run([np.concatenate([x] * rows) for x in first])
                rows *= 2
        except (InputError, ValueError):  # of inputs that were made up here: users' own may run
            return False
        return True

    @staticmethod
    def _example(port: Port, other: bool) -> NDArray[Any]:
        """Return one of two examples of the shape and dtype of an input: random values that differ everywhere.

        The other's numbers are `LARGER`, so that a model that scales its values by the largest of the batch (dynamic
        quantization) gets other answers for the first.
        """
        lengths = [size if size >= 0 else OPEN_LENGTH for size in port.shape]
        if port.shape[:1] == (-1,):
            lengths[0] = 1
        dtype, random = port.dtype, np.random.default_rng(int(other))
        if dtype.kind == "f":
            return (random.random(lengths) * (LARGER if other else 1)).astype(dtype)
        numbers = np.random.default_rng(0).integers(0, 2, lengths)  # if they are indices, 0 and 1 are among them
        return (1 - numbers if other else numbers).astype(dtype)


def _open(path: Path, loading: Loading) -> Session:
    """Load a file. Idle threads don't wait actively, because the server needs the cores for the requests."""
    tuning, note = read_tuning(path, loading.provider)
    if tuning is not None and not tuning.keeps_defaults:
        return Session(path, loading.provider, loading.threads, allow_fallback=loading.allow_fallback)
    settings = replace(Settings(), threads=loading.threads, spinning=False)
    session = Session(path, loading.provider, settings=settings, allow_fallback=loading.allow_fallback)
    session.note = note
    return session


def _close(y: NDArray[Any], expected: NDArray[Any]) -> bool:
    if y.shape != expected.shape:
        return False
    if y.dtype.kind != "f":
        return np.array_equal(y, expected)
    y, expected = y.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0)
    return np.allclose(y, expected, rtol=CLOSE, atol=CLOSE * scale, equal_nan=True)
