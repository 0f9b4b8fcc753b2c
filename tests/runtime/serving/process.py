"""`smx serve` as a process of its own, on free ports."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED = re.compile(r"Serving (.*) at (https?)://(\S+?:\d+)(?:, gRPC at (\S+:\d+))?; Ctrl-C ends it\n")


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        process: of the command.
        models: as the command names them.
        scheme, http, grpc: where it listens, `host:port`.
        log: its standard error.
    """

    process: subprocess.Popen[str]
    models: str
    scheme: str
    http: str
    grpc: str
    log: Path

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"{self.scheme}://{self.http}"

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return what the log says of an event, oldest first."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(by)
        return self.process.wait(60)


@contextmanager
def serving(
    source: Path,
    *options: str | Path,
    grpc: bool = True,
    env: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> Iterator[Running]:
    """Start the command, wait for its line, and end it; it must not have failed within."""
    ports = ("--port", "0", *(("--grpc-port", "0") if grpc else ()))
    command = [*prefix, sys.executable, "-m", "smx", "serve", *map(str, (source, *ports, *options))]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                started = STARTED.fullmatch(line)
                assert started, f"{line}{log.read_text()}"
                models, scheme, http, rpc = started.groups()
                running = Running(process, models, scheme, http, rpc or "", log)
                yield running
                if process.poll() is None:
                    assert running.end() == 0, log.read_text()
                assert not running.events("failed"), log.read_text()
            finally:
                if process.poll() is None:
                    process.kill()
