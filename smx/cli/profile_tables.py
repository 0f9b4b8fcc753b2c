"""The table of a profile, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from smx.cli.options import console

if TYPE_CHECKING:
    from smx.runtime.profile.fold import Profile

NAMED = 10
"""Nodes that are named in a line, at most."""


def show_profile(name: str, profile: Profile, json_path: str | None) -> None:
    """Print where the time of a model goes, layer after layer, and what does not run as it stands in the file.

    Args:
        name: how to call the model.
        profile: of it.
        json_path: where JSON goes; what people read goes elsewhere.
    """
    table = Table(
        title=f"{name}, batch {profile.batch_size}\n{profile.microseconds:,.1f} microseconds a run, as profiled",
        caption="the profiler adds 2 to 3 microseconds to every node,\nand more between them",
    )
    providers = {row.provider for row in profile.rows} != {profile.provider}
    columns = {
        "layer": True,
        "operator": True,
        "nodes": True,
        "provider": providers,
        "microseconds": True,
        "share": True,
    }
    for heading, shown in columns.items():
        if shown:
            right = heading in ("nodes", "microseconds", "share")
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
    layer = None
    for row in profile.rows:
        if layer not in (None, row.layer):
            table.add_section()
        cells = (
            row.layer if row.layer != layer else "",
            row.operator,
            str(row.count),
            row.provider,
            f"{row.microseconds:,.1f}",
            f"{row.share:.1%}",
        )
        layer = row.layer
        table.add_row(*(cell for cell, shown in zip(cells, columns.values(), strict=True) if shown))
    people = console(json_path)
    people.print(table)
    if profile.fallen_back:
        nodes = (f"{node} ({operator}, {provider})" for node, operator, provider in profile.fallen_back)
        people.print(f"not run by {profile.provider}: {', '.join(nodes)}")
    people.print(_gone(profile))


def _gone(profile: Profile) -> str:
    """Return how many nodes are gone, and the names of the first."""
    if not profile.gone:
        return f"all {profile.nodes} nodes of the file run as they stand there"
    more = f" and {len(profile.gone) - NAMED} more" if len(profile.gone) > NAMED else ""
    names = ", ".join(profile.gone[:NAMED]) + more
    return f"{len(profile.gone)} of the {profile.nodes} nodes of the file were fused, folded away or replaced: {names}"
