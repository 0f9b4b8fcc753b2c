"""Prepare an ONNX file for engines that scale out: Triton and KServe. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

from smx import files
from smx.errors import InputError


def deploy(
    onnx_path: str | os.PathLike[str],
    *,
    triton: str | os.PathLike[str] | None = None,
    kserve: str | os.PathLike[str] | None = None,
    kserve_uri: str | None = None,
    device: str = "cpu",
    max_batch: int = 64,
    max_delay: float = 0.0005,
    instances: int = 1,
    threads: int | None = None,
    version: int = 1,
) -> list[Path]:
    """Write a Triton model repository of an ONNX file, a KServe manifest, or both.

    Args:
        onnx_path: of the file.
        triton: folder of the repository; it gets `NAME/config.pbtxt` and `NAME/VERSION/model.onnx`.
        kserve: path of the manifest.
        kserve_uri: where the cluster finds the repository after it was uploaded; needed with `kserve`.
        device, max_batch, max_delay, instances, threads, version: see `smx.runtime.deploy.engine.Engine`.

    Returns:
        The model's folder in the repository, and the manifest.

    Raises:
        InputError: the file is no model that can be served, or a setting is wrong.
        SmxError: writing failed.
    """
    from smx.runtime.deploy.engine import Engine

    engine = Engine(
        device=device,
        max_batch=max_batch,
        max_delay=max_delay,
        instances=instances,
        threads=threads,
        version=version,
    )
    check(onnx_path, triton, kserve, kserve_uri, device)
    written = []
    if triton is not None:
        from smx.runtime.deploy.triton import write_repository

        written.append(write_repository(onnx_path, triton, engine))
    if kserve is not None:
        from smx.runtime.deploy.kserve import write_manifest

        written.append(write_manifest(onnx_path, kserve, kserve_uri or "", engine))
    return written


def check(
    onnx_path: str | os.PathLike[str],
    triton: str | os.PathLike[str] | None,
    kserve: str | os.PathLike[str] | None,
    kserve_uri: str | None,
    device: str = "cpu",
) -> None:
    """Check what can be checked before there is a file, so that no export is made in vain.

    Raises:
        InputError: the arguments do not fit each other, or nothing can be written there.
        ModuleNotFoundError: of the extra `deploy`.
    """
    if triton is not None:
        from smx.runtime.deploy.triton import check_name

        check_name(Path(onnx_path))
        files.make_folder(triton)
    if kserve is not None:
        from smx.runtime.deploy.kserve import check_uri

        check_uri(kserve_uri)
        files.check_writable(kserve)
    elif kserve_uri is not None:
        raise InputError("--kserve-uri belongs to a manifest: give --kserve FILE, too")
    if device != "cpu" and triton is None and kserve is None:
        raise InputError(f"the device {device} is of a Triton repository or a manifest: give --triton DIR, too")
