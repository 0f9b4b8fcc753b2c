"""What does `smx serve` do with hostile requests? `python benchmarks/serving_hostile.py --json PATH`.

The real command serves two small models. Thousands of hostile requests of all kinds come over REST and gRPC, many at
a time, while a well-behaved client asks again and again. Each hostile request must get an error of the 4xx range in the
protocol's shape, or a closed connection; each good one its right answer. The memory of the server is watched, and at
the end SIGTERM must end it with exit code 0. Whatever is otherwise is shown, and ends this command with exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import click
from hostile import bodies, calls, clients, good, heads, pictures
from hostile.talk import Case, Kind, Target, run

from smx.cli import options
from smx.cli.output import table, write_json
from smx.errors import SmxError
from smx.timing.machine import machine

READ_TIMEOUT, IDLE_TIMEOUT, TIMEOUT = 1.0, 5.0, 20.0
CONNECTIONS = 512
MAX_BODY = 2**20
AT_ONCE = 24
MAX_GROWTH = 600 * 2**20
"""Bytes that the server's memory may grow by at most: a picture of 16 million pixels takes most of it."""
MODELS = {
    "image": """<ir_version: 10, opset_import: ["" : 20]>
        image (float[B,1,28,28] x) => (float[B,10] y) <float[784,10] w = {WEIGHTS}>
        { flat = Flatten (x) y = MatMul (flat, w) }""",
    "lookup": """<ir_version: 10, opset_import: ["" : 20]>
        lookup (int64[B] i) => (float[B] y) <float[10] t = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
        { y = Gather (t, i) }""",
}


@click.command()
@click.option("--requests", type=click.IntRange(min=1), default=2000, show_default=True, metavar="N", help="At least.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option("--only", default="", metavar="KIND,...", help="Only these kinds.")
@click.option("--smallest", is_flag=True, help="One or two requests of each kind: only to see that this works.")
@options.json
def main(requests: int, seed: int, only: str, smallest: bool, json_path: str | None) -> None:
    """Send hostile requests to a server."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    kinds: dict[str, Kind | None] = {**bodies.KINDS, **heads.KINDS, **clients.KINDS, **pictures.KINDS}
    kinds |= {"for_neurons": bodies.for_neurons, **dict.fromkeys(calls.KINDS)}
    if only:
        kinds = {name: kinds[name] for name in only.split(",") if name in kinds}
    each = 1 if smallest else -(-requests // max(len(kinds), 1))
    crowds = 0 if only and "idle_crowds" not in only else 2 if smallest else 30
    with tempfile.TemporaryDirectory() as name:
        found = campaign(Path(name), kinds, each, crowds, seed)
    people = write_json(json_path, found)
    rows = [
        (kind, str(sum(each["answers"].values())), f"{each['longest_s']:.1f}", _shown(each["answers"]))
        for kind, each in found["kinds"].items()
    ]
    people.print(table(("kind", "requests", "longest s", "answers"), rows))
    people.print(
        f"{found['requests']} hostile requests in {found['seconds']:.0f} s. Good requests: {found['good']}."
        f" Memory: {found['memory']}"
    )
    if found["faults"]:
        for fault in found["faults"][:50]:
            people.print(fault)
        raise SystemExit(1)


def campaign(folder: Path, kinds: dict[str, Kind | None], each: int, crowds: int, seed: int) -> dict[str, Any]:
    """Start server and good client, send everything, and return what was found."""
    models = folder / "models"
    models.mkdir()
    write_models(models)
    with server(models, folder / "log") as (process, target):
        context = multiprocessing.get_context("spawn")
        end, answers = context.Event(), context.Queue()
        places = f"{target.host}:{target.port}", f"{target.host}:{target.grpc_port}"
        client = context.Process(target=good.keep_asking, args=(*places, models / "image.onnx", end, answers))
        client.start()
        time.sleep(3)  # it loads its libraries; and the server's memory settles
        before, start = memory(process.pid), time.perf_counter()
        counts, longest, faults = asyncio.run(send_all(kinds, each, crowds, Random(seed), target))
        took, after = time.perf_counter() - start, memory(process.pid)
        end.set()
        seen: good.Found = answers.get(timeout=120)
        client.join()
        if process.poll() is not None:
            faults.append(f"the server ended with exit code {process.returncode}")
        process.terminate()
        code = process.wait(120)
    growth = after["peak"] - before["now"]
    faults += [f"good client: {fault}" for fault in seen.faults]
    faults += [f"the exit code was {code}"] if code else []
    faults += [f"the memory grew by {growth} bytes"] if growth > MAX_GROWTH else []
    faults += faults_of_log(folder / "log")
    return {
        "requests": sum(sum(each.values()) for each in counts.values()),
        "seed": seed,
        "seconds": took,
        "kinds": {
            kind: {"answers": dict(sorted(each.items())), "longest_s": round(longest[kind], 3)}
            for kind, each in counts.items()
            if each
        },
        "good": {
            name: {
                "answers": len(seconds),
                "median_ms": 1e3 * sorted(seconds)[len(seconds) // 2],
                "worst_ms": 1e3 * max(seconds),
            }
            for name, seconds in seen.seconds.items()
            if seconds
        }
        | {"reconnected": seen.reconnected},
        "memory": {
            "before_mib": before["now"] / 2**20,
            "after_mib": after["now"] / 2**20,
            "peak_mib": after["peak"] / 2**20,
        },
        "limits": {"connections": CONNECTIONS, "body": MAX_BODY, "read_timeout": READ_TIMEOUT, "timeout": TIMEOUT},
        "faults": faults,
        "machine": machine(),
    }


async def send_all(
    kinds: dict[str, Kind | None], each: int, crowds: int, random: Random, target: Target
) -> tuple[dict[str, Counter[str]], dict[str, float], list[str]]:
    """Send requests of all kinds in random order, many at a time; then crowds of idle connections."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in sorted(kinds)}
    faults: list[str] = []
    seconds: dict[str, float] = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(kind: str, sending: Awaitable[tuple[list[str], list[str]]], what: object) -> None:
        async with gate:
            start = time.perf_counter()
            outcomes, wrong = await sending
            seconds[kind] = max(seconds.get(kind, 0.0), time.perf_counter() - start)
        counts[kind].update(outcomes)
        faults.extend(f"{kind}: {fault}; sent {what!r:.300}" for fault in wrong)

    order = [kind for kind in sorted(kinds) for _ in range(each)]
    random.shuffle(order)
    waiting = []
    for kind in order:
        make, own = kinds[kind], Random(random.random())
        case: Case | None = make(own, target) if make is not None else None
        sending = run(case, target) if case is not None else calls.run(kind, own, target)
        waiting.append(asyncio.create_task(send(kind, sending, case.send if case is not None else kind)))
        if len(waiting) >= 4 * AT_ONCE:  # bodies take memory
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)
    counts["idle_crowds"] = Counter()
    crowd = [clients.idle_crowds(random, target) for _ in range(crowds)]
    await asyncio.gather(*(send("idle_crowds", run(case, target), case.send) for case in crowd))
    return counts, seconds, faults


