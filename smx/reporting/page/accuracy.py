"""The parts about accuracy: Table 1 and ranks, comparisons, MRR, phases."""

from __future__ import annotations

import pandas as pd

from smx.reporting import comparisons, phases, ranks
from smx.reporting.charts import methods as charts
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Chart, Column, Part, Table, Text
from smx.reporting.study import SMARTMIXED, Section

CORRECTED = "Holm's correction counts all comparisons of this table."


def accuracy(section: Section, tag: str) -> Part | None:
    """Return Table 1 with the paper's beside it, and every mean with its deviation."""
    means = ranks.accuracy(section)
    if len(means) < 2:
        return None
    best = means.groupby("architecture")["mean"].transform("max")
    means = means.assign(best=means["mean"] == best)
    blocks: list[Block] = []
    if len(section.contenders) > 1:
        blocks += [*_friedman(section), _table_1(section, tag)]
    blocks.append(_means(means, section, tag))
    return Part(f"accuracy{tag}", "Accuracy and ranks", blocks)


def _friedman(section: Section) -> list[Block]:
    found = comparisons.friedman(section)
    if words.missing(found["p"]):
        return [Text("Too few architectures or methods for a test of whether the ranks differ at all.")]
    differ = "differ" if float(str(found["p"])) < 0.05 else "do not surely differ"
    text = (
        f"The ranks of the methods {differ}: {words.p_of(found['p'])} (Friedman test over"
        f" {found['n']} architectures and {len(section.contenders)} methods)."
    )
    return [Text(text, strong=True)]


def _table_1(section: Section, tag: str) -> Table:
    rows = ranks.table_1(section)
    paper = rows["paper_first"].notna().any()
    columns = [
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("seeds", "seeds", words.count),
        *(Column(place, place, words.name, numeric=False) for place in ("first", "second", "third")),
    ]
    if paper:
        columns += [
            *(
                Column(f"paper_{place}", f"paper: {place}", words.name, numeric=False)
                for place in ("first", "second", "third")
            ),
            Column("correlation", "rank correlation"),
        ]
        columns[-1] = Column("correlation", "rank correlation", words.decimal)
    note = "Ranked by mean test accuracy over the seeds that all methods have; equal means share a place."
    if paper:
        note += " The correlation is Spearman's, of the paper's three with the ranks that they have here."
    return Table(f"table-1{tag}", "The three best methods on each architecture", rows, columns, note)


def _means(means: pd.DataFrame, section: Section, tag: str) -> Table:
    """Return a table with a column for each method."""
    rows, columns = [], [Column("architecture", "hidden layers", words.name, numeric=False)]
    for method in section.methods:
        columns.append(Column(method, words.name(method), words.percent, flag=f"{method}: best"))
    for architecture, cells in means.groupby("architecture", sort=False):
        row: dict[str, object] = {"architecture": architecture}
        for cell in cells.to_dict("records"):
            method = cell["method"]
            row |= {method: cell["mean"], f"{method}: deviation": cell["deviation"], f"{method}: seeds": cell["n"]}
            row[f"{method}: best"] = bool(cell["best"])
        rows.append(row)
    note = "Means over the seeds; the best of a row is bold. The data for download have the deviations and counts."
    return Table(f"accuracy{tag}", "Test accuracy of all methods", pd.DataFrame(rows), columns, note)


def compared(section: Section, tag: str) -> Part | None:
    """Return the differences between SmartMixed and the other methods."""
    rows = comparisons.comparisons(section)
    if rows.empty:
        return None
    svg = charts.dots(
        rows.assign(method=rows["other"]),
        "difference",
        f"differences{tag}",
        "SmartMixed's difference to each other method, in points of test accuracy, with 95 % intervals",
        "points of accuracy; right of the line SmartMixed is better",
        line=0.0,
        text=words.points,
    )
    blocks: list[Block] = [
        Chart(f"differences{tag}", "SmartMixed minus each other method", svg, rows, _pairs_note()),
        Table(
            f"comparisons{tag}",
            "SmartMixed minus each other method",
            rows,
            [
                Column("other", "other method", words.name, numeric=False),
                Column("difference", "points", words.points, interval=("low", "high")),
                Column("pairs", "pairs", words.count),
                Column("wins", "better on", words.count),
                Column("architectures", "of architectures", words.count),
                Column("p", "p", words.p),
                Column("test", "test", numeric=False),
            ],
            "p is not corrected here; the table of all tests has both.",
        ),
    ]
    within = comparisons.within_architectures(section)
    if len(within):
        blocks.append(
            Table(
                f"within{tag}",
                "The same in each architecture, over its seeds",
                within,
                [
                    Column("architecture", "hidden layers", words.name, numeric=False),
                    Column("other", "other method", words.name, numeric=False),
                    Column("difference", "points", words.points, interval=("low", "high")),
                    Column("pairs", "seeds", words.count),
                    Column("p", "p", words.p),
                    Column("p_corrected", "corrected p", words.p),
                ],
                f"Paired t tests. {CORRECTED}",
                closed=True,
            )
        )
    return Part(f"compared{tag}", "SmartMixed against each method", blocks)


