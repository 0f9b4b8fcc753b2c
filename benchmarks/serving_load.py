"""Load on `smx serve`, over loopback: throughput and latency beside a server without batching and beside others.

    python benchmarks/serving_load.py --json serving-load.json

The network is 784-512-256-128-10 with neurons distributed as the paper found them, in the sorted layout; a request is
one example, as a binary tensor. The generator is wrk (Debian's package of that name) with one thread, on the same
machine. All servers run all the time; each number of connections is measured in short blocks, one candidate after the
other, so that what the machine does besides meets all of them. The ceiling is plain onnxruntime in a loop, without any
server.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from smx.cli.output import console, logs, table, write_json
from smx.runtime.session import Session
from smx.timing.machine import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (784, 512, 256, 128, 10)
NAME = "mixed"
RESULT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Candidate(NamedTuple):
    """A server: what starts it, where it answers, and its process."""

    name: str
    command: list[str]
    port: int


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


def ours(name: str, model: Path, *arguments: str) -> Candidate:
    """Return a candidate that runs `smx serve`."""
    port = free_port()
    return Candidate(name, [sys.executable, "-m", "smx", "serve", str(model), "--port", str(port), *arguments], port)


def kserve(python: Path, model: Path) -> Candidate:
    """Return the candidate of the KServe SDK, installed for another interpreter."""
    port = free_port()
    script = Path(__file__).with_name("kserve_server.py")
    return Candidate("kserve", [str(python), str(script), "--http_port", str(port), "--onnx", str(model)], port)


@contextmanager
def running(candidate: Candidate, logs_to: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, and wait until it is ready."""
    with (logs_to / f"{candidate.name.replace(' ', '-')}.log").open("wb") as log:
        process = subprocess.Popen(candidate.command, stdout=log, stderr=log)
        try:
            wait_until_ready(candidate, process, logs_to)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(candidate: Candidate, process: subprocess.Popen[bytes], logs_to: Path) -> None:
    """Ask until the model is ready."""
    url = f"http://127.0.0.1:{candidate.port}/v2/models/{NAME}/ready"
    for _ in range(600):
        if process.poll() is not None:
            raise click.ClickException(f"{candidate.name} ended with {process.returncode}; its log is in {logs_to}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise click.ClickException(f"{candidate.name} was not ready in a minute; its log is in {logs_to}")


def write_script(folder: Path, x: np.ndarray[Any, Any], input_name: str) -> Path:
    """Write wrk's script: one example as a binary tensor."""
    tensor = {
        "name": input_name,
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": x.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = "".join(f"\\{byte:03d}" for byte in head + x.tobytes())
    path = folder / "request.lua"
    path.write_text(
        f'wrk.method = "POST"\nwrk.headers["Inference-Header-Content-Length"] = "{len(head)}"\n'
        f'wrk.headers["Content-Type"] = "application/octet-stream"\nwrk.body = "{body}"\n{RESULT}'
    )
    return path


def block(candidate: Candidate, connections: int, seconds: float, script: Path) -> dict[str, float]:
    """Load a server for some seconds; return requests, seconds, p50 and p99 in ms, failed."""
    url = f"http://127.0.0.1:{candidate.port}/v2/models/{NAME}/infer"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"^\{.*\}$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    result: dict[str, float] = json.loads(found[0])
    return result


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ceiling(model: Path, x: np.ndarray[Any, Any], seconds: float) -> float:
    """Return the runs a second of plain onnxruntime in a loop, one example a run and one thread."""
    run = Session(model, threads=1).bound(x)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        count += 1
    return count / (time.perf_counter() - start)


def stalls(seconds: float) -> dict[str, float]:
    """Return how evenly the machine computes with nothing else running: pieces of half a millisecond of plain Python.

    A piece that takes more than three times the median is a stall; `stalled` is the share of the time that goes there.
    """
    found = []
    start = last = time.perf_counter()
    while last - start < seconds:
        sum(i * i for i in range(8000))
        found.append(-last + (last := time.perf_counter()))
    pieces = np.array(found) * 1e3
    slow = pieces[pieces > 3 * np.median(pieces)]
    return {
        "median_ms": float(np.median(pieces)),
        "slowest_ms": float(pieces.max()),
        "slowest_ratio": float(pieces.max() / np.median(pieces)),
        "stalled": float(slow.sum() / pieces.sum()),
    }


def summary(blocks: list[dict[str, float]]) -> dict[str, float]:
    """Return the figures of a candidate at one number of connections; percentiles are medians over the blocks."""
    rates = [each["requests"] / each["seconds"] for each in blocks]
    return {
        "requests_a_second": float(np.median(rates)),
        "lowest": min(rates),
        "highest": max(rates),
        "p50_ms": float(np.median([each["p50"] for each in blocks])),
        "p99_ms": float(np.median([each["p99"] for each in blocks])),
        "requests": sum(each["requests"] for each in blocks),
        "failed": sum(each["failed"] for each in blocks),
    }


def measure(
    candidates: list[Candidate], script: Path, counts: list[int], seconds: float, length: float
) -> list[dict[str, Any]]:
    """Load the candidates in turn, in random order, for `seconds` each at each number of connections."""
    rows = []
    for connections in counts:
        found: dict[str, list[dict[str, float]]] = {candidate.name: [] for candidate in candidates}
        for candidate in candidates:  # warm up
            block(candidate, connections, min(length, 2), script)
        for _ in range(max(1, round(seconds / length))):
            for candidate in random.sample(candidates, len(candidates)):
                found[candidate.name].append(block(candidate, connections, length, script))
        for name, blocks in found.items():
            rows.append({"server": name, "connections": connections, **summary(blocks)})
            logs().print(f"{name}, {connections} connections: {rows[-1]['requests_a_second']:.0f} a second")
    return rows


def export(folder: Path, smallest: bool) -> Path:
    """Write the network."""
    from paper_model import SMALLEST, paper_model

    from smx.export import export_onnx

    saved = paper_model(SMALLEST if smallest else SIZES)
    export_onnx(saved.build(), folder / f"{NAME}.onnx", example_input=saved.example_input(), layout="sorted")
    return folder / f"{NAME}.onnx"


@click.command()
@click.option("--json", "json_path", required=True, help="Where the result goes.")
@click.option(
    "--seconds", default=60.0, show_default=True, help="Of load on each server at each number of connections."
)
@click.option("--block", "length", default=10.0, show_default=True, help="Seconds without a change of the server.")
@click.option("--connections", default="1,8,64,256", show_default=True, help="Numbers of connections.")
@click.option("--waits", default="", help="Compare these values of --max-wait, in ms, instead of the other servers.")
@click.option("--threads", default="", help="Compare these values of --threads instead.")
@click.option(
    "--kserve", "kserve_python", type=click.Path(path_type=Path, exists=True), help="Interpreter with kserve."
)
@click.option("--soak", default=0.0, help="Afterwards, load `smx serve` for so many seconds and look at its memory.")
@click.option("--smallest", is_flag=True, help="A small network for a moment, to see that all of it works.")
def main(
    json_path: str,
    seconds: float,
    length: float,
    connections: str,
    waits: str,
    threads: str,
    kserve_python: Path | None,
    soak: float,
    smallest: bool,
) -> None:
    """Measure, show the table, write the JSON."""
    counts = [int(count) for count in connections.split(",")]
    if smallest:
        counts, seconds, length = [2], 1.0, 1.0
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        model = export(folder, smallest)
        session = Session(model)
        (x,) = session.random_inputs(1)
        script = write_script(folder, x, session.inputs[0].name)
        if waits or threads:
            option, values = ("--max-wait", waits) if waits else ("--threads", threads)
            candidates = [ours(f"{option} {value}", model, option, value) for value in values.split(",")]
        else:
            candidates = [ours("smx serve", model), ours("smx serve --max-batch 1", model, "--max-batch", "1")]
            if kserve_python is not None:
                candidates.append(kserve(kserve_python, model))
        processes = [stack.enter_context(running(candidate, folder)) for candidate in candidates]
        uneven = stalls(min(length, 10))
        before = memory(processes[0])
        loop = [ceiling(model, x, min(length, 5))]
        rows = measure(candidates, script, counts, seconds, length)
        loop.append(ceiling(model, x, min(length, 5)))
        flat = [{"seconds": 0.0, "mib": memory(processes[0])}]
        start = time.monotonic()
        while soak and time.monotonic() - start < soak:
            block(candidates[0], 64, min(30.0, soak), script)
            flat.append({"seconds": time.monotonic() - start, "mib": memory(processes[0])})
    content = {
        "network": "-".join(map(str, SIZES)),
        "machine_stalls": uneven,
        "loop_runs_a_second": loop,
        "servers": rows,
        "memory_mib": {"before": before, "soak": flat},
        "machine": machine(),
    }
    people = write_json(json_path, content) if json_path else console(None)
    people.print(f"plain onnxruntime in a loop: {np.mean(loop):.0f} runs a second")
    people.print(
        f"a loop in Python with nothing else running: up to {uneven['slowest_ratio']:.0f} times as slow,"
        f" {uneven['stalled']:.1%} of the time more than 3 times"
    )
    columns = ("requests_a_second", "p50_ms", "p99_ms", "failed")
    cells = ((row["server"], str(row["connections"]), *(f"{row[column]:.1f}" for column in columns)) for row in rows)
    people.print(table(("server", ">connections", *(f">{column}" for column in columns)), cells, section=1))


if __name__ == "__main__":
    main()
