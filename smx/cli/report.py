"""`smx report`: what a run or a study found, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smx.cli import options
from smx.cli.output import table, write_json
from smx.errors import InputError

if TYPE_CHECKING:
    from smx.workflows.report import Report


@click.command(cls=options.Command)
@click.argument("source", metavar="RUN|DIR|TABLE", type=options.PATH)
@click.option(
    "-o",
    "--out",
    type=options.OutputPath(".html"),
    metavar="FILE.html",
    help="The page.  [default: report.html in the folder, or the table's name with .html]",
)
@click.option("--figures", type=options.FOLDER, metavar="DIR", help="Also write every figure as an SVG file.")
@options.data_dir
@options.json
def report(source: Path, out: str | None, figures: Path | None, data_dir: Path | None, json_path: str | None) -> None:
    """Write what a run or a study found into one HTML file.

    RUN is a folder of smx train, DIR one of smx sweep, TABLE what smx sweep --collect wrote. The page has an answer to
    each of the paper's claims, with its numbers, tables that sort, figures with their data; it needs no network.

    \b
    smx report runs/digits-smartmixed
    smx report mnist.parquet -o mnist.html
    """
    from smx.study.listing import belongs_to
    from smx.workflows.report import page_for
    from smx.workflows.report import report as make

    if json_path is not None:
        place = Path(json_path)
        if options.same(place, page_for(source, out)):
            raise InputError(f"{json_path} is the page itself; choose another path for --json")
        if options.same(place, source) or belongs_to(place, source):
            raise InputError(f"{json_path} is what the page is made from; choose another path for --json")
    _show(make(source, out, figures=figures, data_dir=data_dir), json_path)


def _show(made: Report, json_path: str | None) -> None:
    people = write_json(json_path, made.to_dict())
    several = len({finding.section for finding in made.findings}) > 1
    rows = [
        (*([finding.section] if several else []), finding.question, finding.verdict, finding.text)
        for finding in made.findings
        if finding.verdict != "not measured"
    ]
    if rows:
        headings = (*(["runs"] if several else []), "question", "verdict", "why")
        people.print(table(headings, rows, section=0 if several else None, show_lines=True))
    counts = ", ".join(f"{number} {status}" for status, number in made.counts.items())
    people.print(f"{counts}; {made.out}", soft_wrap=True)
