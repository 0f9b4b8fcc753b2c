"""Damage to the bytes of a file, as disks, networks and editors do it."""

from __future__ import annotations

import random
from collections.abc import Callable


def _flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def _remove(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice([1, 2, 16, 512])]


def _insert(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content) + 1)
    content[start:start] = draw.choice(PIECES) or draw.randbytes(draw.choice([1, 2, 16, 512]))


def _zero(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    length = min(draw.choice([1, 16, 512, 4096]), len(content) - start)
    content[start : start + length] = bytes(length)


def _overwrite(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    piece = draw.choice(PIECES) or draw.randbytes(4)
    content[start : start + len(piece)] = piece


def _repeat(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    content[start:start] = content[start : start + 512] * draw.choice([1, 3, 40])


def _exchange(content: bytearray, draw: random.Random) -> None:
    length = min(64, len(content) // 2)
    a, b = sorted(draw.sample(range(len(content) - length + 1), 2))
    b = max(b, a + length)
    content[a : a + length], content[b : b + length] = content[b : b + length], content[a : a + length]


PIECES = (
    b"",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\0",
    b"\n",
    b'"',
    b"[" * 2000,
    b"\xef\xbb\xbf",
    b"1e999",
    b"PK\x03\x04",
)
"""What is put in; nothing stands for random bytes."""
KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    each.__name__.strip("_"): each for each in (_flip, _cut, _remove, _insert, _zero, _overwrite, _repeat, _exchange)
}


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Return a damaged copy; it may be equal by chance."""
    content = bytearray(whole)
    KINDS[draw.choice(list(KINDS))](content, draw)
    return bytes(content)
