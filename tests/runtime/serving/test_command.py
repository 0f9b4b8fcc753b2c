"""`smx serve` as a user runs it: files that change, a key and TLS, what is wrong, what it leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from tests.conftest import all_refused, refused, smx, smx_many
from tests.runtime.fakes import PLUS_ONE, PLUS_TWO, save
from tests.runtime.serving import models
from tests.runtime.serving.clients import client
from tests.runtime.serving.process import serving
from tests.test_nothing_outside import STRACE

RNG = np.random.default_rng(0)
KEY = "a-key-of-this-test"


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_files_are_replaced_added_and_removed_while_the_server_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx")

    def put(content: str | bytes, name: str = "m.onnx") -> None:
        fresh = tmp_path / ".fresh"
        fresh.write_bytes(content) if isinstance(content, bytes) else save(fresh, content)
        os.replace(fresh, tmp_path / name)  # noqa: PTH105

    with serving(tmp_path, "--poll", "0.05", grpc=False) as server:
        opened = http.InferenceServerClient(server.http)
        entry = http.InferInput("x", [1, 3], "FP32")
        entry.set_data_from_numpy(np.zeros((1, 3), np.float32))

        def answer(model: str = "m") -> float:
            return float(opened.infer(model, [entry]).as_numpy("y")[0, 0])

        assert answer() == 1
        put(PLUS_TWO)
        until(lambda: answer() == 2)
        put(b"hello")
        until(lambda: server.events("refused"))
        (event,) = server.events("refused")
        assert (event["model"], event["still_serving"]) == ("m", True)
        assert "m.onnx is no model that ONNX Runtime can load" in event["reason"]
        assert answer() == 2
        assert opened.is_server_ready()
        assert "m.onnx is no model" in opened.get_model_repository_index()[0]["reason"]
        put(PLUS_ONE)
        until(lambda: answer() == 1)
        put(PLUS_TWO, "new.onnx")
        until(lambda: opened.is_model_ready("new"))
        assert answer("new") == 2
        path.unlink()
        until(lambda: not opened.is_model_ready("m"))
        with pytest.raises(InferenceServerException, match="there is no model 'm' here"):
            answer()
        opened.close()
        assert server.end(signal.SIGINT) == 130


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    subprocess.run([*command.split(), *names, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    return made


def test_a_key_and_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    path = models.make(tmp_path / "m.onnx")
    x = RNG.random((2, 4), np.float32)
    wrong: tuple[dict[str, str], ...] = {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {}
    with serving(path, "--tls-cert", cert, "--tls-key", key, env={**os.environ, "SMX_API_KEY": KEY}) as server:
        assert server.url.startswith("https://")
        trusted = {"ssl": True, "ssl_context_factory": lambda: ssl.create_default_context(cafile=cert)}
        for module, address, options, names in (
            (http, server.http, trusted, ("Authorization", "UNAUTHENTICATED")),
            (grpc, server.grpc, {"ssl": True, "root_certificates": str(cert)}, ("authorization", "")),
        ):
            opened = module.InferenceServerClient(address, **options)
            entry = module.InferInput("x", [2, 4], "FP32")
            entry.set_data_from_numpy(x)
            assert opened.is_server_live()  # probes need no key
            assert opened.is_server_ready()
            found = opened.infer("m", [entry], headers={names[0]: f"Bearer {KEY}"}).as_numpy("y")
            np.testing.assert_allclose(found, x @ models.WEIGHTS["w"], rtol=1e-5, atol=1e-6)
            for headers in wrong:
                lower = {name.lower() if module is grpc else name: value for name, value in headers.items()}
                with pytest.raises(InferenceServerException, match="this server needs a key"):
                    opened.infer("m", [entry], headers=lower)
                with pytest.raises(InferenceServerException, match="this server needs a key"):
                    opened.get_model_metadata("m", headers=lower)
            opened.close()
        untrusted = http.InferenceServerClient(server.http, ssl=True)
        with pytest.raises(ssl.SSLError):
            untrusted.is_server_live()
        untrusted.close()
        assert KEY not in server.log.read_text()


def test_settings_that_are_wrong(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    path = models.make(tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "key").write_text("short")
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    (tmp_path / "m.onnx.tune.json").write_text("{")
    port = ("--port", "0")
    all_refused(
        (("serve", tmp_path / "none.onnx", *port), "none.onnx does not exist"),
        (("serve", tmp_path / "bad.onnx", *port), "bad.onnx is no model that ONNX Runtime can load"),
        (("serve", path, *port, "--max-body", "2048"), "2048 is not in the range 1<=x<=2047"),
        (("serve", tmp_path / "empty", *port), "empty holds no NAME.onnx and no NAME/VERSION/model.onnx"),
        (("serve", path, *port), "m.onnx.tune.json can't be read"),
        (("serve", path, *port, "--tls-cert", cert), "TLS needs both a certificate and its key"),
        (("serve", path, *port, "--tls-cert", key, "--tls-key", cert), "are no certificate and key"),
        (("serve", path, *port, "--api-key-file", tmp_path / "key"), "key must hold a key of at least 8"),
        (("serve", path, *port, "--api-key-file", tmp_path / "binary"), "binary must hold a key of at least 8"),
        (
            ("serve", models.make(tmp_path / "n.onnx"), *port, "--provider", "tensorrt"),
            "the provider 'tensorrt' is not in this ONNX",
        ),
    )


def test_ports_that_are_in_use(tmp_path: Path) -> None:
    path = models.make(tmp_path / "m.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for result, part in zip(
            smx_many(
                ("serve", path, "--port", port),
                ("serve", path, "--port", "0", "--grpc-port", port),
                ("serve", path, "--port", "0", "--host", "192.0.2.1"),
            ),
            (f"can't listen on 127.0.0.1 port {port}: ", f"can't listen on 127.0.0.1:{port}", "192.0.2.1 port 0"),
            strict=True,
        ):
            refused(result, 1, part)
            assert result.stdout == ""


@pytest.mark.skipif(not STRACE, reason="needs strace")
def test_nothing_is_written_and_nobody_is_called(tmp_path: Path) -> None:
    """The server itself must get the signal, so that strace runs beside it (-D)."""
    path, trace, home = models.make(tmp_path / "m.onnx"), tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    calls = "openat,open,creat,mkdir,mkdirat,connect,sendto,sendmsg,sendmmsg"
    prefix = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(trace))
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    env |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(path, env=env, prefix=prefix) as server, client("http", server) as ask:
        ask("m", [{"x": np.zeros((1, 4), np.float32)}], ("y",))
    assert list(home.iterdir()) == []
    lines = trace.read_text(errors="replace").splitlines()
    assert any("m.onnx" in line for line in lines)
    written = [line for line in lines if re.search("O_WRONLY|O_RDWR|O_CREAT|mkdir|creat", line) and "= -1" not in line]
    allowed = ('"/dev/', '"/proc/', f'"{home}/')
    assert [line for line in written if not any(part in line for part in allowed)] == []
    # 127.0.0.1 and ::1 answer clients, or are tried by gRPC to learn which kinds of addresses there are.
    assert [line for line in lines if re.search(r"connect\(.*AF_INET", line) and "127.0.0.1" not in line] == []


def test_help_loads_no_server() -> None:
    result = smx("serve", "--help")
    assert result.returncode == 0
    code = "import sys, smx.cli.serve; print({'uvicorn', 'grpc', 'onnxruntime'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
