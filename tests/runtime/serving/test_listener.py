"""How connections come in: with TLS, in crowds, without descriptors, and at the end."""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from smx.runtime.serving.crowd import Crowd
from smx.runtime.serving.listener import Listener
from tests.runtime.serving.loopback import (
    GET,
    NEVER,
    SOON,
    START,
    bodies,
    refusal,
    run,
    serving,
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed for a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_has_the_same_limits(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving(read=SOON, idle=SOON, certificate=certificate) as server:
            assert bodies(await server.talk(GET % b"now")) == ["/now 0"]
            assert await server.talk() == b""
            refusal(await server.talk(START), 408)
            refusal(await server.talk(b"nonsense\r\n\r\n"), 400)
            await server.empty()

    run(test)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", GET % b"now"])
def test_a_handshake_that_is_not_done_has_a_time(sent: bytes, certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving(read=SOON, certificate=certificate) as server:
            server.tls = None
            assert b"HTTP" not in await server.talk(sent)
            await server.empty()

    run(test)


def test_handshakes_make_room_like_others(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        async with serving(most=5, certificate=certificate) as server:
            silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
            reader, writer = await server.connect()
            writer.write(GET % b"now")
            await reader.readuntil(b"/now 0")
            assert len(server.crowd.members) <= 5
            for each in silent:
                each.close()

    run(test)


def test_without_descriptors_it_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(socket.socket):
        refused = 0

        def accept(self) -> Any:
            if self.refused < 2:
                self.refused += 1
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    async def test() -> None:
        bound = Full()
        bound.bind(("127.0.0.1", 0))
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(asyncio.Protocol())
            return made[-1]

        listener = Listener([bound], make, Crowd(10), None, NEVER)
        _, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
        while not made:
            await asyncio.sleep(0.01)
        assert bound.refused == 2
        writer.close()
        listener.close()

    run(test)


def test_closing_takes_what_the_system_has_connected() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            waiting = [
                socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)
            ]  # in one turn of the loop
            for each in waiting:
                each.sendall(GET % b"now")
            server.listener.close()
            for each in waiting:
                each.setblocking(False)
                assert b"/now 0" in await asyncio.get_running_loop().sock_recv(each, 1000)
                each.close()

    run(test)