@contextmanager
def server(models: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], Target]]:
    """Start the real command on free ports."""
    command = [sys.executable, "-m", "smx", "serve", str(models), "--port", "0", "--grpc-port", "0"]
    command += ["--read-timeout", f"{READ_TIMEOUT}", "--idle-timeout", f"{IDLE_TIMEOUT}", "--timeout", f"{TIMEOUT}"]
    command += ["--max-connections", f"{CONNECTIONS}", "--max-body", f"{MAX_BODY // 2**20}", "--poll", "0.5"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            ports = re.search(r"at http://127\.0\.0\.1:(\d+), gRPC at 127\.0\.0\.1:(\d+)", line)
            if ports is None:
                raise SmxError(f"the server did not start: {log.read_text()}")
            yield process, Target("127.0.0.1", int(ports[1]), int(ports[2]), READ_TIMEOUT, MAX_BODY)
        finally:
            process.kill()


def write_models(folder: Path) -> None:
    """Write a model of images, and one of indices that refuses some values."""
    import onnx.parser

    random = Random(0)
    weights = ", ".join(f"{random.uniform(-1, 1):.6f}" for _ in range(7840))
    for name, text in MODELS.items():
        onnx.save(onnx.parser.parse_model(text.replace("WEIGHTS", weights)), folder / f"{name}.onnx")


def memory(process: int) -> dict[str, int]:
    """Return the bytes of a process that are in memory, now and at most so far."""
    text = Path(f"/proc/{process}/status").read_text() if Path(f"/proc/{process}").exists() else ""
    sizes = {name: re.search(rf"{name}:\s+(\d+) kB", text) for name in ("VmRSS", "VmHWM")}
    now, peak = (int(size[1]) * 1024 if size else 0 for size in sizes.values())
    return {"now": now, "peak": peak}


def faults_of_log(log: Path) -> list[str]:
    """Return what is wrong with the log: each line is one JSON object of plain ASCII, and none says `failed`."""
    faults = []
    for line in log.read_bytes().splitlines():
        try:
            assert line.isascii()
            assert line.decode().isprintable()
            entry = json.loads(line)
        except Exception:
            faults.append(f"log: {line[:300]!r}")
            continue
        if entry["event"] == "failed" or entry.get("level") == "error":
            faults.append(f"log: {line[:500].decode()}")
    return faults


def _shown(counts: dict[str, int]) -> str:
    return ", ".join(f"{status} x {count}" for status, count in counts.items())


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
