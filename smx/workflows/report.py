"""What a run or a study found, as data frames and as one page. Needs the extra `study`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx import files
from smx.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from smx.reporting.verdicts import Finding

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run or a study found.

    Attributes:
        source: what it was made from.
        out: the file that holds the page; None if none was written.
        counts: how many runs are done, failed and missing.
        findings: an answer to each question, in words with its numbers.
        frames: the data of every table and figure of the page, by its name; a notebook shows them.
        figures: every figure by its name, as an SVG file's text.
        html: the page.
    """

    source: Path
    out: Path | None
    counts: Mapping[str, int]
    findings: Sequence[Finding]
    frames: Mapping[str, pd.DataFrame] = field(repr=False)
    figures: Mapping[str, str] = field(repr=False)
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own."""
        return f'<iframe srcdoc="{escape(self.html)}" width="100%" height="700"></iframe>'

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the rows of frames lack what is missing."""
        from smx.study.table import rows

        return {
            "source": str(self.source),
            "out": str(self.out) if self.out else None,
            **self.counts,
            "findings": [dict(vars(finding)) for finding in self.findings],
            "frames": {name: rows(frame) for name, frame in self.frames.items()},
        }


def report(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    figures: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    write: bool = True,
) -> Report:
    """Compare what a run or a study left; write one HTML file that needs nothing else, and return its content.

    Args:
        source: the folder of a run (`smx train`) or of a sweep, or a table that `smx sweep --collect` wrote.
        out: the page's file; None is `report.html` in the folder, or the table's name with `.html`.
        figures: a folder that gets every figure as an SVG file, too.
        data_dir: where downloaded data sets are; a run is evaluated on its test set for its calibration.
        write: write the page; without it, only return it.

    Raises:
        InputError: there is no such source, it holds no finished run, or `out` is a file that it was made from.
    """
    place = Path(source)
    page = page_for(place, out) if write else None
    from smx.reporting.charts.svg import standalone
    from smx.reporting.findings import findings
    from smx.reporting.page.blocks import Chart, named
    from smx.reporting.page.render import parts_of, render
    from smx.reporting.source import read_source

    study = read_source(place, Path(data_dir) if data_dir else None)
    answers, parts = findings(study), parts_of(study)
    html = render(study, answers, parts)
    if page is not None:
        files.write_text(page, html)
    blocks = named(block for part in parts for block in part.blocks)
    drawn = {name: standalone(block.svg) for name, block in blocks.items() if isinstance(block, Chart)}
    if figures is not None:
        folder = files.make_folder(figures)
        for name, text in drawn.items():
            files.write_text(folder / f"{name}.svg", text)
    return Report(
        source=place,
        out=page,
        counts=study.counts,
        findings=answers,
        frames={name: block.data for name, block in blocks.items()},
        figures=drawn,
        html=html,
    )


def page_for(source: Path, out: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a source's page.

    Raises:
        InputError: it does not end in .html, or can't be written to.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist; expected the folder of a run or of a sweep, or a table of one")
    default = source / PAGE if source.is_dir() else source.with_suffix(".html")
    page = default if out is None else Path(out)
    files.check_suffix(page, ".html")
    files.check_writable(page)
    return page
