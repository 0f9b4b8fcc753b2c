"""A well-behaved client, in a process of its own: it asks again and again, and compares every answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

PAUSE = 0.01
TOLERANCE = 1e-4


@dataclass
class Found:
    """What the client saw.

    Attributes:
        seconds: of each answer, by protocol.
        reconnected: asked again on a new connection, since the server had closed the idle one.
        faults: wrong answers and errors.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"rest": [], "grpc": []})
    reconnected: int = 0
    faults: list[str] = field(default_factory=list)


def keep_asking(http: str, grpc: str, model: Path, end: Event, answers: Queue[Found]) -> None:
    """Ask with tritonclient, whom nobody here wrote, over REST and gRPC in turn, until the event."""
    import onnxruntime as ort
    import tritonclient.grpc
    import tritonclient.http

    random, found = np.random.default_rng(0), Found()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = [random.random((rows, 1, 28, 28), dtype=np.float32) for rows in (1, 2, 5)]
    expected = [session.run(None, {"x": x})[0] for x in batches]

    def client(protocol: str) -> Any:
        if protocol == "grpc":
            return tritonclient.grpc.InferenceServerClient(grpc)
        return tritonclient.http.InferenceServerClient(http, connection_timeout=60, network_timeout=60)

    clients = {protocol: client(protocol) for protocol in found.seconds}
    turn = 0
    while not end.is_set():
        for protocol, module in (("rest", tritonclient.http), ("grpc", tritonclient.grpc)):
            x, y = batches[turn % 3], expected[turn % 3]
            given = module.InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x)
            start = time.perf_counter()
            try:
                try:
                    answer = clients[protocol].infer("image", [given])
                except ConnectionError:  # its connection was the one that was idle for the longest time
                    found.reconnected += 1
                    clients[protocol] = client(protocol)
                    answer = clients[protocol].infer("image", [given])
                if not np.allclose(answer.as_numpy("y"), y, atol=TOLERANCE):
                    found.faults.append(f"{protocol}: a wrong answer")
            except Exception as error:
                found.faults.append(f"{protocol}: {type(error).__name__}: {error}"[:300])
                clients[protocol] = client(protocol)
            found.seconds[protocol].append(time.perf_counter() - start)
        turn += 1
        time.sleep(PAUSE)
    answers.put(found)
