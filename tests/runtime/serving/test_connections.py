"""Connections of clients that are slow, silent, deaf or wrong."""

from __future__ import annotations

import asyncio

import pytest

from smx.runtime.serving.connections import MAX_FIELDS, MAX_HEAD, MAX_PIPELINED
from tests.runtime.serving.loopback import (
    BIG,
    CHUNKED,
    GET,
    POST,
    SOON,
    START,
    bodies,
    refusal,
    run,
    serving,
)


@pytest.mark.parametrize("sent", [[], [b"\r\n"]])
def test_a_silent_connection_is_closed(sent: list[bytes]) -> None:
    async def test() -> None:
        async with serving(read=SOON) as server:
            assert await server.talk(*sent) == b""
            await server.empty()

    run(test)


@pytest.mark.parametrize("sent", [b"G", GET[:-2] % b"now", b"GET /now HTTP/1.1\r\nA: b"])
def test_headers_that_do_not_come_are_refused(sent: bytes) -> None:
    async def test() -> None:
        async with serving(read=SOON) as server:
            assert "headers did not come in 0.3 seconds" in refusal(await server.talk(sent), 408)
            got = await server.talk(GET % b"now" + sent)  # behind a request, too
            assert got.startswith(b"HTTP/1.1 200")
            refusal(got[got.rindex(b"HTTP/1.1") :], 408)
            await server.empty()

    run(test)


def test_an_idle_connection_is_closed_after_its_own_time() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            assert bodies(await server.talk(GET % b"now", GET % b"now")) == ["/now 0"] * 2
            await server.empty()

    run(test)


