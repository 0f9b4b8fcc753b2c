"""tritonclient's four clients, which nobody here wrote, behind one function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from tests.runtime.serving.process import Running

Arrays = Mapping[str, NDArray[Any]]
Ask = Callable[[str, Sequence[Arrays], tuple[str, ...]], list[Arrays]]
"""Asks a model for outputs of several inputs, and returns them; the asyncio clients ask for all at once."""
MODULES = {"http": http, "http-json": http, "grpc": grpc, "http-aio": http_aio, "grpc-aio": grpc_aio}
KINDS = tuple(MODULES)
MOST = 32
"""Requests of an asyncio client at once."""


@contextmanager
def client(kind: str, server: Running, **options: Any) -> Iterator[Ask]:
    """Open one of the `KINDS`."""
    module: Any = MODULES[kind]
    address = server.grpc if kind.startswith("grpc") else server.http
    if kind.endswith("aio"):
        with asyncio.Runner() as runner:

            async def make() -> Any:
                return module.InferenceServerClient(address)

            opened = runner.run(make())
            try:
                yield lambda model, inputs, outputs: runner.run(_at_once(kind, opened, model, inputs, outputs))
            finally:
                runner.run(opened.close())
    else:
        opened = module.InferenceServerClient(address, **options)
        try:
            yield lambda model, inputs, outputs: [
                read(opened.infer(model, **written(kind, each, outputs)), outputs) for each in inputs
            ]
        finally:
            opened.close()


async def _at_once(
    kind: str, opened: Any, model: str, inputs: Sequence[Arrays], outputs: tuple[str, ...]
) -> list[Arrays]:
    free = asyncio.Semaphore(MOST)

    async def ask(example: Arrays) -> Arrays:
        async with free:
            return read(await opened.infer(model, **written(kind, example, outputs)), outputs)

    return await asyncio.gather(*map(ask, inputs))


def written(kind: str, example: Arrays, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of `infer`."""
    module, binary = MODULES[kind], {"binary_data": kind != "http-json"} if kind.startswith("http") else {}
    inputs = [module.InferInput(name, list(x.shape), np_to_triton_dtype(x.dtype)) for name, x in example.items()]
    for entry, x in zip(inputs, example.values(), strict=True):
        entry.set_data_from_numpy(x, **binary)
    wanted = [module.InferRequestedOutput(name, **binary) for name in outputs]
    return {"inputs": inputs, "outputs": wanted, "request_id": "mine"}


def read(answer: Any, outputs: tuple[str, ...]) -> Arrays:
    """Return the outputs of an answer."""
    response = answer.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "mine"
    return {name: np.asarray(answer.as_numpy(name)) for name in outputs}
