"""Dynamic batching: requests that wait at the same time are answered by one run of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.runtime.serving.protocol import Cause, Refusal

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests are put together.

    Attributes:
        max_rows: examples of requests that share a run, of which one alone may have more; 1 runs each by itself.
        max_wait: seconds that a request waits for others while nothing runs. Requests that come while the model runs
            wait for it anyway, so that batches form under load even with 0.
        max_queue: requests that may wait; a further one is refused.
        instances: runs at the same time.
    """

    max_rows: int = 64
    max_wait: float = 0.0
    max_queue: int = 1024
    instances: int = 1


def _closed(inputs: Sequence[NDArray[Any]]) -> Arrays:
    raise RuntimeError("this batcher is closed")


@dataclass(eq=False)
class Waiting:
    """A request in the queue.

    Attributes:
        inputs: an array (rows, *) for each input of the model.
        kind: requests of the same kind (shapes and dtypes but for the rows) can run together.
        answer: gets the outputs.
        since: when it came, on the loop's clock.
    """

    inputs: Sequence[NDArray[Any]]
    rows: int
    kind: tuple[Any, ...]
    answer: asyncio.Future[Arrays]
    since: float


class Batcher:
    """The queue of one model.

    Args:
        run: what answers a batch: it takes an array for each input and returns one for each output. It is called in a
            thread; what it raises is what the requests of the batch get, each after a try by itself.
        batching: see `Batching`.
        together: whether the examples of a batch do not depend on each other. If not, each request runs by itself.
        observe: is called with the rows of each run.
    """

    def __init__(
        self,
        run: Callable[[Sequence[NDArray[Any]]], Arrays],
        batching: Batching,
        *,
        together: bool = True,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.run = run
        self.batching = batching
        self.together = together
        self.observe = observe
        self.waiting: deque[Waiting] = deque()
        self._idle = batching.instances
        self._threads = ThreadPoolExecutor(batching.instances, thread_name_prefix="model")
        self._due: asyncio.Handle | None = None
        self._soon = False

    async def submit(self, inputs: Sequence[NDArray[Any]], seconds: float | None = None) -> Arrays:
        """Return the model's outputs for arrays (rows, *).

        Args:
            inputs: an array for each input of the model.
            seconds: in which the answer must come; None waits for ever.

        Raises:
            Refusal: the queue is full, or the answer does not come in time.
        """
        if len(self.waiting) >= self.batching.max_queue:
            raise Refusal(Cause.BUSY, f"{self.batching.max_queue} requests are waiting already; try again later")
        loop = asyncio.get_running_loop()
        kind = tuple((x.shape[1:], x.dtype) for x in inputs) if self.together else (object(),)
        rows = len(inputs[0]) if inputs and inputs[0].ndim else 1
        request = Waiting(inputs, rows, kind, loop.create_future(), loop.time())
        self.waiting.append(request)
        if self._idle and not self._soon:  # after the requests that come in this round of the loop
            if self._due is not None:  # this request may fill the batch that waits
                self._due.cancel()
            self._due, self._soon = loop.call_soon(self._dispatch), True
        late = None if seconds is None else loop.call_later(seconds, self._give_up, request, seconds)
        try:
            return await request.answer
        except asyncio.CancelledError:  # the client is gone
            self._forget(request)
            raise
        finally:
            if late is not None:
                late.cancel()

    def close(self) -> None:
        """End the threads when what waits is answered."""
        if self.waiting or self._idle < self.batching.instances:
            asyncio.get_running_loop().call_later(0.05, self.close)
        else:
            self._threads.shutdown(wait=False)
            self.run = _closed  # nothing holds the model any more: its memory is free at once

    def _give_up(self, request: Waiting, seconds: float) -> None:
        self._forget(request)
        if not request.answer.done():
            message = f"the request was not answered in {seconds:g} seconds; try again later"
            request.answer.set_exception(Refusal(Cause.BUSY, message))

    def _forget(self, request: Waiting) -> None:
        """Give up a request, which takes no place any more; one that runs already does so until the end."""
        with suppress(ValueError):
            self.waiting.remove(request)

    def _dispatch(self) -> None:
        self._due, self._soon = None, False
        loop = asyncio.get_running_loop()
        while self._idle:
            if not self.waiting:
                return
            batch = self._next()
            rows = sum(request.rows for request in batch)
            due = batch[0].since + (self.batching.max_wait if self.together else 0)
            if len(batch) == len(self.waiting) and rows < self.batching.max_rows and loop.time() < due:
                self._due = loop.call_at(due, self._dispatch)
                return
            for _ in batch:
                self.waiting.popleft()
            self._idle -= 1
            self.observe(rows)
            self._threads.submit(self._work, loop, batch)

    def _next(self) -> list[Waiting]:
        """Return the first requests of one kind that fit into one run; at least one."""
        batch: list[Waiting] = []
        rows = 0
        for request in self.waiting:
            rows += request.rows
            if batch and (request.kind != batch[0].kind or rows > self.batching.max_rows):
                break
            batch.append(request)
        return batch

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        """Run a batch, in a thread, and bring the answers to the loop."""
        loop.call_soon_threadsafe(self._deliver, batch, self._answers(batch))

    def _answers(self, batch: list[Waiting]) -> list[Arrays | Exception]:
        """Run a batch; where that fails, each request alone, so that the others get their answers."""
        try:
            return list(self._run_together(batch))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [answer for request in batch for answer in self._answers([request])]

    def _run_together(self, batch: list[Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            return [self.run(batch[0].inputs)]
        outputs = self.run([np.concatenate(parts) for parts in zip(*(each.inputs for each in batch), strict=True)])
        ends = np.cumsum([request.rows for request in batch])
        if any(len(y) != ends[-1] for y in outputs):
            raise ValueError("an output does not have as many rows as the inputs")
        return [[y[end - request.rows : end] for y in outputs] for request, end in zip(batch, ends, strict=True)]

    def _deliver(self, batch: list[Waiting], answers: list[Arrays | Exception]) -> None:
        self._idle += 1
        for request, answer in zip(batch, answers, strict=True):
            if request.answer.done():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)
        if self.waiting and self._due is None:
            self._dispatch()
