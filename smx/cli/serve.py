"""`smx serve`: ONNX files over the Open Inference Protocol. Runs without torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from smx import limits
from smx.cli import options
from smx.cli.group import INTERRUPTED
from smx.cli.output import console
from smx.errors import InputError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SECONDS = options.Number(min=0.001, max=86_400)
PORT = click.IntRange(0, 65_535)
BYTES_IN_MIB = 2**20
LONGEST_KEY = 2**16


def option(group: str, *names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Return an option under a heading of the help."""
    return click.option(*names, cls=options.Option, group=group, **attributes)


@click.command(cls=options.Command)
@click.argument("source", metavar="MODEL.onnx|FOLDER", type=options.PATH)
@option("Address", "--host", default="127.0.0.1", help="Where to listen; 0.0.0.0 is every network of this machine.")
@option("Address", "--port", type=PORT, default=8080, help="Of HTTP; 0 takes a free one.")
@option("Address", "--grpc-port", type=PORT, default=None, help="Speak gRPC too, on this port; 0 takes a free one.")
@option("Address", "--tls-cert", type=options.PATH, metavar="FILE.pem", help="Certificate: both ports speak TLS.")
@option("Address", "--tls-key", type=options.PATH, metavar="FILE.pem", help="Its private key.")
@option(
    "Address",
    "--api-key-file",
    type=options.PATH,
    metavar="FILE",
    help="Clients must send the text of FILE: 'Authorization: Bearer KEY'. Or set SMX_API_KEY.",
)
@option(
    "Speed",
    "--threads",
    type=click.IntRange(1, limits.THREADS),
    metavar="N",
    help="Threads of one operator.  [default: smx tune's, else one a core]",
)
@option(
    "Speed",
    "--instances",
    type=click.IntRange(1, 256),
    default=1,
    metavar="N",
    help="Runs of a model at the same time.",
)
@option(
    "Speed",
    "--max-batch",
    type=click.IntRange(1, 65_536),
    default=64,
    metavar="N",
    help="Rows of requests that share a run; 1: none do.",
)
@option(
    "Speed",
    "--max-wait",
    type=options.Number(0, 10_000),
    default=0.0,
    metavar="MS",
    help="A request waits so long for others when nothing runs.",
)
@option(
    "Limits",
    "--max-queue",
    type=click.IntRange(1, 1_000_000),
    default=1024,
    metavar="N",
    help="Requests that wait; more get 429.",
)
@option("Limits", "--timeout", type=SECONDS, default=30.0, metavar="S", help="A request must be answered in this time.")
@option("Limits", "--max-body", type=click.IntRange(1, 2047), default=16, metavar="MIB", help="Size of a request.")
@option("Limits", "--max-rows", type=click.IntRange(1, 1_000_000), default=4096, metavar="N", help="Rows of a request.")
@option(
    "Limits",
    "--max-json-depth",
    type=click.IntRange(4, 512),
    default=32,
    metavar="N",
    help="Lists and objects in each other.",
)
@option(
    "Limits",
    "--read-timeout",
    type=SECONDS,
    default=10.0,
    metavar="S",
    help="For a request's headers, and for its body.",
)
@option("Limits", "--idle-timeout", type=SECONDS, default=75.0, metavar="S", help="For a connection without a request.")
@option(
    "Limits",
    "--max-connections",
    type=click.IntRange(1, 100_000),
    default=1024,
    metavar="N",
    help="The longest idle are closed.",
)
@option(
    "Watching",
    "--poll",
    type=options.Number(0, 86_400),
    default=1.0,
    metavar="S",
    help="Look for replaced files; 0 never.",
)
@option("Watching", "--log-requests", is_flag=True, help="Log answered requests too, not only refused ones.")
@option(
    "Watching",
    "--web-runtime",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="dist of the npm package onnxruntime-web: the page runs the model in the browser too.",
)
@options.session
def serve(source: Path, api_key_file: Path | None, **given: Any) -> None:
    """Serve models over HTTP and gRPC (Open Inference Protocol 2, as KServe and Triton speak it).

    FOLDER holds NAME.onnx files, or NAME/VERSION/model.onnx as a Triton model repository. A file that is replaced is
    loaded anew. Threads that smx tune found are used. The page at / shows the model. SIGTERM and Ctrl-C answer what was
    asked, and end.

    \b
    smx serve mnist.onnx --port 8080 --grpc-port 8001
    """
    from smx.runtime.serving.batcher import Batching
    from smx.runtime.serving.model import Loading
    from smx.runtime.serving.server import Address
    from smx.runtime.serving.service import Limits
    from smx.workflows.serve import serve as run

    batching = Batching(
        max_rows=given["max_batch"],
        max_wait=given["max_wait"] / 1000,
        max_queue=given["max_queue"],
        instances=given["instances"],
    )
    loading = Loading(
        batching=batching, **{key: given[key] for key in ("provider", "allow_fallback", "threads", "max_rows")}
    )
    limits = Limits(
        max_body=given["max_body"] * BYTES_IN_MIB,
        max_depth=given["max_json_depth"],
        **{key: given[key] for key in ("timeout", "read_timeout", "idle_timeout", "max_connections")},
    )
    address = Address(**{key: given[key] for key in ("host", "port", "grpc_port", "tls_cert", "tls_key")})
    end = run(
        source,
        address=address,
        loading=loading,
        limits=limits,
        api_key=_api_key(api_key_file),
        poll=given["poll"],
        log_requests=given["log_requests"],
        web_runtime=given["web_runtime"],
        started=_show,
    )
    code = INTERRUPTED if end.signal == signal.SIGINT else 0
    if end.forced:  # without waiting for threads that run a model
        console(None).file.flush()
        os._exit(code)
    raise click.exceptions.Exit(code)


def _show(about: dict[str, Any]) -> None:
    names = ", ".join(about["models"])
    rpc = f", gRPC at {about['grpc']}" if about["grpc"] else ""
    console(None).print(f"Serving {names} at {about['url']}{rpc}; Ctrl-C ends it", soft_wrap=True)


def _api_key(path: Path | None) -> str | None:
    key = os.environ.get("SMX_API_KEY")
    if path is not None:
        try:
            with path.open("rb") as file:
                key = file.read(LONGEST_KEY).decode(errors="replace").strip()
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror}); expected a file with the API key") from error
    if key is not None and not (key.isascii() and key.isprintable() and len(key) >= 8 and " " not in key):
        raise InputError(f"{path or 'SMX_API_KEY'} must hold a key of at least 8 printable ASCII characters, no spaces")
    return key
