"""The threads and the layout that run a file fastest on this machine. Without a network it runs on the base install."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from smx import files
from smx.errors import InputError
from smx.runtime.graph import summarise
from smx.runtime.parity.check import check_parity
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.runtime.tune import search
from smx.runtime.tune.search import TuningReport
from smx.runtime.tuning import Tuning, fingerprint, has_own_variant, is_tuned, tuning_path, variant_path
from smx.timing.machine import machine
from smx.workflows import OnProgress, silent
from smx.workflows.measuring import check_measurement, with_torch, without_torch


def tune(
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    goal: str = "p50",
    rounds: int = 60,
    max_threads: int | None = None,
    provider: str = "cpu",
    allow_fallback: bool = False,
    trust_code: bool = False,
    on_progress: OnProgress = silent,
) -> TuningReport:
    """Find the fastest number of threads for a file, and the fastest layout, and write them beside it.

    What is certainly faster than ONNX Runtime's defaults is written to `MODEL.onnx.tune.json`, which `Session` reads;
    if nothing is, that file says that the defaults stay. A faster layout is written to `MODEL.tuned.onnx`. If this
    process has loaded torch, the measurement runs in another one.

    Args:
        path: the ONNX file; or a `model.pt`, which is first exported in the layout `fastest`, searched for this batch
            size and provider, to `model.tuned.onnx` beside it.
        model: the `model.pt` that the file was exported from: also try the other layouts.
        batch_size: examples a run; None is what the file is made for, or 1.
        goal: `p50` or `p99` of the time of a run, or `throughput`.
        rounds: at least this many, of the search and of the last measurement against the defaults.
        max_threads: at most this many threads; None is the number of cores.
        provider, allow_fallback: see `smx.runtime.Session`.
        trust_code, on_progress: see `smx.bench`.

    Raises:
        InputError: a file, the goal or the number of rounds can't be used, or the file is not an export of the model.
    """
    check_measurement([1 if batch_size is None else batch_size], rounds, max_threads)
    search.check(goal, rounds)
    machine_before = machine()
    network = Path(path) if Path(path).suffix in files.NETWORKS else None
    if network and model is not None:
        raise InputError(f"two networks are given, {path} and {model}; give an ONNX file with --model, or one MODEL.pt")
    onnx_path = written_by_tune(network)[1] if network else Path(path)
    if network and onnx_path.exists() and not is_tuned(onnx_path):
        raise InputError(f"{onnx_path} exists, but is not from an earlier smx tune of {network}; move or remove it")
    variant = variant_path(onnx_path)
    if model is not None and variant.exists() and not has_own_variant(onnx_path):
        raise InputError(
            f"{variant} exists, but is not from an earlier smx tune of {onnx_path}, which could write over it; move or"
            " remove it"
        )
    with files.scratch() as folder:
        source = onnx_path
        if network:  # at its place it is when all has succeeded
            files.check_writable(onnx_path)
            source = folder / onnx_path.name
            on_progress("searching the fastest forms", 0, 0)
            how = {"for_batch": batch_size or 1, "provider": provider, "allow_fallback": allow_fallback}
            with_torch(export_fastest, network, source, trust_code=trust_code, **how)
        session = Session(source, provider, settings=Settings(), allow_fallback=allow_fallback)
        for path in written_by_tune(onnx_path):
            files.check_writable(path)
        measured, paths = fingerprint(source), {"": source}
        if model is not None:
            on_progress("exporting", 0, 0)
            paths |= _other_layouts(session, onnx_path, Path(model), folder, trust_code)
        report = without_torch(
            search.tune,
            paths,
            goal=goal,
            batch_size=batch_size or session.batch or 1,
            provider=provider,
            allow_fallback=allow_fallback,
            rounds=rounds,
            max_threads=max_threads,
            before=machine_before,
            on_progress=on_progress,
        )
        if network:
            files.write_bytes(onnx_path, source.read_bytes())
        _leave(onnx_path, measured, report, paths[report.winner.file] if report.winner.file else None)
    return report


def written_by_tune(path: Path) -> tuple[Path, Path]:
    """Return where `tune` writes for a file or a `model.pt`: the settings, and the file in another layout."""
    if not path.name:  # `.` or `/`
        raise InputError(f"{path} is a folder; give a MODEL.pt or an ONNX file")
    variant = variant_path(path.with_suffix(".onnx"))
    return tuning_path(variant if path.suffix in files.NETWORKS else path), variant


def export_fastest(model_path: Path, onnx_path: Path, *, trust_code: bool, **how: Any) -> None:
    """Export a saved model in the layout `fastest`; `how` is of `smx.export.Search`."""
    from smx.workflows.export_model import export_model

    export_model(model_path, onnx_path, layout="fastest", trust_code=trust_code, **how)


def _other_layouts(
    session: Session, onnx_path: Path, model_path: Path, folder: Path, trust_code: bool
) -> dict[str, Path]:
    """Export what a file was exported from in the other layouts, by their names, and check that they are the same."""
    info = session.info
    if info is None:
        raise InputError(f"{onnx_path} was not written by smx export; tune it without a model.pt")
    if info.precision != "float32":
        raise InputError(
            f"other layouts are tried in float32 alone, {onnx_path} is {info.precision}: export it in both layouts and"
            " tune each"
        )
    paths = with_torch(
        export_layouts,
        model_path,
        folder,
        without=info.layout,
        batch=session.batch,
        opset=summarise(onnx_path).opsets["ai.onnx"],
        raw=session.takes_raw,
        trust_code=trust_code,
    )
    if any(folder.glob("*.data")):
        raise InputError(f"{model_path} is so large that its weights lie beside the file; tune each layout by itself")
    for path in paths.values():
        _check_same(session, path, f"{onnx_path} was not exported from {model_path}")
    return paths


def export_layouts(
    model_path: Path, folder: Path, *, without: str, batch: int | None, opset: int, raw: bool, trust_code: bool
) -> dict[str, Path]:
    """Export a saved model in all layouts but one; return the files by layout."""
    from smx.export.compiler import LAYOUTS
    from smx.workflows.export_model import export_model

    paths = {layout: folder / f"{layout}.onnx" for layout in LAYOUTS if layout != without}
    for layout, path in paths.items():
        export_model(model_path, path, layout=layout, batch=batch, opset=opset, normalize=raw, trust_code=trust_code)
    return paths


def _check_same(session: Session, path: Path, otherwise: str) -> None:
    """Compare the layers and the answers of two exports, each of which may differ from PyTorch by its tolerance."""
    other = Session(path, settings=Settings(), name="its export")
    infos = [info for info in (session.info, other.info) if info is not None]
    layers = [[(layer.name, layer.groups) for layer in info.layers] for info in infos]
    if layers[0] != layers[1]:
        raise InputError(f"{otherwise}: their mixed layers differ")
    limits = [info.tolerance for info in infos]
    atol = sum(limit.get("atol", 0.0) for limit in limits)
    rtol = sum(limit.get("rtol", 0.0) for limit in limits)
    inputs = tuple(session.random_inputs(session.batch or 16))
    found = check_parity(session.run_all, other, {"random": inputs}, atol=atol, rtol=rtol, batch_sizes=[len(inputs[0])])
    if not found.passed:
        raise InputError(f"{otherwise}: their answers differ by up to {found.max_abs:.3g}")


def _leave(onnx_path: Path, model: str, report: TuningReport, fastest: Path | None) -> None:
    """Write the settings, and the fastest file if that is another one; remove what an earlier tuning left."""
    variant, other = variant_path(onnx_path), fastest is not None
    stale = not other and has_own_variant(onnx_path)
    if fastest is not None:
        files.write_bytes(variant, fastest.read_bytes())
    tuning = Tuning(
        model=model,
        settings=report.winner.settings,
        provider=report.provider,
        batch_size=report.batch_size,
        goal=report.goal,
        file=variant.name if other else None,
        file_hash=fingerprint(variant) if other else None,
        gain=report.gain,
        machine=report.machine,
    )
    files.write_text(tuning_path(onnx_path), tuning.to_json())
    if stale:
        variant.unlink()
