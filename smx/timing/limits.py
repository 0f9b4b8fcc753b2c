"""Limits on the ratio of two candidates' times: `sorted/relu<=1.10`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from smx.errors import InputError
from smx.timing.intervals import bootstrap
from smx.timing.report import TimingReport

_FORM = re.compile(
    r"\s*(?P<name>(?=\S)[^/<>=@]+?)\s*/\s*(?P<baseline>(?=\S)[^/<>=@]+?)\s*"
    r"<=\s*(?P<most>\d+\.?\d*|\.\d+)\s*(?:@\s*(?P<batch>\d{1,18}))?\s*"
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The largest allowed ratio of one candidate's time to another's.

    Attributes:
        name, baseline: the candidates; the ratio is time of `name` / time of `baseline`.
        most: the largest allowed ratio.
        batch_size: the limit holds for this one; None is every batch size.
    """

    name: str
    baseline: str
    most: float
    batch_size: int | None = None

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        most = np.format_float_positional(self.most, trim="-")
        return f"{self.name}/{self.baseline}<={most}" + ("" if self.batch_size is None else f"@{self.batch_size}")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `NAME/BASELINE<=NUMBER`, or `NAME/BASELINE<=NUMBER@BATCH` for one batch size.

        Raises:
            InputError: the text has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(
                f"a limit is written sorted/relu<=1.10, or sorted/relu<=1.10@16 for one batch size, got {text!r}"
            )
        name, baseline, most, batch = match.groups()
        return cls(name=name, baseline=baseline, most=float(most), batch_size=int(batch) if batch else None)

    def check(self, names: Collection[str], batch_sizes: Collection[int]) -> None:
        """Raise InputError if a candidate or the batch size is not among those that are measured."""
        for name in (self.name, self.baseline):
            if name not in names:
                raise InputError(f"the limit {self} names {name}, but the candidates are {', '.join(names)}")
        if self.batch_size is not None and self.batch_size not in batch_sizes:
            raise InputError(f"the limit {self} is for a batch size that is not measured")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a report exceeds a limit at one batch size.

    Attributes:
        limit: in the form that `Limit.parse` reads.
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
    """Compare a report with a limit, see `Limit.check`, at each batch size that the limit holds for."""
    verdicts = []
    for size in report.batch_sizes if limit.batch_size is None else (limit.batch_size,):
        ratios = report.timings.ratios(limit.name, limit.baseline, size)
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
