"""The campaign against smx itself: `python -m tests.hostile`, or `make test-hostile`.

Four attacks: bytes of files are damaged; what files say is edited; commands are killed; commands run on a machine that
has too little. Every case follows from the seed. Failures are shown, and end this with exit code 1.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from smx.cli import options
from smx.cli.output import table, write_json
from smx.timing.machine import machine
from tests.conftest import SMALL, done
from tests.hostile import faults, files, kills
from tests.hostile.commands import commands
from tests.hostile.files import Found

DISKS = [4, 16, 64, 128, 256]
"""KiB of the file systems that fill up."""
ATTACKS = ("damage", "edits", "kills", "faults")


@click.command()
@click.option("--damage", type=click.IntRange(min=0), default=1000, show_default=True, help="Cases for each format.")
@click.option("--edits", type=click.IntRange(min=0), default=1000, show_default=True, help="Cases for each format.")
@click.option("--kills", type=click.IntRange(min=0), default=20, show_default=True, help="Of each command.")
@click.option("--faults", type=click.IntRange(min=0), default=30, show_default=True, help="Cases for each limit.")
@click.option("--only", "names", default="", metavar="NAME,...", help="Only these commands are killed.")
@click.option("--renew", is_flag=True, help="Keep what the --json file has of other attacks.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@options.json
def main(json_path: str | None, names: str, renew: bool, seed: int, **cases: int) -> None:
    """Attack smx, and count how it ends."""
    folder = Path(tempfile.mkdtemp(prefix="smx-hostile-"))
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    for attack, target, found in campaign(folder, cases, names, seed):
        outcomes = dict(sorted(found.outcomes.items()))
        row = {"attack": attack, "on": target, "cases": found.cases, "outcomes": outcomes, "failures": found.failures}
        rows.append(row)
        click.echo(f"{attack} on {target}: {dict(found.outcomes)}", err=True)
        for failure in found.failures[:5]:
            click.echo(f"  {failure}", err=True)
    seconds = round(time.monotonic() - began)
    if renew and json_path is not None:
        old = json.loads(Path(json_path).read_text())
        fresh = {(row["attack"], row["on"]): row for row in rows}
        rows = [fresh.pop((row["attack"], row["on"]), row) for row in old["attacks"]] + [*fresh.values()]
        seconds += old["seconds"]
    failures = [failure for row in rows for failure in row["failures"]]
    result: dict[str, Any] = {"seed": seed, "seconds": seconds, "attacks": rows, "machine": machine()}
    people = write_json(json_path, result)
    lines = [
        (row["attack"], row["on"], str(row["cases"]), ", ".join(f"{n} {how}" for how, n in row["outcomes"].items()))
        for row in rows
    ]
    people.print(table(("attack", "on", "cases", "ended"), lines))
    people.print(f"{sum(row['cases'] for row in rows)} cases in {result['seconds']} s, {len(failures)} failures")
    if failures:
        people.print(f"files are kept in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


def campaign(folder: Path, cases: dict[str, int], names: str, seed: int) -> Iterator[tuple[str, str, Found]]:
    """Yield what each attack found, as it goes on: the attack, what it was on, and how it ended."""
    run, exported, place = folder / "run", folder / "small.onnx", folder / "files"
    place.mkdir()
    done("train", *SMALL, "--out", run)
    done("export", run / "model.pt", exported)
    for way in ("damage", "edits"):
        if cases[way]:
            for name, found in files.campaign(way, cases[way], place, run, exported, seed):
                yield way, name, found
    attacked = [each for each in commands(folder, run, exported) if not names or each.name in names.split(",")]
    if cases["kills"]:
        for command in attacked:
            yield "kills", command.name, kills.campaign(command, cases["kills"], folder / "kills", seed)
    if cases["faults"]:
        for limit in faults.LIMITS:
            yield "faults", limit.name, faults.campaign(limit, attacked, cases["faults"], folder, seed)
        yield "faults", "a disk that fills up", faults.full_disk(attacked, DISKS, folder)


if __name__ == "__main__":
    main()
