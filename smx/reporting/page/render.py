"""The page itself: parts in their order, and the template that shows them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from smx import __version__
from smx.reporting.page import choosing, comparing, costing, ranking, summary, words
from smx.reporting.page.blocks import Part
from smx.reporting.study import Section, Study
from smx.reporting.verdicts import NOT_MEASURED, Finding

PARTS: Sequence[Callable[[Section, str], Part | list[Part] | None]] = (
    ranking.accuracy,
    comparing.methods,
    ranking.reciprocal_ranks,
    comparing.by_phase,
    comparing.controls,
    choosing.progress,
    choosing.by_layer,
    choosing.agreement,
    choosing.weights,
    costing.calibration,
    costing.training,
    costing.latency,
)
"""Of every group of runs that may be compared, in the order of the page; what a table has not is left out."""


def parts_of(study: Study) -> list[Part]:
    """Return all parts of a study's page."""
    found: list[Part] = []
    for number, section in enumerate(study.sections):
        tag = f"-s{number + 1}" if number else ""
        for make in PARTS:
            made = make(section, tag)
            for part in made if isinstance(made, list) else [made] if made else []:
                found.append(Part(part.id, part.title, part.blocks, section.title))
    last = (summary.all_tests(study), summary.not_done(study), summary.making(study))
    return found + [part for part in last if part]


def render(study: Study, findings: Sequence[Finding], parts: Sequence[Part]) -> str:
    """Return the page as one HTML document that needs nothing else."""
    environment = Environment(
        loader=PackageLoader("smx.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"words": words}
    environment.filters |= {"typeset": words.typeset}
    script, style = _inline("script.js"), _inline("style.css")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.section, []).append(part)
    return environment.get_template("page.html").render(
        title=summary.title(study),
        source=words.text(study.source),
        version=__version__,
        facts=summary.facts(study),
        answered=[each for each in findings if each.verdict != NOT_MEASURED],
        unanswered=[each for each in findings if each.verdict == NOT_MEASURED],
        groups=groups,
        script=script,
        style=style,
        script_hash=digest,
    )


def _inline(name: str) -> Markup:
    """Read one of our own files, which stands in the page as it is."""
    return Markup((resources.files("smx.reporting") / "templates" / name).read_text(encoding="utf-8"))
