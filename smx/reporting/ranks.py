"""Table 1 and what follows from it: accuracies, ranks, how often each method takes each rank, MRR (eq. 12)."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import Section


def accuracy(section: Section) -> pd.DataFrame:
    """Return test accuracy by architecture and method: columns architecture, method, mean, deviation, n.

    `deviation` is that of a sample, over the seeds; NaN for one seed.
    """
    raise NotImplementedError


def ranks(section: Section) -> pd.DataFrame:
    """Rank the contenders in each architecture by mean test accuracy: rows architectures, columns methods.

    Equal means share their mean rank. The means are over the seeds for which all contenders are done; an architecture
    that has none is left out.
    """
    raise NotImplementedError


def table_1(section: Section) -> pd.DataFrame:
    """Return the best three methods of each architecture beside the paper's.

    Columns: architecture, seeds, first, second, third (methods; equal ones joined by " = "), paper_first, paper_second,
    paper_third (None for an architecture that the paper doesn't have, or other data than MNIST), correlation (Spearman,
    of the paper's three with the ranks that these three have here; NaN where there is no paper).
    """
    raise NotImplementedError


def rank_frequencies(section: Section) -> pd.DataFrame:
    """Return in how many architectures each method takes each rank (figure 7): rows methods, columns 1, 2, ...

    Methods that share a rank each count for it, rounded to the better one.
    """
    raise NotImplementedError


def mrr(section: Section, draws: int = 2000) -> pd.DataFrame:
    """Return the mean reciprocal rank of each contender (eq. 12, figure 6): method, mrr, low, high, paper, n.

    `low` and `high` bound the 95 % interval of a bootstrap that draws architectures, and within each its seeds; NaN
    where there is one architecture with one seed. `paper` is the MRR that follows from the paper's table 1, at least:
    ranks beyond the third count as 0. `n` is the number of architectures.
    """
    raise NotImplementedError
