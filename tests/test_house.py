"""The rules of the house: who may import whom, what an import may load, what the package consists of."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import refused, smx

ROOT = Path(__file__).parent.parent
STDLIB = sys.stdlib_module_names
LEAVES = {"smx", "smx.errors", "smx.files", "smx.paper"}  # standard library only; anyone may import them
LAYERS = {"smx.activations", "smx.functional", "smx.layers", "smx.models", "smx.hooks", "smx.hinges"}
LAYERS |= {f"smx.fused{module}" for module in ("", ".basis", ".constants", ".eager", ".operators")}
LAYERS |= {"smx.fused.traced", "smx.fused.triton"}
LAYERS |= {f"smx.convert{module}" for module in ("", ".channels", ".phases", ".rewriting", ".tracing")}
LAYERS |= {f"smx.sorting{module}" for module in ("", ".aten", ".neurons", ".orders", ".ties")}
RUN = {"smx.architecture", "smx.factory", "smx.modelfile", "smx.torchfile", "smx.torchrunner"}
RUN |= {"smx.data", "smx.stepbench", "smx.training"}
TIMING = {f"smx.runtime.latency.{name}" for name in ("interleave", "intervals", "report", "runners")}
MAY_IMPORT = {
    # what: (packages, modules of smx)
    "leaves": (set(), {"smx.errors"}),
    "layers": ({"torch", "triton"}, LAYERS | LEAVES),
    "runtime": ({"numpy", "onnxruntime", "google", "PIL"}, {"smx.errors"}),
    "run": (
        {"torch", "torchvision", "numpy", "sklearn"},
        RUN | LAYERS | LEAVES | TIMING | {"smx.runtime.arrays", "smx.runtime.machine"},
    ),
    "figures": ({"matplotlib", "numpy"}, {"smx.files", "smx.training.metrics", "smx.runtime.latency.report"}),
    "export": ({"torch", "numpy", "onnx", "onnx_ir", "onnxruntime"}, LAYERS | LEAVES),
}


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


def room(path: Path) -> str | None:
    relative = path.relative_to(ROOT).with_suffix("")
    if relative.parts[0] in ("runtime", "export"):
        return relative.parts[0]
    name = ".".join(relative.parts)
    if name.startswith("smx.figures"):
        return "figures"
    if name.startswith(tuple(RUN)):
        return "run"
    return "leaves" if name in LEAVES else "layers" if name in LAYERS else None


@pytest.mark.parametrize(
    "path",
    [path for folder in ("smx", "export", "runtime") for path in sorted((ROOT / folder).rglob("*.py")) if room(path)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_who_may_import_whom(path: Path) -> None:
    home = room(path)
    assert home is not None
    packages, modules = MAY_IMPORT[home]
    own = {
        "export": ("smx.export", "smx.runtime"),
        "runtime": ("smx.runtime",),
        "figures": ("smx.figures",),
        "run": tuple(f"{name}." for name in RUN),
    }.get(home, ())
    for name in imports(path):
        top = name.partition(".")[0]
        if top == "smx":
            assert name in modules or name == "smx.__version__" or name.startswith(own), f"{home} may not import {name}"
        else:
            assert top in STDLIB or top in packages, f"{home} may not import {name}"


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
