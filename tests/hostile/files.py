"""Thousands of damaged and edited files of every format: each is refused in one line, or loads.

A format is attacked in a process of its own: a crash of a library, or memory that is gone, is a failure and not an end.
"""

from __future__ import annotations

import random
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from smx.errors import LONGEST, InputError
from tests.conftest import FORKS
from tests.hostile.damage import damaged
from tests.hostile.edits import edited
from tests.hostile.formats import Format, formats, named

SECONDS = 20
GROWTH = 400 * 1024
"""KiB that a process may grow by, over all cases of a format: one large image takes most of it."""
CHUNK = 500


@dataclass
class Found:
    """What an attack found.

    Attributes:
        outcomes: how many cases ended how.
        failures: what must not be, one line each.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        self.outcomes += other.outcomes
        self.failures += other.failures

    @property
    def cases(self) -> int:
        return self.outcomes.total()


def attack(way: str, format: Format, folder: Path, seeds: range, seconds: int = 0) -> Found:
    """Load one file for each seed, in this process.

    Args:
        way: `damage` or `edits`.
        format: what is attacked.
        folder: that the format was made for.
        seeds: of the cases; the same seed is the same case.
        seconds: that a case may take, or SIGALRM ends this process; 0: for ever.
    """
    path, found, whole = folder / format.name, Found(), None
    if way == "damage" and format.guarded:
        path.write_bytes(format.whole)
        whole = format.load(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        path.write_bytes(_case(format, way, random.Random(f"{way} {format.name} {seed}")))
        if seconds:
            signal.alarm(seconds)
        outcome = _outcome(format, path, whole)
        found.outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("FAILED"):
            found.failures.append(f"{way} of {format.name}, seed {seed}: {outcome}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > GROWTH:
        found.failures.append(f"{way} of {format.name}, {seeds}: the process grew by {grown / 1024:.0f} MiB")
    return found


def can(way: str, format: Format) -> bool:
    """Tell whether a format can be attacked in this way."""
    return bool(format.whole) if way == "damage" else format.content is not None


def _case(format: Format, way: str, draw: random.Random) -> bytes:
    if way == "damage":
        return damaged(format.whole, draw)
    assert format.content is not None
    return format.pack(edited(format.content, draw, format.values))


def _outcome(format: Format, path: Path, whole: str | None) -> str:
    """Load a file; return how that ended. Where `whole` is given, it must be what was loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = format.load(path)
    except InputError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST + 10:
            return f"FAILED: the refusal is no line: {text[:200]!r}"
        return "refused in one line"
    except BaseException as error:  # a failure of any kind is what is looked for
        return f"FAILED: {type(error).__name__}: {str(error)[:200]!r}"
    if whole is None:
        return "loaded"
    return "loaded, unchanged" if loaded == whole else "FAILED: it loaded as another"


def campaign(
    way: str, cases: int, folder: Path, run: Path, exported: Path, seed: int = 0
) -> Iterator[tuple[str, Found]]:
    """Attack each format that can be attacked in this way, with so many cases; yield its name and what was found."""
    for format in formats(folder, run, exported):
        if not can(way, format):
            continue
        found = Found()
        for start in range(seed, seed + cases, CHUNK):
            seeds = range(start, min(start + CHUNK, seed + cases))
            place = folder / f"{way}-{format.name}-{start}"
            place.mkdir()
            try:
                with ProcessPoolExecutor(1, FORKS) as process:
                    found.add(process.submit(_chunk, way, format.name, place, run, exported, seeds).result())
            except BrokenProcessPool:
                found.outcomes["FAILED"] += len(seeds)
                found.failures.append(f"{way} of {format.name}, {seeds}: crash, or more than {SECONDS} s: see {place}")
        yield format.name, found


def _chunk(way: str, name: str, folder: Path, run: Path, exported: Path, seeds: range) -> Found:
    return attack(way, named(formats(folder, run, exported), name), folder, seeds, SECONDS)
