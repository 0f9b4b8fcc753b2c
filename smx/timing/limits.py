"""Stated limits on the ratio of two candidates: `sorted/relu<=1.10`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from smx.errors import InputError
from smx.timing.intervals import bootstrap
from smx.timing.report import TimingReport

_FORM = re.compile(
    r"\s*(?P<name>(?=\S)[^/<>=@]+?)\s*/\s*(?P<reference>(?=\S)[^/<>=@]+?)\s*"
    r"<=\s*(?P<most>[0-9.]+)\s*(@\s*(?P<batch>\d+))?\s*"
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A candidate may take at most so many times as long as another one.

    Attributes:
        name, reference: the candidates.
        most: of name's time, as a multiple of reference's.
        batch_size: that it holds for; None is all of them.
    """

    name: str
    reference: str
    most: float
    batch_size: int | None = None

    def __str__(self) -> str:
        """As it is written."""
        most = np.format_float_positional(self.most, trim="-")
        return f"{self.name}/{self.reference}<={most}" + ("" if self.batch_size is None else f"@{self.batch_size}")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `NAME/NAME<=NUMBER`, with `@BATCH` behind it for one batch size alone.

        Raises:
            InputError: it has another form.
        """
        found = _FORM.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            batch = found["batch"]
            return cls(
                name=found["name"],
                reference=found["reference"],
                most=float(found["most"]),
                batch_size=int(batch) if batch else None,
            )
        except ValueError:
            raise InputError(
                f"a limit is written sorted/relu<=1.10, or sorted/relu<=1.10@16 for one batch size, got {text!r}"
            ) from None

    def check(self, names: Collection[str], batch_sizes: Collection[int]) -> None:
        """Refuse a limit on what is not measured.

        Raises:
            InputError: there is no such candidate or batch size.
        """
        for name in (self.name, self.reference):
            if name not in names:
                raise InputError(f"the limit {self} names {name}, but the candidates are {', '.join(names)}")
        if self.batch_size is not None and self.batch_size not in batch_sizes:
            raise InputError(f"the limit {self} is for a batch size that is not measured")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a measurement says of a limit at one batch size.

    Attributes:
        limit: as it is written.
        batch_size: examples a run.
        ratio, low, high: the ratio and its confidence interval.
        exceeded: whether the whole interval lies above the limit.
    """

    limit: str
    batch_size: int
    ratio: float
    low: float
    high: float
    exceeded: bool


def judge(limit: Limit, report: TimingReport) -> tuple[Verdict, ...]:
    """Hold a report against a limit, at each batch size that it is for.

    Raises:
        InputError: the report has no such candidate or batch size.
    """
    limit.check(report.names, report.batch_sizes)
    verdicts = []
    for size in report.batch_sizes if limit.batch_size is None else (limit.batch_size,):
        ratios = report.ratios(limit.name, limit.reference, size)
        low, high = bootstrap(ratios)
        verdicts.append(
            Verdict(
                limit=str(limit),
                batch_size=size,
                ratio=float(np.median(ratios)),
                low=low,
                high=high,
                exceeded=low > limit.most,
            )
        )
    return tuple(verdicts)