@pytest.mark.parametrize(
    "parts",
    [
        [START, b"A: " + b"b" * 2 * MAX_HEAD + b"\r\n\r\n"],
        [START, *[b"A: " + b"b" * 1000 + b"\r\n"] * 64, b"\r\n"],
        [START, *[b"A: " + b"b" * 2**16] * 20],
        [START + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"],
        [b"GET /" + b"a" * 2 * MAX_HEAD + b" HTTP/1.1\r\n\r\n"],
        [*[b"\r\n" * 2**15] * 20],
        [CHUNKED % b"all", b"5;", *[b"a=b;" * 2**14] * 20],
        [CHUNKED % b"all", b"5\r\nhello\r\n0\r\n", *[b"a: " + b"b" * 2**15 + b"\r\n"] * 20],
        [CHUNKED % b"all", b"5\r\nhello\r\n0\r\n", b"a: b\r\n" * MAX_FIELDS],
    ],
)
def test_headers_have_a_size(parts: list[bytes]) -> None:
    async def test() -> None:
        async with serving() as server:
            got = await server.talk(*parts)
            if got:  # the rest of what was sent may destroy it
                refusal(got, 431)
            await server.empty()
            assert bodies(await server.talk(GET.replace(b"Host", b"Connection: close\r\nHost") % b"now")) == ["/now 0"]

    run(test)


def test_a_chunked_body_of_any_length_is_no_header() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            chunk = b"%x\r\n" % 2**15 + bytes(2**15) + b"\r\n"
            single = b"1\r\na\r\n" * 20_000
            got = await server.talk(CHUNKED % b"all", *[chunk] * 40, single, b"0\r\n\r\n", GET % b"now")
            assert bodies(got) == [f"/all {40 * 2**15 + 20_000}", "/now 0"]

    run(test)


def test_what_follows_a_body_is_no_header() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            ends = b"5\r\nhello\r\n0\r\nAuthorization: Bearer key\r\nX-Request-Id: mine\r\n", b"\r\n"
            for parts in ((CHUNKED % b"all" + b"".join(ends),), (CHUNKED % b"all", *ends)):
                assert bodies(await server.talk(*parts)) == ["/all 5"]
                assert server.app.headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
            for count, status in ((MAX_FIELDS - 2, 200), (MAX_FIELDS - 1, 431)):  # there are two headers
                sent = CHUNKED % b"all" + b"0\r\n" + b"a: b\r\n" * count + b"\r\n"
                got = await server.talk(sent + GET % b"now" if status == 200 else sent)  # which has its own number
                assert got.split()[1] == b"%d" % status
                assert status != 200 or bodies(got) == ["/all 0", "/now 0"]

    run(test)


def test_the_one_that_waits_the_longest_makes_room() -> None:
    async def test() -> None:
        async with serving(most=3) as server:
            first, second, third = [await server.connect() for _ in range(3)]
            while len(server.crowd.waiting) < 3:
                await asyncio.sleep(0.01)
            first[1].write(GET % b"now")
            await first[0].readuntil(b"/now 0")  # now it is the last of them
            _, fourth = await server.connect()
            assert await second[0].read() == b""
            third[1].write(GET % b"now")
            first[1].write(GET % b"now")
            await third[0].readuntil(b"/now 0")
            await first[0].readuntil(b"/now 0")
            assert len(server.crowd.members) == 3
            fourth.close()

    run(test)


def test_a_connection_whose_answer_is_due_makes_no_room() -> None:
    async def test() -> None:
        async with serving(most=2) as server:
            busy = [await server.connect() for _ in range(2)]
            for _, writer in busy:
                writer.write(GET % b"later")
            while server.crowd.waiting or len(server.crowd.members) < 2:
                await asyncio.sleep(0.01)
            assert await server.talk(GET % b"now") == b""
            server.app.may.set()
            for reader, _ in busy:
                await reader.readuntil(b"/later 0")

    run(test)


def test_requests_behind_each_other_are_answered_in_order() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            paths = [b"now", b"later", b"now"] * 5
            asyncio.get_running_loop().call_later(0.1, server.app.may.set)
            assert bodies(await server.talk(b"".join(GET % path for path in paths))) == [
                f"/{p.decode()} 0" for p in paths
            ]

    run(test)


def test_not_any_number_of_requests_waits_behind_another() -> None:
    async def test() -> None:
        async with serving() as server:
            asyncio.get_running_loop().call_later(0.1, server.app.may.set)
            got = bodies(await server.talk((GET % b"later") * 10 * MAX_PIPELINED))
            assert got == ["/later 0"] * (MAX_PIPELINED + 1)
            await server.empty()

    run(test)


def test_what_was_asked_before_nonsense_is_answered() -> None:
    async def test() -> None:
        async with serving() as server:
            asyncio.get_running_loop().call_later(0.1, server.app.may.set)
            assert bodies(await server.talk(GET % b"later" + b"nonsense\r\n\r\n")) == ["/later 0"]
            got = await server.talk(GET % b"now" + GET % b"now" + b"nonsense\r\n\r\n")
            assert bodies(got)[:2] == ["/now 0"] * 2

    run(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01",
        b"GET /now HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        CHUNKED % b"all" + b"x\r\n",
        CHUNKED % b"all" + b"fffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        CHUNKED % b"all" + b"5\r\nhelloX",
        b"POST /all HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(sent: bytes) -> None:
    async def test() -> None:
        async with serving() as server:
            assert refusal(await server.talk(sent), 400) == "this is no HTTP request"
            await server.empty()
            fields = {"status": 400, "error": "this is no HTTP request", "client": "127.0.0.1"}
            assert server.events == [("refused_connection", fields)]
            assert server.app.gone == sent.startswith(CHUNKED % b"all")  # what was started is told

    run(test)


def test_a_client_that_will_send_no_more_gets_its_answer() -> None:
    async def test() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(GET % b"later")
            writer.write_eof()
            await asyncio.sleep(0.1)
            server.app.may.set()
            assert bodies(await reader.read()) == ["/later 0"]
            reader, writer = await server.connect()
            writer.write(GET[:-2] % b"now")
            writer.write_eof()
            assert await reader.read() == b""

    run(test)


def test_who_does_not_read_is_cut_off() -> None:
    async def test() -> None:
        async with serving(read=SOON) as server:
            for end in (b"", b"Connection: close\r\n"):
                _reader, writer = await server.connect()
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write((b"GET /big HTTP/1.1\r\n" + end + b"\r\n") * 3)
                await server.empty()
                writer.close()

    run(test)


@pytest.mark.parametrize("header", [b"Connection: close", b"Host: x"])
def test_who_reads_slowly_gets_all(header: bytes) -> None:
    async def test() -> None:
        async with serving(read=SOON, idle=0.01) as server:
            reader, writer = await server.connect()
            writer.write(b"GET /big HTTP/1.1\r\n" + header + b"\r\n\r\n")
            size = 0
            while part := await reader.read(BIG // 10):
                size += len(part)
                await asyncio.sleep(SOON / 5)
            assert size > BIG

    run(test)


def test_the_rest_of_a_body_after_its_answer_is_thrown_away() -> None:
    async def test() -> None:
        async with serving(read=SOON, idle=SOON) as server:
            head = b"POST /now HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
            reader, writer = await server.connect()
            writer.write(head)
            await reader.readuntil(b"/now 0")
            writer.write(bytes(1_000_000) + GET % b"all")
            await reader.readuntil(b"/all 0")
            assert bodies(await server.talk(head)) == ["/now 0"]  # and then nothing comes
            await server.empty()

    run(test)


def test_the_last_answer_is_not_destroyed_by_what_is_still_sent() -> None:
    async def test() -> None:
        async with serving() as server:
            got = await server.talk(
                b"POST /now HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % BIG, *[bytes(2**16)] * 100
            )
            assert bodies(got) == ["/now 0"]

    run(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /now HTTP/1.0\r\n\r\n",
        b"GET /now\r\n\r\n",
        b"GET http://example.com/now HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /now HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /now HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /n%6fw HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /now HTTP/1.1\r\nConnection: close\r\n\r\n" + GET % b"all",
    ],
)
def test_other_forms_are_answered_once(sent: bytes) -> None:
    async def test() -> None:
        async with serving() as server:
            got = await server.talk(sent)
            assert bodies(got) == ["/now 0"]
            assert b"connection: close" in got
            await server.empty()

    run(test)


def test_who_asks_whether_to_send_is_told() -> None:
    async def test() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(b"POST /all HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            await reader.readuntil(b"/all 3")
            writer.write(b"POST /now HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert (await reader.readuntil(b"/now 0")).startswith(b"HTTP/1.1 200")

    run(test)


def test_connections_end_with_their_answers_when_the_server_does() -> None:
    async def test() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(GET % b"later" * 3)
            while server.crowd.waiting or not server.crowd.members:
                await asyncio.sleep(0.01)
            server.ending[0] = True
            for member in server.crowd.members:
                member.drain()  # type: ignore[attr-defined]
            server.app.may.set()
            got = await reader.read()
            assert bodies(got) == ["/later 0"] * 3
            assert got.count(b"connection: close") == 1
            assert b"connection: close" in await server.talk(GET % b"now" + GET % b"now")

    run(test)


def test_a_request_that_comes_at_once_is_answered_at_once() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            one, chunked = POST % (b"whole", 3) + b"abc", CHUNKED % b"whole" + b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
            assert bodies(await server.talk(one)) == ["abc" * 4]
            got = bodies(await server.talk(one + chunked + GET % b"whole", one))
            assert got == ["abc" * 4, "def" * 4, "", "abc" * 4]

    run(test)


def test_a_request_that_comes_in_parts_is_none_that_came_at_once() -> None:
    async def test() -> None:
        async with serving(idle=SOON) as server:
            reader, writer = await server.connect()
            for part in (POST % (b"whole", 3), b"abc"):
                writer.write(part)
                await asyncio.sleep(SOON / 10)
            assert bodies(await reader.read()) == ["/whole 0"]

    run(test)


def test_an_answer_at_once_has_the_headers_of_others() -> None:
    async def test() -> None:
        async with serving() as server:
            close = b"\r\nConnection: close\r\n\r\n"
            heads = []
            for path in (b"whole", b"now"):
                got = await server.talk((POST % (path, 3)).replace(b"\r\n\r\n", close) + b"abc")  # until it is closed
                heads.append(got.split(b"\r\n\r\n")[0].split(b"\r\n"))
            whole, other = (sorted(line for line in head if not line.startswith(b"content-length")) for head in heads)
            assert b"connection: close" in whole
            assert whole == other
            await server.empty()

    run(test)


def test_an_answer_at_once_waits_for_a_client_that_does_not_read() -> None:
    async def test() -> None:
        async with serving() as server:
            reader, writer = await server.connect()
            writer.write(GET % b"big" + POST % (b"whole", 3) + b"abc")
            await asyncio.sleep(SOON)
            assert await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(BIG)
            assert bodies(await reader.readuntil(b"abc" * 4)) == ["abc" * 4]
            writer.write(GET % b"big")
            writer.write(POST % (b"whole", 3) + b"abc")
            await asyncio.sleep(SOON)
            writer.transport.abort()
            await server.empty()

    run(test)
