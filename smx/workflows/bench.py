"""The latency of a network, beside the same network with one activation; or of ONNX files beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError
from smx.files import NETWORKS, scratch
from smx.paper import PAPER_POOL
from smx.runtime.latency.measure import LatencyReport, measure_latency
from smx.runtime.profile.fold import Profile
from smx.runtime.profile.run import profile as profile_model
from smx.runtime.providers import DEVICES, execution_providers
from smx.runtime.session import existing
from smx.runtime.settings import Settings
from smx.timing import BATCH_SIZES
from smx.timing.changes import Changes, check_baseline, compare_reports, read_report
from smx.timing.limits import Verdict, judge
from smx.timing.machine import machine
from smx.timing.runners import ProcessRunner
from smx.workflows import OnProgress, listed, silent
from smx.workflows.candidates import export_candidates, pytorch_runner
from smx.workflows.measuring import by_round, check_measurement, parse_limits, pick_reference, with_torch, without_torch

if TYPE_CHECKING:
    from torch import Tensor

    from smx.workflows.network import NetworkLike

LAYOUTS = ("scatter", "sorted")
PYTORCH = {"eager": "pytorch", "compiled": "pytorch compiled"}
"""How PyTorch can run the network, and the candidate's name."""
ONE_THREAD = Settings(threads=1)


