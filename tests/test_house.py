"""The rules of the house: who may import whom, what an import may load, what the package consists of."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import refused, smx

ROOT = Path(__file__).parent.parent
STDLIB = sys.stdlib_module_names


class Room(NamedTuple):
    """Files that may import the same.

    Attributes:
        holds: folders, and files where a folder has several rooms; the longest path that fits decides.
        packages: of others.
        modules: of smx, with all that is below them; the room's own are among them anyway.
    """

    holds: tuple[str, ...]
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


CORE = ("smx.__version__", "smx.errors", "smx.files", "smx.paper", "smx.subprocesses")
METHOD = ("smx.activations", "smx.functional", "smx.layers", "smx.models", "smx.hooks", "smx.hinges", "smx.fused")
ROOMS = {
    "core": Room(
        ("smx/__init__.py", "smx/__main__.py", "smx/errors.py", "smx/files.py", "smx/paper.py", "smx/subprocesses.py"),
        modules=("smx",),
    ),
    "arrays": Room(("smx/arrays.py",), ("numpy",), CORE),
    "timing": Room(("smx/timing",), ("numpy",), CORE),
    "method": Room(
        (
            "smx/activations.py",
            "smx/functional.py",
            "smx/layers.py",
            "smx/models.py",
            "smx/hooks.py",
            "smx/hinges.py",
            "smx/fused",
        ),
        ("torch",),
        CORE,
    ),
    "kernels": Room(("smx/fused/triton.py",), ("torch", "triton"), (*CORE, "smx.fused")),
    "convert": Room(("smx/convert",), ("torch",), (*CORE, *METHOD)),
    "sorting": Room(("smx/sorting",), ("torch",), (*CORE, *METHOD)),
    "data": Room(("smx/data",), ("numpy", "sklearn", "torch", "torchvision"), (*CORE, "smx.arrays")),
    "run": Room(
        (
            "smx/architecture.py",
            "smx/factory.py",
            "smx/modelfile.py",
            "smx/preprocessing.py",
            "smx/program.py",
            "smx/saving.py",
            "smx/torchfile.py",
            "smx/torchrunner.py",
            "smx/training",
            "smx/stepbench",
        ),
        ("torch", "numpy"),
        (*CORE, *METHOD, "smx.arrays", "smx.timing", "smx.convert", "smx.sorting", "smx.data"),
    ),
    "figures": Room(("smx/figures",), ("matplotlib", "numpy"), (*CORE, "smx.training.metrics", "smx.timing.report")),
    "runtime": Room(
        ("runtime",),
        ("numpy", "onnxruntime", "google", "PIL"),
        (*CORE, "smx.arrays", "smx.timing"),
    ),
    "export": Room(
        ("export",),
        ("torch", "numpy", "onnx", "onnx_ir", "onnxruntime"),
        (*CORE, *METHOD, "smx.convert", "smx.sorting", "smx.runtime"),
    ),
    "workflows": Room(
        ("smx/workflows",),
        ("numpy", "torch"),
        (
            *CORE,
            *METHOD,
            "smx.arrays",
            "smx.timing",
            "smx.convert",
            "smx.sorting",
            "smx.data",
            "smx.architecture",
            "smx.factory",
            "smx.modelfile",
            "smx.preprocessing",
            "smx.program",
            "smx.saving",
            "smx.torchfile",
            "smx.torchrunner",
            "smx.training",
            "smx.stepbench",
            "smx.figures",
            "smx.runtime",
            "smx.export",
        ),
    ),
    "cli": Room(("smx/cli",), ("click", "rich", "numpy", "torch"), ("smx",)),
}
"""Who may import whom; CONTRIBUTING.md says what belongs into each."""

SOURCES = [path for folder in ("smx", "export", "runtime") for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found |= {f"smx.{alias.name}" for alias in node.names} if module == "smx" else {module}
    return {name for name in found if name != "__future__"}


def room_of(path: Path, root: Path = ROOT) -> str:
    """Return the room of a file: that whose path fits it best."""
    parts = path.relative_to(root).parts
    fits = [
        (len(Path(held).parts), name)
        for name, room in ROOMS.items()
        for held in room.holds
        if parts[: len(Path(held).parts)] == Path(held).parts
    ]
    assert fits, f"{'/'.join(parts)} stands in no room; name one in ROOMS of tests/test_house.py"
    return max(fits)[1]


def check_imports(path: Path, root: Path = ROOT) -> None:
    name = room_of(path, root)
    room = ROOMS[name]
    top = path.relative_to(root).parts[0]
    own = [held.removesuffix(".py").replace("/", ".") for held in room.holds]
    own = [f"smx.{module}" if top != "smx" else module for module in own]
    for module in imports(path):
        package = module.partition(".")[0]
        if package == "smx":
            allowed = any(module == each or module.startswith(f"{each}.") for each in (*room.modules, *own))
            assert allowed, f"{path.name} in the room {name} may not import {module}"
        else:
            allowed = package in STDLIB or package in room.packages
            assert allowed, f"{path.name} in the room {name} may not import {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_may_import_whom(path: Path) -> None:
    check_imports(path)


def test_every_room_holds_something() -> None:
    assert {room_of(path) for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize(
    ("place", "code", "reason"),
    [
        ("smx/fused/planted.py", "import onnxruntime", "may not import onnxruntime"),
        ("smx/planted.py", "import os", "stands in no room"),
        ("smx/planted/planted.py", "import os", "stands in no room"),
        ("runtime/planted.py", "import torch", "may not import torch"),
        ("runtime/planted.py", "from smx import layers", "may not import smx.layers"),
        ("smx/timing/planted.py", "def f():\n    from smx.runtime import Session", "may not import smx.runtime"),
        ("export/planted.py", "import smx.cli.export", "may not import smx.cli"),
        ("smx/training/planted.py", "import smx.runtime.session", "may not import smx.runtime.session"),
    ],
)
def test_a_file_in_the_wrong_room_is_found(place: str, code: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(code)
    with pytest.raises(AssertionError, match=reason):
        check_imports(path, tmp_path)


def loaded_after(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "sklearn", "matplotlib"}


@pytest.mark.parametrize("code", ["import smx", "import smx.runtime", "import smx.cli", "import smx; smx.runtime"])
def test_imports_load_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_running_a_model_loads_no_torch(exported: Path) -> None:
    code = f"import numpy; from smx.runtime import Session; Session({str(exported)!r}).run(numpy.zeros((3, 64)))"
    assert not loaded_after(code) & HEAVY


def test_public_names_are_there() -> None:
    import smx as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)
    with pytest.raises(AttributeError, match="module 'smx' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


WITHOUT_TRAIN = """
import sys
for name in ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "sklearn", "matplotlib"):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError, as where it is not installed
from smx.cli import main
main(sys.argv[1:])
"""


def base_install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as if only the base install were there."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAIN, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_base_install_predicts_inspects_and_helps(exported: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros((2, 64), np.uint8))
    for arguments in (
        ("predict", exported, tmp_path / "x.npy"),
        ("inspect", exported),
        ("train", "--help"),
        ("--help",),
    ):
        result = base_install(*arguments)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("train",), ("bench-train",), ("export", "{run}/model.pt", "{tmp}/m.onnx"), ("inspect", "{run}/model.pt")],
)
def test_a_command_that_needs_more_says_so(arguments: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    filled = [argument.format(run=run, tmp=tmp_path) for argument in arguments]
    refused(
        base_install(*filled), 1, f"smx {arguments[0]} needs", "not installed; run: pip install 'smartmixed[train]'"
    )


def test_events_need_tensorboard(tmp_path: Path) -> None:
    code = "import sys; sys.modules['tensorboard'] = None; from smx.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "train", "--tensorboard", "--out", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    refused(result, 1, "smx train needs tensorboard", "run: pip install 'smartmixed[tensorboard]'")
    assert list((tmp_path / "run").iterdir()) == []


def test_links_lead_to_the_top_level_folders() -> None:
    for name in ("export", "runtime"):
        link = ROOT / "smx" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name
    tracked = subprocess.run(["git", "ls-files", "-s", "smx"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:
        assert tracked.stdout.count("120000") == 2  # git keeps them as links


def test_the_version_is_the_packages() -> None:
    import tomllib

    import smx as package

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == package.__version__
    assert smx("--version").stdout.strip().endswith(package.__version__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "runs", "build", "node_modules", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=ignore)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
    ]
    subprocess.run([*pip, folder / "source"], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_one_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "smx").glob("*.py")}
    sources |= {f"smx/{path.relative_to(ROOT)}" for top in ("export", "runtime") for path in (ROOT / top).rglob("*.py")}
    assert sources <= names
    assert {name.partition("/")[0] for name in names} == {"smx", wheel.name.partition("-py3")[0] + ".dist-info"}


@pytest.mark.install
@pytest.mark.timeout(900)
def test_the_wheel_without_torch(wheel: Path, exported: Path, tmp_path: Path) -> None:
    """Install the wheel with its base dependencies only, and use it."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, wheel], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode != 0
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros((2, 64), np.uint8))
    command = tmp_path / "env" / "bin" / "smx"
    subprocess.run([command, "predict", exported, tmp_path / "x.npy"], check=True)
    subprocess.run([command, "inspect", exported], check=True)
    result = subprocess.run([command, "train"], capture_output=True, text=True, check=False)
    refused(result, 1, "pip install 'smartmixed[train]'")
