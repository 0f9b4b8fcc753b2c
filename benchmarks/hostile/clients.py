"""Clients that are slow, idle, deaf, or gone."""

from __future__ import annotations

import json
from random import Random

from hostile.bodies import ANSWERED, INFER, valid
from hostile.talk import Case, Kind, Target, request

BODY = json.dumps(valid()).encode()
WHOLE = request("POST", INFER, BODY)


def slow_heads(random: Random, target: Target) -> Case:
    """Headers that come letter by letter, or stop."""
    letters = [part for letter in WHOLE[:40] for part in (bytes([letter]), target.read_timeout / 10)]
    stop = WHOLE[: random.randrange(1, WHOLE.index(b"\r\n\r\n"))]
    return Case(send=random.choice([letters, [stop]]))


def slow_bodies(random: Random, target: Target) -> Case:
    """Bodies that come letter by letter, or stop; after an answer, too."""
    method, path = random.choice([("POST", INFER), ("POST", "/v2/models/nothing/infer"), ("PUT", "/v2"), ("GET", "/x")])
    head, body = request(method, path, BODY).split(b"\r\n\r\n", 1)
    drip = [part for letter in body[:40] for part in (bytes([letter]), target.read_timeout / 10)]
    chunks = [part for _ in range(40) for part in (b"1\r\n[\r\n", target.read_timeout / 10)]
    expect = head + b"\r\nExpect: 100-continue\r\n\r\n"
    chunked = f"{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    stop = body[: random.randrange(len(body))]
    start = head + b"\r\n\r\n"
    return Case(
        send=random.choice([[start, *drip], [start, stop], [chunked, *chunks], [expect], [expect, stop]]), answers=2
    )


def silent(random: Random, target: Target) -> Case:
    """A connection on which nothing is ever said."""
    return Case(send=[])


def idle_crowds(random: Random, target: Target) -> Case:
    """Many connections at once, silent or with half a request."""
    return Case(send=random.choice([[], [WHOLE[:30]], [WHOLE[:-5]]]), connections=100)


def vanishing(random: Random, target: Target) -> Case:
    """A client that is gone at some byte of its request, or before its answer."""
    return Case(
        send=[WHOLE[: random.choice([random.randrange(len(WHOLE)), len(WHOLE)])], random.choice([0.0, 0.01, 0.1])],
        end="vanish",
    )


def half_closed(random: Random, target: Target) -> Case:
    """A client that says it will send no more; after a whole request it gets its answer."""
    cut = random.choice([random.randrange(len(WHOLE)), len(WHOLE)])
    whole = cut == len(WHOLE)
    return Case(
        send=[WHOLE[:cut]],
        end="finish",
        may=ANSWERED if whole else frozenset(),
        check=lambda got: "no answer to a whole request" if whole and not got else None,
    )


def deaf(random: Random, target: Target) -> Case:
    """A client that asks for much, reads nothing for a while, and is gone."""
    return Case(send=[*[request("GET", "/metrics")] * random.choice([50, 1000]), 2 * target.read_timeout], end="vanish")


KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (slow_heads, slow_bodies, silent, vanishing, half_closed, deaf)
}
"""Without the crowds, of which a few are enough."""
