from __future__ import annotations

import pytest

from smx.cli.profile_tables import show_profile
from smx.runtime.profile.fold import FallenBack, Profile, ProfileRow


def made_up(provider: str, rows: tuple[ProfileRow, ...], gone: tuple[str, ...] = ()) -> Profile:
    fallen = tuple(FallenBack(f"{row.layer}/x", row.operator, row.provider) for row in rows if row.provider != provider)
    return Profile(
        provider=provider, batch_size=16, runs=1, microseconds=12.34, rows=rows, nodes=20, gone=gone, fallen_back=fallen
    )


def row(layer: str, operator: str, provider: str = "cpu") -> ProfileRow:
    return ProfileRow(layer=layer, operator=operator, provider=provider, count=2, microseconds=5.0, share=0.5)


def test_a_plain_profile_has_no_further_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_profile("a model", made_up("cpu", (row("a.linear", "Gemm"), row("a.act", "Relu"))), None)
    text = capsys.readouterr().out
    for part in ("a model, batch 16", "12.3 microseconds a run", "50.0%", "all 20 nodes of the file run as they stand"):
        assert part in text
    for absent in ("provider", "not run by"):
        assert absent not in text


def test_what_is_not_as_in_the_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (row("a.linear", "FusedGemm", "cuda"), row("[b]", "Erf", "cpu"))
    show_profile("m", made_up("cuda", rows, tuple(f"folded{i}" for i in range(12))), "-")
    captured = capsys.readouterr()
    assert captured.out == ""  # where the JSON goes
    for part in (
        "provider",
        "not run by cuda: [b]/x (Erf, cpu)",
        "12 of the 20 nodes of the file were fused, folded away or replaced: folded0, folded1",
        "folded9 and 2 more",
    ):
        assert part in captured.err
    assert max(map(len, captured.err.splitlines())) <= 140