def _pairs_note() -> str:
    return (
        "Mean over all pairs of runs with the same architecture and seed. The interval (95 %) is a bootstrap's that draws"
        " architectures, and pairs within them."
    )


def reciprocal_ranks(section: Section, tag: str) -> Part | None:
    """Return MRR (eq. 12, figure 6), and how often each method took each rank (figure 7)."""
    rows = ranks.mrr(section)
    if len(rows) < 2:
        return None
    first = rows.sort_values("mrr").iloc[-1]
    sentence = f"{words.name(first['method'])} has the highest MRR, {words.decimal(first['mrr'])}"
    if not words.missing(first["low"]):
        sentence += f" ({words.interval(first.to_dict())})"
    mixed = rows[rows["method"] == SMARTMIXED]
    if len(mixed) and first["method"] != SMARTMIXED:
        row = mixed.iloc[0].to_dict()
        place = int((rows["mrr"] > row["mrr"]).sum()) + 1
        sentence += f"; SmartMixed is number {place} of {len(rows)} with {words.decimal(row['mrr'])}"
        if not words.missing(row["low"]):
            sentence += f" ({words.interval(row)})"
    frequencies = ranks.rank_frequencies(section)
    paper = rows["paper"].notna().any() if "paper" in rows else False
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("mrr", "MRR", words.decimal, interval=("low", "high")),
        *([Column("paper", "at least, in the paper", words.decimal)] if paper else []),
        Column("n", "architectures", words.count),
    ]
    counts = frequencies.rename_axis("method").reset_index()
    counts.columns = [str(column) for column in counts.columns]
    title = "Mean reciprocal rank of each method, with 95 % intervals"
    note = "1 means first on every architecture. The interval is a bootstrap's over architectures and seeds."
    return Part(
        f"mrr{tag}",
        "Mean reciprocal ranks",
        [
            Text(f"{sentence}.", strong=True),
            Chart(
                f"mrr{tag}",
                "Mean reciprocal rank (eq. 12, the paper's figure 6)",
                charts.dots(rows, "mrr", f"mrr{tag}", title, "mean reciprocal rank"),
                rows,
                note,
            ),
            Table(f"mrr-table{tag}", "Mean reciprocal rank", rows, columns),
            Chart(
                f"ranks{tag}",
                "How often each method took each rank (the paper's figure 7)",
                charts.rank_frequencies(frequencies, f"ranks{tag}"),
                counts,
            ),
        ],
    )


def by_phase(section: Section, tag: str) -> Part | None:
    """Return Table 3."""
    rows = phases.table_3(section)
    if rows.empty:
        return None
    paper = rows["paper_test"].notna().any()
    columns = [
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("phase", "phase", numeric=False),
        Column("validation_accuracy", "validation", words.percent),
        Column("validation_deviation", "deviation", words.percent),
        Column("test_accuracy", "test", words.percent),
        Column("test_deviation", "deviation", words.percent),
        Column("n", "seeds", words.count),
    ]
    if paper:
        columns += [
            Column("paper_validation", "paper: validation", words.percent),
            Column("paper_test", "paper: test", words.percent),
        ]
    return Part(f"phases{tag}", "Accuracy after each phase", [*_gain(rows), _table_3(rows, columns, tag)])


def _table_3(rows: pd.DataFrame, columns: list[Column], tag: str) -> Table:
    note = (
        "Of SmartMixed, in the best epoch of each phase, means over the seeds. Sampled: the noise of phase 1 stays on while"
        " the network is evaluated, as in the author's code."
    )
    return Table(f"table-3{tag}", "Accuracy after each phase (the paper's Table 3)", rows, columns, note)


def _gain(rows: pd.DataFrame) -> list[Block]:
    means = rows.pivot_table(index="architecture", columns="phase", values="test_accuracy")
    if not {"phase 1", "phase 2"} <= {*means}:
        return []
    gain = 100 * (means["phase 2"] - means["phase 1"]).dropna()
    if gain.empty:
        return []
    parts = [f"Phase 2 adds {words.points(gain.mean())} points of test accuracy to the committed network of phase 1"]
    if len(gain) > 1:
        parts.append(f"(mean of {len(gain)} architectures; {words.points(gain.min())} to {words.points(gain.max())})")
    return [Text(" ".join(parts) + ".", strong=True)]