@dataclass(frozen=True, kw_only=True)
class BenchReport(LatencyReport):
    """What a bench measured; see `LatencyReport` for the rest.

    Attributes:
        model: what was measured, for people.
        limits: what the measurement says of the stated limits.
        profiles: where the time of each file goes, at each batch size; empty when that was not asked for.
        changes: since an earlier bench, if one was given.
    """

    model: str
    limits: tuple[Verdict, ...] = ()
    profiles: dict[str, tuple[Profile, ...]] = field(default_factory=dict)
    changes: Changes | None = None

    @property
    def passed(self) -> bool:
        """Whether no limit is surely exceeded."""
        return not any(verdict.exceeded for verdict in self.limits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = super().to_dict()
        values["profiles"] = {name: [table.to_dict() for table in tables] for name, tables in self.profiles.items()}
        return {key: value for key, value in values.items() if value or key not in ("profiles", "changes")}


def bench(
    models: NetworkLike | Sequence[str | os.PathLike[str]],
    *,
    example_input: Tensor | tuple[Tensor, ...] | None = None,
    layouts: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    pytorch: Sequence[str] = (),
    reference: str | None = None,
    batch_sizes: int | Sequence[int] = BATCH_SIZES,
    rounds: int = 60,
    settings: Settings = ONE_THREAD,
    io_binding: bool | None = None,
    provider: str = "cpu",
    allow_fallback: bool = False,
    profile: bool = False,
    limits: Sequence[str] = (),
    compare: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    on_progress: OnProgress = silent,
) -> BenchReport:
    """Measure latency in ONNX Runtime, all candidates in turn.

    A network is exported in each layout, and with each fixed activation in place of its mixed layers. ONNX files are
    candidates as they are, under their names. If this process has loaded torch, the measurement runs in another one.

    Args:
        models: a network (a path of `model.pt`, its content, or a module with `example_input`), an ONNX file, or
            several paths, of which at most one is a `model.pt`.
        layouts: of the network, one or several; None is `LAYOUTS`.
        baselines: names of fixed activations in place of the network's; None is the paper's pool.
        pytorch: also run the `model.pt` in PyTorch: keys of `PYTORCH`.
        reference: the candidate that ratios refer to; None is relu, or else the first one.
        batch_sizes: examples a run.
        rounds: at least this many, in each of which every candidate runs a short burst.
        settings: of the sessions; one thread by default.
        io_binding: keep tensors on the provider's device; None does so if it has memory of its own.
        provider, allow_fallback: see `smx.runtime.Session`.
        profile: also tell where the time of each file goes, by layer and operator.
        limits: stated limits, such as `sorted/relu<=1.10`; see `smx.timing.limits.Limit`.
        compare: JSON file of an earlier bench; tell what changed since then.
        example_input, trust_code: see `smx.workflows.network.open_network`.
        on_progress: see `smx.workflows.OnProgress`.

    Raises:
        InputError: a file, a name or a limit can't be used, or the candidates take different inputs.
        SmxError: the process of a candidate was killed.
    """
    given = {"layouts": layouts, "baselines": baselines}
    layouts = LAYOUTS if layouts is None else listed(layouts)
    baselines = PAPER_POOL if baselines is None else listed(baselines)
    pytorch, limits = listed(pytorch), listed(limits)
    batch_sizes = tuple(dict.fromkeys(listed(batch_sizes)))
    check_measurement(batch_sizes, rounds)
    before = machine()
    parsed = parse_limits(limits, rounds)
    old = read_report(Path(compare)) if compare else None
    execution_providers(provider)
    network, files, title = _separate(models, {*layouts, *baselines, *PYTORCH.values()})
    if network is None and (unused := [name for name, value in given.items() if value]):
        raise InputError(f"{' and '.join(unused)} are of a MODEL.pt, and none is given; leave them out")
    path = Path(network) if isinstance(network, str | os.PathLike) else None
    if pytorch and path is None:
        raise InputError("only a MODEL.pt runs in PyTorch, and none is given; smx.save writes one for any network")
    if unknown := sorted(set(pytorch) - PYTORCH.keys()):
        raise InputError(f"PyTorch runs a network {' or '.join(PYTORCH)}, got {', '.join(unknown)}")
    made_here = [] if network is None else [*layouts, *baselines]
    names = [*dict.fromkeys([*made_here, *files, *(PYTORCH[kind] for kind in pytorch)])]
    reference = pick_reference(reference, names, baselines)
    if old is not None:
        check_baseline(old, reference)
    for limit in parsed:
        limit.check(names, batch_sizes)
    with scratch() as folder:
        if network is not None and (layouts or baselines):
            on_progress("exporting the candidates", 0, 0)
            what = (network, folder, layouts, baselines)
            search: dict[str, Any] = {
                "provider": provider,
                "threads": settings.threads,
                "allow_fallback": allow_fallback,
                "for_batch": batch_sizes[0] if len(batch_sizes) == 1 else None,
            }
            made = with_torch(export_candidates, *what, example_input=example_input, trust_code=trust_code, **search)
            files = made | files
        how: dict[str, Any] = {"device": DEVICES.get(provider, "cpu"), "threads": settings.threads}
        runs = {
            PYTORCH[kind]: partial(pytorch_runner, path, compiled=kind == "compiled", trust_code=trust_code, **how)
            for kind in pytorch
            if path
        }
        report, profiles = without_torch(
            _measure,
            files,
            runs,
            profile=profile,
            on_progress=on_progress,
            baseline=reference,
            batch_sizes=batch_sizes,
            provider=provider,
            settings=settings,
            io_binding=io_binding,
            allow_fallback=allow_fallback,
            rounds=rounds,
            before=before,
        )
    return BenchReport(
        **vars(report),
        model=title,
        limits=tuple(verdict for limit in parsed for verdict in judge(limit, report)),
        profiles=profiles,
        changes=compare_reports(old, report.to_dict()) if old is not None else None,
    )


def _measure(
    files: Mapping[str, Path],
    runs: Mapping[str, Callable[[], Any]],
    *,
    profile: bool,
    on_progress: OnProgress = silent,
    **options: Any,
) -> tuple[LatencyReport, dict[str, tuple[Profile, ...]]]:
    """Time the files, and what runs in PyTorch in processes of its own; then profile the files."""
    sizes = options["batch_sizes"]
    report = measure_latency(
        {**files, **{name: ProcessRunner(make) for name, make in runs.items()}},
        on_progress=by_round(on_progress, sizes, options["rounds"]),
        **options,
    )
    how = {key: options[key] for key in ("provider", "settings")}
    profiled = files.items() if profile else ()
    return report, {name: tuple(profile_model(path, size, **how) for size in sizes) for name, path in profiled}


def _separate(models: Any, taken: set[str]) -> tuple[Any, dict[str, Path], str]:
    """Return the network, if there is one, the ONNX files by names that are not taken, and all of it for people."""
    if isinstance(models, str | os.PathLike):
        models = [models]
    if not isinstance(models, Sequence):
        return models, {}, type(models).__name__
    paths = [Path(path) for path in models]
    saved = [path for path in paths if path.suffix in NETWORKS]
    files = [path for path in paths if path.suffix not in NETWORKS]
    if len(saved) > 1:
        raise InputError(f"a bench takes one MODEL.pt and any number of ONNX files, got {', '.join(map(str, saved))}")
    stems = [path.stem for path in files]
    names = [
        path.stem if stems.count(path.stem) == 1 else f"{path.absolute().parent.name}-{path.stem}" for path in files
    ]
    for path, name in zip(files, names, strict=True):
        existing(path)
        if names.count(name) > 1 or (saved and name in taken):
            raise InputError(f"{path} has the name of another candidate, {name}; copy it under a name of its own")
    title = ", ".join(map(str, models))
    return saved[0] if saved else None, dict(zip(names, files, strict=True)), title
