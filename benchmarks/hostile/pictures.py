"""Hostile pictures."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

import numpy as np
from PIL import Image

from hostile.bodies import ANSWERED
from hostile.talk import Case, Kind, Target, request

MOST = 2**25
"""Bytes before they are compressed."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: int, colour: int = 0, depth: int = 8, extra: bytes = b"") -> bytes:
    """Return a PNG that says it has a size and holds so many rows of black."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    data = zlib.compress(bytes(min((width * samples * depth // 8 + 1) * rows, MOST)), 1)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(form: str) -> bytes:
    """Return a small picture of noise."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(out, form)
    return out.getvalue()


def bombs(random: Random, target: Target) -> Case:
    """Pictures that say they are huge, or are; the largest that are taken may be answered."""
    kind = random.choice(["declared", "declared", "real", "text"])
    if kind == "real":
        return _classify(png(4000, 4000, 4000))
    if kind == "text":
        return _classify(png(28, 28, 28, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MOST), 1))))
    width, height, colour = random.choice([(60_000, 60_000, 2), (2**31 - 1, 1, 0), (1, 2**31 - 1, 0), (8000, 8000, 6)])
    return _classify(png(width, height, 1, colour))


def damaged(random: Random, target: Target) -> Case:
    """Pictures that are cut off, or have wrong bytes; some decoders put up with that."""
    whole = encoded(random.choice(["PNG", "JPEG", "BMP", "WEBP"]))
    if random.random() < 0.5:
        return _classify(whole[: random.randrange(len(whole))])
    broken = bytearray(whole)
    for _ in range(random.choice([1, 10, 100])):
        broken[random.randrange(len(broken))] = random.randrange(256)
    return _classify(bytes(broken))


def other_formats(random: Random, target: Target) -> Case:
    """Formats that are not taken: some would run other programs, some are no pictures."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n(/etc/passwd) (r) file\nshowpage\n"
    svg = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&x;</svg>'
    files = [postscript, svg, encoded("GIF"), encoded("PPM"), encoded("ICO"), b"%PDF-1.7\n", b"", b"x"]
    npy = io.BytesIO()
    np.save(npy, np.array([{}], object), allow_pickle=True)
    body = random.choice([*files, npy.getvalue(), b"PK\3\4" + bytes(100), random.randbytes(1000)])
    return Case(send=[request("POST", "/v2/models/image/classify", body)])


def unfit_models(random: Random, target: Target) -> Case:
    """A picture for a model that takes none."""
    return Case(send=[request("POST", "/v2/models/lookup/classify", encoded("PNG"))])


def _classify(picture: bytes) -> Case:
    return Case(send=[request("POST", "/v2/models/image/classify?top_k=3", picture)], may=ANSWERED)


KINDS: dict[str, Kind] = {
    "picture_bombs": bombs,
    "damaged_pictures": damaged,
    "other_formats": other_formats,
    "unfit_models": unfit_models,
}
