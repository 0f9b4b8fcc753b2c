"""What is built, and what each way of installing it brings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import refused

ROOT = Path(__file__).parent.parent
NOT_IN_IT = shutil.ignore_patterns(".*", "runs", "build", "node_modules", "*.egg-info", "__pycache__")


def run(*command: str | Path, **options: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, **options)  # type: ignore[call-overload]


def wheel_of(source: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project."""
    copy: Path = tmp_path_factory.mktemp("source") / "smartmixed"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_IN_IT)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(source, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_is_one_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "smx").glob("*.py")}
    sources |= {f"smx/{path.relative_to(ROOT)}" for top in ("export", "runtime") for path in (ROOT / top).rglob("*.py")}
    sources |= {f"smx/{path.relative_to(ROOT)}" for path in (ROOT / "runtime" / "serving" / "web").iterdir()}
    for folder in (ROOT / "smx" / "reporting" / "templates", ROOT / "smx" / "study" / "grids"):
        sources |= {str(path.relative_to(ROOT)) for path in folder.iterdir()}
    assert sources <= names
    assert {name.partition("/")[0] for name in names} == {"smx", wheel.name.partition("-py3")[0] + ".dist-info"}


def test_the_source_archive_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = tmp_path.glob("smartmixed-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    again = wheel_of(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "wheel")
    one, other = (zipfile.ZipFile(path) for path in (wheel, again))
    assert set(one.namelist()) == set(other.namelist())
    assert all(one.read(name) == other.read(name) for name in one.namelist() if name.startswith("smx/"))


def installed(wheel: Path, extras: str, folder: Path) -> Path:
    """Install the wheel into an environment of its own; return where its programs are."""
    venv.create(folder, with_pip=True)
    requirement = f"{wheel}[{extras}]" if extras else str(wheel)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", requirement)
    return folder / "bin"


@pytest.mark.install
@pytest.mark.timeout(900)
def test_the_wheel_without_torch(wheel: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the wheel with its base dependencies only, and use it."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # nothing but what is installed
    programs = installed(wheel, "", tmp_path / "env")
    tried = subprocess.run([programs / "python", "-c", "import torch"], capture_output=True, check=False)
    assert tried.returncode != 0
    np.save(tmp_path / "x.npy", np.zeros((2, 64), np.uint8))
    run(programs / "smx", "predict", exported, tmp_path / "x.npy")
    run(programs / "smx", "inspect", exported)
    for arguments, extra in ((["train"], "train"), (["serve", exported], "serve")):
        result = subprocess.run([programs / "smx", *arguments], capture_output=True, text=True, check=False)
        refused(result, 1, f"pip install 'smartmixed[{extra}]'")


TRAIN = ("train", "--hidden", "8", "--phase1-epochs", "1", "--phase2-epochs", "1", "--out", "run")
KSERVE = ("--kserve", "service.yaml", "--kserve-uri", "s3://bucket/models")
SWEEP = ("sweep", "--config", "grid.toml", "--out", "study")
GRID = """[base]
data = "digits"
phase1_epochs = 1
phase2_epochs = 1
hidden = "8"
[grid]
method = ["smartmixed", "relu"]
seed = [0, 1]
"""


@pytest.mark.install
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("extras", "command"),
    [
        ("train", TRAIN),
        ("train,tensorboard", (*TRAIN, "--tensorboard")),
        ("train,deploy", ("export", "model.pt", "model.onnx", "--triton", "models", *KSERVE)),
        ("study", SWEEP),
        ("study,ray", (*SWEEP, "--ray", "local")),
    ],
)
def test_each_extra_brings_what_its_command_needs(
    extras: str, command: tuple[str, ...], wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` has its test in test_docker; `portability`, `models` and the like are for tests of their own names."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    programs = installed(wheel, extras, tmp_path / "env")
    place = tmp_path / "place"
    place.mkdir()
    (place / "grid.toml").write_text(GRID)
    shutil.copy(ROOT / "tests" / "fixtures" / "model.pt", place)
    run(programs / "smx", *command, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"})
    shutil.rmtree(tmp_path / "env")  # gigabytes


def test_what_has_a_hash_has_the_tested_version() -> None:
    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
        return {re.sub("[._-]+", "-", package).lower(): version for package, version in found}

    hashed, tested = pins("hashes.txt"), pins("constraints.txt")
    assert {"numpy", "onnx", "onnxruntime", "click", "pytest"} <= hashed.keys()
    assert {name: version for name, version in hashed.items() if tested.get(name, version) != version} == {}
    assert hashed.keys() - tested.keys() <= {"cffi", "colorama", "pycparser", "tzdata", "setuptools"}, "run make lock"
