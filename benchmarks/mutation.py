"""Mutation testing: change the code in small ways, and see which changes no test notices.

`make mutation` runs mutmut (its settings are `[tool.mutmut]` in pyproject.toml) in a copy of the project in which the
links smx/export and smx/runtime are folders, because mutmut does not follow links. A mutant is killed when a test fails
or hangs. The survivors with their differences go into the JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from smx.files import write_text
from smx.timing.machine import machine

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "mutation"
COPIED = ("smx", "tests", "benchmarks", "docs", "README.md", "pyproject.toml")
ALIVE = {0, 5, 33}
"""Exit codes, as mutmut keeps them, of mutants that no test noticed: all passed, or none runs the code."""
HUNG = {36, 24, -24, 152, 255}
"""Those of mutants whose tests ran out of time. With every other code a test failed, or the process died."""


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True, help="Where the result goes.")
@click.option("--jobs", default=2, show_default=True, help="Mutants that are tried at once.")
@click.option("--smallest", is_flag=True, help="Try the mutants of one small function, to see that all of it works.")
def main(json_path: Path, jobs: int, smallest: bool) -> None:
    """Try every mutant and write how many were killed, by file, and which survived."""
    refresh_copy()
    chosen = ["smx.functional.x_groups*"] if smallest else []
    mutmut("run", "--max-children", str(jobs), *chosen)
    codes = exit_codes()
    survivors = [name for _, name, code in codes if code in ALIVE]
    content = {
        "files": by_file(codes),
        "survivors": [{"mutant": name, "difference": difference(name)} for name in survivors],
        "machine": machine(),
    }
    write_text(json_path, json.dumps(content, indent=1) + "\n")
    total, left = len(codes), len(survivors)
    click.echo(f"{total - left} of {total} mutants killed ({1 - left / total:.1%}); survivors in {json_path}")


def refresh_copy() -> None:
    """Copy the project as it is now; mutmut's own folder stays, so that only what changed is tried again."""
    COPY.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, COPY / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy2(source, target)


def mutmut(*arguments: str) -> str:
    """Run mutmut in the copy; return what it prints."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=COPY, check=True, stdout=subprocess.PIPE, text=True).stdout


def exit_codes() -> list[tuple[str, str, int]]:
    """Return file, name and exit code of each mutant that was tried."""
    folder = COPY / "mutants"
    found = []
    for path in sorted(folder.rglob("*.meta")):
        codes: dict[str, int | None] = json.loads(path.read_text())["exit_code_by_key"]
        file = str(path.relative_to(folder).with_suffix(""))
        found += [(file, name, code) for name, code in codes.items() if code is not None]
    return found


def by_file(codes: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """Count the mutants of each file."""
    mutants = Counter(file for file, _, _ in codes)
    alive = Counter(file for file, _, code in codes if code in ALIVE)
    hung = Counter(file for file, _, code in codes if code in HUNG)
    return [
        {"file": file, "mutants": count, "killed": count - alive[file], "by_timeout": hung[file]}
        for file, count in mutants.items()
    ]


def difference(mutant: str) -> list[str]:
    """Return the lines that a mutant removes and adds."""
    lines = mutmut("show", mutant).splitlines()
    return [line for line in lines if line[:1] in "+-" and not line.startswith(("+++", "---"))]


if __name__ == "__main__":
    main()
