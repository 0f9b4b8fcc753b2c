"""The rules of the house: who may import whom, what an import may load, what the package consists of."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import python, refused, smx

ROOT = Path(__file__).parent.parent
STDLIB = sys.stdlib_module_names


class Room(NamedTuple):
    """Files that may import the same.

    Attributes:
        holds: modules, with all that is below them; where several rooms hold a file, the longest name decides.
        packages: of others.
        modules: of smx, with all that is below them; the room's own are among them anyway.
    """

    holds: tuple[str, ...]
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


def below_smx(names: str) -> tuple[str, ...]:
    return tuple(f"smx.{name}" for name in names.split())


CORE = below_smx("__init__ __main__ __version__ ending errors files limits paper subprocesses")
METHOD = below_smx("activations calling functional layers parameters pricing models hooks hinges fused wrappers")
RUN = below_smx("architecture factory modelfile preprocessing program saving torchfile torchrunner training stepbench")
SHARED = below_smx("arrays example_input prices schema timing convert sorting data")
ROOMS = {
    "core": Room(CORE, modules=("smx",)),
    "schema": Room(("smx.schema",), ("msgspec",), CORE),
    "arrays": Room(("smx.arrays",), ("numpy",), CORE),
    "prices": Room(("smx.prices",), ("numpy",), (*CORE, "smx.schema")),
    "timing": Room(("smx.timing",), ("numpy",), CORE),
    "method": Room(METHOD, ("torch",), CORE),
    "kernels": Room(("smx.fused.triton",), ("torch", "triton"), (*CORE, "smx.fused")),
    "example_input": Room(("smx.example_input",), ("numpy", "torch"), (*CORE, "smx.calling")),
    "convert": Room(("smx.convert",), ("torch",), (*CORE, *METHOD, "smx.example_input", "smx.sorting")),
    "sorting": Room(("smx.sorting",), ("torch",), (*CORE, *METHOD, "smx.example_input")),
    "data": Room(("smx.data",), ("numpy", "sklearn", "torch", "torchvision"), (*CORE, "smx.arrays")),
    "run": Room(RUN, ("torch", "numpy", "msgspec"), (*CORE, *METHOD, *SHARED)),
    "figures": Room(("smx.figures",), ("matplotlib", "numpy"), (*CORE, "smx.training.metrics", "smx.timing.report")),
    "reporting": Room(
        ("smx.reporting",),
        ("numpy", "pandas", "scipy", "matplotlib", "jinja2", "markupsafe"),
        (*CORE, "smx.figures", "smx.study", "smx.timing.machine", "smx.training", "smx.modelfile", "smx.data"),
    ),
    "runtime": Room(
        ("smx.runtime",),
        ("numpy", "onnxruntime", "google", "PIL", "msgspec"),
        (*CORE, "smx.arrays", "smx.schema", "smx.timing"),
    ),
    "serving": Room(
        ("smx.runtime.serving",),
        ("numpy", "starlette", "uvicorn", "uvloop", "orjson", "prometheus_client", "grpc", "google"),
        (*CORE, "smx.arrays", "smx.runtime"),
    ),
    "deploy": Room(("smx.runtime.deploy",), ("numpy", "google", "tritonclient", "yaml"), (*CORE, "smx.runtime")),
    "export": Room(
        ("smx.export",),
        ("torch", "numpy", "onnx", "onnx_ir", "onnxruntime"),
        (*CORE, *METHOD, "smx.example_input", "smx.prices", "smx.sorting", "smx.runtime", "smx.timing"),
    ),
    "study": Room(("smx.study",), ("numpy", "pandas", "ray", "torch"), (*CORE, *METHOD, *SHARED, *RUN)),
    "workflows": Room(
        ("smx.workflows",),
        ("numpy", "torch", "pandas"),
        (*CORE, *METHOD, *SHARED, *RUN, "smx.study", "smx.figures", "smx.reporting", "smx.runtime", "smx.export"),
    ),
    "cli": Room(("smx.cli",), ("click", "rich", "numpy", "torch"), ("smx",)),
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


def within(module: str, holders: tuple[str, ...]) -> bool:
    return any(module == holder or module.startswith(f"{holder}.") for holder in holders)


def room_of(path: Path, root: Path = ROOT) -> str:
    """Return the room of a file: that which names most of its path."""
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    module = module if module.startswith("smx.") else f"smx.{module}"
    fits = [(len(held), name) for name, room in ROOMS.items() for held in room.holds if within(module, (held,))]
    assert fits, f"{module} stands in no room; name one in ROOMS of tests/test_house.py"
    return max(fits)[1]


def check_imports(path: Path, root: Path = ROOT) -> None:
    name = room_of(path, root)
    room = ROOMS[name]
    for module in imports(path):
        package = module.partition(".")[0]
        allowed = within(module, (*room.modules, *room.holds)) or package in STDLIB or package in room.packages
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
        ("runtime/planted.py", "import tritonclient.grpc", "may not import tritonclient.grpc"),
        ("runtime/serving/planted.py", "import yaml", "may not import yaml"),
        ("runtime/deploy/planted.py", "import onnx", "may not import onnx"),
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


def test_temporary_folders_are_those_of_smx_files() -> None:
    """What a killed process leaves of them is removed by the next, unlike what Python makes by itself."""
    own = [path for path in SOURCES if "scratch()" in path.read_text()]
    assert len(own) > 5
    assert not [path for path in SOURCES if "TemporaryDirectory" in path.read_text() or "mkdtemp" in path.read_text()]


def loaded_after(code: str) -> set[str]:
    result = python("-c", f"{code}\nimport sys; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "sklearn", "matplotlib", "pandas", "scipy", "jinja2"}


WORKFLOWS = ", ".join(f"smx.workflows.{path.stem}" for path in (ROOT / "smx" / "workflows").glob("[a-z]*.py"))


@pytest.mark.parametrize("code", ["import smx", "import smx.cli", "import smx; smx.runtime", f"import {WORKFLOWS}"])
def test_imports_load_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_a_run_loads_no_more_than_pytorch() -> None:
    """scikit-learn, which splits data, takes as long to load as PyTorch; what brings no data does not wait for it."""
    assert loaded_after("import smx.training.run, smx.data") & HEAVY == {"torch"}


def test_public_names_are_there() -> None:
    import smx as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)
    assert "smx.sorting" in loaded_after("import smx; smx.sorting.refusals")  # without an import of its own
    with pytest.raises(AttributeError, match="module 'smx' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


TRAIN_EXTRA = ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "sklearn", "matplotlib")


def base_install(*arguments: str | Path, missing: tuple[str, ...] = TRAIN_EXTRA) -> subprocess.CompletedProcess[str]:
    """Run the command as if packages were not installed: importing them raises ModuleNotFoundError."""
    code = f"import sys; sys.modules |= dict.fromkeys({missing}); from smx.cli import main; main(sys.argv[1:])"
    return python("-c", code, *arguments)


def test_the_base_install_predicts_inspects_and_helps(exported: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 64), np.uint8))
    commands = ("predict", exported, tmp_path / "x.npy"), ("inspect", exported), ("train", "--help"), ("--help",)
    for arguments in commands:
        result = base_install(*arguments)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["train", "bench-train", "export {run}/model.pt m.onnx", "inspect {run}/model.pt"])
def test_a_command_that_needs_more_says_so(command: str, run: Path) -> None:
    result = base_install(*command.format(run=run).split())
    needed = f"smx {command.split()[0]} needs"
    refused(result, 1, needed, "not installed; run: pip install 'smartmixed[train]'")


@pytest.mark.parametrize(
    "missing", ["starlette", "uvicorn", "uvloop", "httptools", "orjson", "grpc", "prometheus_client"]
)
def test_serving_needs_its_extra(missing: str, exported: Path) -> None:
    result = base_install("serve", exported, "--port", "0", missing=(missing,))
    refused(result, 1, f"smx serve needs {missing}", "run: pip install 'smartmixed[serve]'")


def test_the_server_loads_nothing_heavy_and_no_torch_is_needed() -> None:
    modules = [path.stem for path in (ROOT / "runtime" / "serving").glob("[a-z]*.py")]
    code = "\n".join(f"import smx.runtime.serving.{name}" for name in modules)
    assert not loaded_after(code) & (HEAVY | {"tritonclient", "yaml"})


def test_events_need_tensorboard(tmp_path: Path) -> None:
    result = base_install("train", "--tensorboard", "--out", tmp_path / "run", missing=("tensorboard",))
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
