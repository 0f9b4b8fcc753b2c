"""Who runs with whom, in which order, and what the others get when one fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smx.runtime.serving.batcher import Arrays, Batcher, Batching
from smx.runtime.serving.protocol import Cause, Refusal


class Model:
    """Doubles its input, notes what it runs, and stands still while it is told to.

    Attributes:
        runs: the values of each run.
    """

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.go = threading.Event()
        self.go.set()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> Arrays:
        """Run one batch; -1 is not survived."""
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            assert self.go.wait(20)
            self.runs.append(inputs[0].ravel().tolist())
            if (inputs[0] == -1).any():
                raise ValueError("it is -1")
            return [inputs[0] * 2, inputs[0].sum(1)]
        finally:
            with self.lock:
                self.running -= 1


def rows(*values: float) -> list[NDArray[Any]]:
    return [np.array(values, np.float64)[:, None]]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop, which must not wait for ever."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


async def behind(model: Model, batcher: Batcher, *requests: list[NDArray[Any]]) -> list[Any]:
    """Start a run that stands still, let requests come, then let all go; return the answers to the requests."""
    model.go.clear()
    first = asyncio.create_task(batcher.submit(rows(0)))
    while not model.running:
        await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(batcher.submit(request)) for request in requests]
    await asyncio.sleep(0)
    model.go.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


@given(st.lists(st.lists(st.integers(0, 1000), max_size=6), min_size=1, max_size=12), st.integers(1, 8))
@settings(max_examples=30)
def test_answers_are_those_of_each_request_alone(requests: list[list[int]], max_rows: int) -> None:
    model = Model()
    seen: list[int] = []

    async def test() -> None:
        batcher = Batcher(model, Batching(max_rows=max_rows), observe=seen.append)
        arrays = [[np.array(values, np.float64).reshape(-1, 1)] for values in requests]
        answers = await behind(model, batcher, *arrays)
        for (x,), (doubled, summed) in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(doubled, x * 2)
            np.testing.assert_array_equal(summed, x.sum(1))
        batcher.close()

    run(test)
    assert list(chain(*model.runs[1:])) == list(chain(*requests))  # in the order in which they came, each once
    assert [len(each) for each in model.runs] == seen
    sizes = list(map(len, requests))
    assert all(size <= max(max_rows, *sizes) for size in seen)
    assert len(seen) - 1 == batches(sizes, max_rows)


def batches(sizes: list[int], max_rows: int) -> int:
    """Return how many runs it takes, if each takes the next requests as long as they fit."""
    count, filled = 0, max_rows + 1
    for size in sizes:
        filled += size
        if filled > max_rows:
            count, filled = count + 1, size
    return count


def test_requests_that_come_at_once_run_at_once_without_a_wait() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching())
        await asyncio.gather(*(batcher.submit(rows(i)) for i in range(5)))

    run(test)
    assert model.runs == [[0, 1, 2, 3, 4]]


def test_a_failing_request_fails_alone() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching())
        good, bad, other, empty = await behind(model, batcher, rows(1, 2), rows(-1), rows(3), rows())
        assert isinstance(bad, ValueError)
        assert str(bad) == "it is -1"
        assert [answer[0].tolist() for answer in (good, other, empty)] == [[[2], [4]], [[6]], []]
        assert (await batcher.submit(rows(7)))[0].tolist() == [[14]]

    run(test)


@pytest.mark.parametrize("lost", [1, 0])
def test_outputs_of_other_lengths_are_given_to_nobody(lost: int) -> None:
    """An output whose length depends on the values would be cut in the wrong places."""

    async def test() -> None:
        batcher = Batcher(lambda inputs: [x[x[:, 0] > 0] for x in inputs], Batching())
        answers = await asyncio.gather(batcher.submit(rows(lost, 5)), batcher.submit(rows(0, 7)))
        assert [answer[0].ravel().tolist() for answer in answers] == [[1, 5] if lost else [5], [7]]

    run(test)


def test_kinds_do_not_mix() -> None:
    model = Model()

    async def test() -> None:
        wide = [np.ones((1, 2))]
        small = [np.ones((1, 1), np.float32)]
        await behind(model, Batcher(model, Batching()), rows(1), rows(2), wide, small, rows(3), rows(4))

    run(test)
    assert model.runs == [[0], [1, 2], [1, 1], [1], [3, 4]]


def test_a_model_that_mixes_runs_each_request_by_itself() -> None:
    model = Model()
    seen: list[int] = []

    async def test() -> None:
        batcher = Batcher(model, Batching(), together=False, observe=seen.append)
        await behind(model, batcher, rows(1, 2), rows(3))
        with pytest.raises(ValueError, match="it is -1"):
            await batcher.submit(rows(-1))

    run(test)
    assert model.runs == [[0], [1, 2], [3], [-1]]


def test_a_full_queue_refuses_and_recovers() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching(max_queue=2, max_rows=1))
        answers = await behind(model, batcher, *(rows(i) for i in range(5)))
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert len(refused) == 3
        assert {refusal.cause for refusal in refused} == {Cause.BUSY}
        assert str(refused[0]) == "2 requests are waiting already; try again later"
        assert [answer[0].item() for answer in answers[:2]] == [0, 2]
        assert (await batcher.submit(rows(7)))[0].item() == 14

    run(test)


def test_requests_that_are_given_up_make_room_and_are_not_run() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching(max_queue=2, max_rows=8))
        model.go.clear()
        first = asyncio.create_task(batcher.submit(rows(0)))
        while not model.running:
            await asyncio.sleep(0.001)
        gone = [asyncio.create_task(batcher.submit(rows(i))) for i in (1, 2)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert len(batcher.waiting) == 0
        kept = [asyncio.create_task(batcher.submit(rows(i))) for i in (3, 4)]
        await asyncio.sleep(0)
        first.cancel()  # it runs already, and its answer is for nobody
        model.go.set()
        assert [answer[0].item() for answer in await asyncio.gather(*kept)] == [6, 8]

    run(test)
    assert model.runs == [[0], [3, 4]]


@pytest.mark.parametrize("max_rows", [3, 100])
def test_a_request_waits_for_others_until_the_batch_is_full_or_the_time_over(max_rows: int) -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching(max_wait=30 if max_rows == 3 else 0.2, max_rows=max_rows))
        tasks = []
        for i in range(3):
            tasks.append(asyncio.create_task(batcher.submit(rows(i))))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    run(test)  # a full batch does not wait for half a minute
    assert model.runs == [[0, 1, 2]]


def test_the_queue_of_another_kind_does_not_wait() -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching(max_wait=30))
        one = asyncio.create_task(batcher.submit(rows(1)))
        await asyncio.sleep(0.01)
        other = asyncio.create_task(batcher.submit([np.ones((1, 2))]))
        await one
        other.cancel()

    run(test)


@pytest.mark.parametrize("instances", [1, 3])
def test_as_many_runs_at_once_as_there_are_instances(instances: int) -> None:
    model = Model()

    async def test() -> None:
        batcher = Batcher(model, Batching(max_rows=1, instances=instances))
        model.go.clear()
        tasks = [asyncio.create_task(batcher.submit(rows(i))) for i in range(6)]
        while model.running < instances:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert model.running == instances
        model.go.set()
        assert [answer[0].item() for answer in await asyncio.gather(*tasks)] == [0, 2, 4, 6, 8, 10]

    run(test)
    assert model.most == instances


def test_closing_answers_what_waits_and_ends_the_threads() -> None:
    model = Model()
    before = set(threading.enumerate())

    async def test() -> None:
        batcher = Batcher(model, Batching(max_rows=1))
        model.go.clear()
        tasks: list[Awaitable[Arrays]] = [asyncio.create_task(batcher.submit(rows(i))) for i in range(3)]
        await asyncio.sleep(0.01)
        batcher.close()
        model.go.set()
        assert [answer[0].item() for answer in await asyncio.gather(*tasks)] == [0, 2, 4]
        while set(threading.enumerate()) - before:
            await asyncio.sleep(0.01)

    run(test)
