"""Hostile request lines, headers and framing; names of models; pictures' parameters."""

from __future__ import annotations

import json
from random import Random

from hostile.bodies import ANSWERED, INFER, valid
from hostile.talk import Answer, Case, Kind, Target, request

NOBODY_ELSES = [b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /v2/models/image/infer HTTP/1.1\r\nHost: x\r\n"]


def unknown_models(random: Random, target: Target) -> Case:
    """Names and versions that there are not, and paths that lead out of a folder."""
    up = random.choice(["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "..\\", "..%5c", "..%c0%af", "/./", "//"])
    name = random.choice(["nothing", up * 8 + "etc/passwd", "%00", "image%00", "%ff%fe", "a" * 8000, "IMAGE", "image."])
    version = random.choice(["0", "2", "-1", "x", "1.0", "9" * 5000, "%31%20", "1/..", "latest", up + "1", ""])
    place = "/v2/models/" + random.choice(
        [name, f"{name}/versions/1", f"image/versions/{version}", f"{name}/versions/{version}"]
    )
    method, end = random.choice([("GET", ""), ("GET", "/ready"), ("POST", "/infer"), ("POST", "/classify")])
    return Case(send=[request(method, place + end, json.dumps(valid()).encode() if method == "POST" else b"")])


def paths(random: Random, target: Target) -> Case:
    """Paths of nothing, also out of the page's folders."""
    up = random.choice(["../", "..%2f", "%2e%2e/", "..%252f", "..\\", "..%5c", "%c0%ae%c0%ae/", "....//"])
    first = random.choice(["/", "/page/", "/web-runtime/", "/v2/", "/static/", "/metrics/"])
    file = random.choice(["etc/passwd", "model.onnx", "image.onnx", "app.py", ".git/config", "%00"])
    return Case(send=[request("GET", first + up * random.choice([1, 3, 12]) + file)])


def methods(random: Random, target: Target) -> Case:
    """Methods that a path does not have, or HTTP."""
    method = random.choice(
        [
            "PUT",
            "DELETE",
            "PATCH",
            "OPTIONS",
            "TRACE",
            "CONNECT",
            "PRI",
            "get",
            "POSTT",
            "G",
            "PROPFIND",
            "SUBSCRIBE",
            "\x00",
        ]
    )
    places = ["/v2", INFER, "/v2/models/image", "/metrics", "/v2/repository/index", "*", "/v2/health/live", "x:443"]
    return Case(send=[request(method, random.choice(places))])


def header_floods(random: Random, target: Target) -> Case:
    """Many headers, long ones, without an end, or of letters that may not be there."""
    start = b"GET /v2 HTTP/1.1\r\nHost: x\r\n"
    return random.choice(
        [
            Case(send=[start, b"".join(b"X-%d: y\r\n" % i for i in range(random.choice([200, 5000]))), b"\r\n"]),
            Case(send=[start, b"X: " + b"y" * random.choice([40_000, 2_000_000]) + b"\r\n\r\n"]),
            Case(send=[start, *[b"X: " + b"y" * 60_000] * 40]),
            Case(send=[b"GET /" + b"a" * random.choice([40_000, 2_000_000]) + b" HTTP/1.1\r\n\r\n"]),
            Case(send=[start, b"\r\n".join([b"a:"] * 30_000)]),
            Case(send=[b"\r\n" * 200_000 + start]),
            Case(
                send=[
                    start
                    + random.choice([b"A B: c", b": x", b"A", b"A\0: b", b"A : b", b" a", b"\xff: 1"])
                    + b"\r\n\r\n"
                ]
            )
            if random.random() < 0.8
            else Case(send=[start + b"X: \xff\xfe\r\n\r\n"], may=ANSWERED),
            Case(send=[b"GET /v2 HTTP/1.1\nHost: x\n\n"], may=ANSWERED),
            Case(send=[b"GET /v2\tHTTP/1.1\r\nHost: x\r\n\r\n"]),
        ]
    )


def request_ids(random: Random, target: Target) -> Case:
    """Ids that would add headers or lines to what the server writes; it writes none of its own that are such."""
    given = random.choice(
        [
            b"\x1b[31mred\x1b[0m",
            b"a\tb",
            b"x" * 10000,
            b"\xe2\x80\xae",
            b'"}\\n{"event": "x',
            b"%0d%0aSet-Cookie: a=b",
            b"",
            b"a\r\n\tSet-Cookie: a=b",
            b"a\rSet-Cookie: a=b",
            b"a\nSet-Cookie: a=b",
            b"\x9b2J",
            b"<script>",
        ]
    )

    def check(answers: list[Answer]) -> str | None:
        for answer in answers:
            found = answer.headers.get("x-request-id", "")
            if "set-cookie" in answer.headers or not found.isascii() or not found.isprintable() or len(found) > 128:
                return f"the id {found!r} came back"
        return None

    place = random.choice(["/v2", "/v2/models/nothing", "/v2/models/%1b%5b2J%0a%7b%22event%22"])
    return Case(send=[request("GET", place, b"", b"X-Request-Id: " + given)], may=ANSWERED, check=check)


def framing(random: Random, target: Target) -> Case:
    """Lengths that contradict each other, are none, or are huge; chunks that are none or never end."""
    body = json.dumps(valid()).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n" % INFER.encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    both = head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    twice = head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body
    length = random.choice(
        [b"-1", b"1e3", b"+5", b"0x10", b"9" * 30, b"5, 6", b"", b"5 5", b"\xb2", b"18446744073709551617"]
    )
    coding = random.choice([b"gzip", b"chunked, gzip", b"identity", b"chunked\0", b"xchunked", b"gzip, chunked"])
    size = random.choice([b"ffffffffffffffff", b"-1", b"10000000000000000", b"xyz", b"", b"5 5", b"0x5", b"1" * 5000])
    return random.choice(
        [
            Case(send=[random.choice([both, twice])]),
            Case(send=[head + b"Content-Length: " + length + b"\r\n\r\n" + body]),
            Case(
                send=[
                    head + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
                ]
            ),
            Case(send=[chunked + size + b"\r\n" + body]),
            Case(send=[chunked + b"5\r\nhelloX"]),
            Case(send=[chunked + b"5;", *[b"a=b;" * 10_000] * 20]),
            Case(send=[chunked + b"5\r\nhello\r\n0\r\n", *[b"X: " + b"y" * 20_000 + b"\r\n"] * 20]),
            Case(send=[chunked + b"5\r\nhello\r\n0\r\n", b"a:\r\n" * 30_000]),
            Case(send=[chunked, b"1\r\n[\r\n" * 50_000, b"0\r\n\r\n"]),
        ]
    )


def versions(random: Random, target: Target) -> Case:
    """Other versions of HTTP, other protocols, and addresses in odd forms; some may be answered."""
    hello = bytes.fromhex("1603010200010001fc0303") + random.randbytes(500)
    odd = [
        b"GET /v2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/3.0\r\n\r\n",
        b"GET /v2 HTTP/1.1.1\r\n\r\n",
    ]
    odd += [hello, b"\0" * 1000, b"SSH-2.0-x\r\n", b"EHLO x\r\n", random.randbytes(300), b"GET  /v2 HTTP/1.1\r\n\r\n"]
    odd += [
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET v2 HTTP/1.1\r\n\r\n",
    ]
    odd += [
        b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % place
        for place in (b"http://", b"http://x", b"//", b"?", b"/%", b"/%zz")
    ]
    odd += [b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v2?\xff=%ff&& HTTP/1.1\r\nHost: x\r\n\r\n"]
    odd += [
        b"GET http://127.0.0.1:99999999/v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.0\r\n\r\n",
        b"GET http://x/v2 HTTP/1.1\r\n\r\n",
    ]
    odd += [
        b"GET /v2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % to for to in (b"websocket", b"h2c", b"x")
    ]
    return Case(send=[random.choice(odd)], may=ANSWERED)


def smuggling(random: Random, target: Target) -> Case:
    """Requests within bodies and behind each other: as many answers come as there were requests, or fewer."""
    inner = request("GET", "/v2/models/nothing")
    several = random.choice([10, 300, 5000])

    def at_most(count: int, answers: list[Answer]) -> str | None:
        return f"{len(answers)} answers to {count} requests" if len(answers) > count else None

    one = Case(send=[request("POST", INFER, inner), 0.2], answers=2, end="finish", check=lambda got: at_most(1, got))
    head = b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner)
    get = Case(send=[head, 0.2], may=ANSWERED, answers=2, end="finish", check=lambda got: at_most(1, got))
    many = Case(send=[inner * several, 0.2], answers=several + 1, end="finish", check=lambda got: at_most(several, got))
    return random.choice([one, get, many])


def picture_parameters(random: Random, target: Target) -> Case:
    """Parameters of classify that are none."""
    bad = ["invert=maybe", "invert=", "invert=%00", "top_k=-1", "top_k=1.5", "top_k=x", "top_k=" + "9" * 5000, "top_k="]
    bad += ["top_k=%D9%A3", "top_k=%C2%B2", "invert=true&invert=x", "top_k=1%0a"]
    chosen = "&".join(random.sample(bad, random.choice([1, 2])))
    return Case(send=[request("POST", f"/v2/models/image/classify?{chosen}", b"x")])


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        unknown_models,
        paths,
        methods,
        header_floods,
        request_ids,
        framing,
        versions,
        smuggling,
        picture_parameters,
    )
}
