"""The parts about ranks: Table 1, all accuracies, MRR and how often each method took each rank."""

from __future__ import annotations

import pandas as pd

from smx.reporting import comparisons, ranks
from smx.reporting.charts import methods as charts
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Chart, Column, Part, Table, Text
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED


def accuracy(section: Section, tag: str) -> Part | None:
    """Return Table 1 with the paper's beside it, and every mean with its deviation."""
    means = ranks.accuracy(section)
    if len(means) < 2:
        return None
    best = ranks.table_1(section) if len(section.contenders) > 1 else pd.DataFrame()
    blocks: list[Block] = [*_places(section), _table_1(best, tag)] if len(best) else []
    return Part(f"accuracy{tag}", "Accuracy and ranks", [*blocks, _means(means, section, tag)])


def _places(section: Section) -> list[Block]:
    table, blocks = ranks.ranks(section), []
    if SMARTMIXED in table:
        own = table[SMARTMIXED]
        text = (
            f"SmartMixed has the best mean test accuracy of {words.plural(len(section.contenders), 'method')} on"
            f" {int((own <= 1).sum())} of {words.plural(len(own), 'architecture')}, and is among the first three on"
            f" {int((own <= 3).sum())}."
        )
        blocks.append(Text(text, strong=True))
    found = comparisons.friedman(section)
    if not words.missing(found["p"]):
        differ = "differ" if float(found["p"]) < 0.05 else "do not surely differ"
        blocks.append(
            Text(
                f"The methods' ranks {differ}, {words.p_of(found['p'])} (Friedman test,"
                f" {words.plural(int(found['n']), 'architecture')})."
            )
        )
    return list(blocks)


def _table_1(rows: pd.DataFrame, tag: str) -> Table:
    places = ("first", "second", "third")
    columns = [
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("seeds", "seeds", words.count),
        *(Column(place, place, words.name, numeric=False) for place in places),
        *(Column(f"paper_{place}", f"paper: {place}", words.name, numeric=False) for place in places),
        Column("correlation", "rank correlation", words.decimal),
    ]
    note = "Ranked by mean test accuracy over the seeds that all methods have; equal means share a place."
    if rows["paper_first"].notna().any():
        note += (
            " The correlation is Spearman's, of the ranks here and in the paper's Table 1, where those after the third"
            " share one."
        )
    return Table(f"table-1{tag}", "The three best methods on each architecture", rows, columns, note)


def _means(means: pd.DataFrame, section: Section, tag: str) -> Table:
    """Return a table with a column for each method."""
    columns = [Column("architecture", "hidden layers", words.name, numeric=False)]
    for method in section.methods:
        columns.append(Column(f"{method}: mean", words.name(method), words.percent, flag=f"{method}: best"))
    rows = []
    for architecture, cells in means.groupby("architecture", sort=False):
        row: dict[str, object] = {"architecture": architecture}
        for cell in cells.to_dict("records"):
            values = {"mean": cell["mean"], "deviation": cell["deviation"], "seeds": cell["n"]}
            values["best"] = bool(cell["mean"] == cells["mean"].max())
            row |= {f"{cell['method']}: {name}": value for name, value in values.items()}
        rows.append(row)
    note = (
        "Means over the seeds; the best of a row is bold. The data for download have deviations and numbers of seeds."
    )
    return Table(f"accuracy{tag}", "Test accuracy of all methods", pd.DataFrame(rows), columns, note)


def reciprocal_ranks(section: Section, tag: str) -> Part | None:
    """Return MRR (eq. 12, figure 6), and how often each method took each rank (figure 7)."""
    rows = ranks.mrr(section)
    if len(rows) < 2 or rows["mrr"].isna().all():
        return None
    frequencies = ranks.rank_frequencies(section)
    counts = frequencies.rename_axis("method").reset_index().rename(columns=str)
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("mrr", "MRR", words.decimal, interval=("low", "high")),
        Column("paper", "in the paper, at least", words.decimal),
        Column("n", "architectures", words.count),
    ]
    note = "1 is first on every architecture. The intervals (95 %) are a bootstrap's over architectures and seeds."
    by_rank = [Column("method", "method", words.name, numeric=False)]
    by_rank += [Column(str(rank), str(rank), words.count) for rank in frequencies.columns]
    return Part(
        f"mrr{tag}",
        "Mean reciprocal ranks",
        [
            Text(_highest(rows), strong=True),
            Chart(
                f"mrr{tag}",
                "Mean reciprocal rank (eq. 12, the paper's figure 6)",
                charts.dots(rows, "mrr", f"mrr{tag}", "Mean reciprocal rank of each method", "mean reciprocal rank"),
                rows,
                note,
            ),
            Table(f"mrr-table{tag}", "Mean reciprocal ranks in numbers", rows, columns),
            Chart(
                f"ranks{tag}",
                "How often each method took each rank (the paper's figure 7)",
                charts.rank_frequencies(frequencies, f"ranks{tag}"),
                counts,
            ),
            Table(f"ranks-table{tag}", "Architectures by rank", counts, by_rank, closed=True),
        ],
    )


def _highest(rows: pd.DataFrame) -> str:
    def value(row: pd.Series) -> str:
        bounds = words.interval(row)
        return words.decimal(row["mrr"]) + (f" ({bounds})" if bounds != words.NOTHING else "")

    first = rows.loc[rows["mrr"].idxmax()]
    text = f"{words.name(first['method'])} has the highest MRR, {value(first)}"
    for _, row in rows[rows["method"] == SMARTMIXED].iterrows():
        if first["method"] != SMARTMIXED:
            place = int((rows["mrr"] > row["mrr"]).sum()) + 1
            text += f"; SmartMixed is number {place} of {len(rows)}, with {value(row)}"
    return f"{text}."
