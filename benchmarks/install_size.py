"""How large the ways to serve are: each is installed into a virtual environment of its own, without torch.

    python benchmarks/install_size.py --json install-size.json

Downloads packages. Counted are the files under site-packages, with their compiled forms and without pip and setuptools.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from smx.cli import options
from smx.cli.output import console, table, write_json

ROOT = Path(__file__).parent.parent
WAYS = {
    "smartmixed": "{wheel}",
    "smartmixed[serve]": "{wheel}[serve]",
    "kserve": "kserve==0.21.0",
    "mlserver": "mlserver==1.7.1",
    "ray[serve]": "ray[serve]",
}
"""Of the other servers without ONNX Runtime, which their users add."""
NOT_COUNTED = ("pip", "pkg_resources", "setuptools", "_distutils_hack", "distutils-precedence", "__pycache__")


def counted(python: Path) -> dict[str, Any]:
    """Return the bytes and packages of an environment, and the version of each package."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    parts = [path for path in site.iterdir() if not path.name.startswith(NOT_COUNTED)]
    files = [path for part in parts for path in (part.rglob("*") if part.is_dir() else [part])]
    found = sorted(path.name.removesuffix(".dist-info").rsplit("-", 1) for path in parts if path.suffix == ".dist-info")
    size = sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())
    return {"megabytes": round(size / 1e6), "packages": len(found), "versions": dict(found)}


def installed(spec: str, folder: Path) -> Path:
    """Install into a new environment; return its Python. The versions are those of constraints.txt, for our package."""
    python = folder / "bin" / "python"
    if folder.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")] if ".whl" in spec else []
    if spec:
        # Isolated, because pip takes what PYTHONPATH has for installed.
        subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", *constraints, spec], check=True)
    return python


@click.command()
@click.option(
    "--into", type=click.Path(path_type=Path), help="Keep the environments here; what is here is only counted."
)
@click.option("--smallest", is_flag=True, help="Count an empty environment, to see that everything runs.")
@options.json
def main(into: Path | None, smallest: bool, json_path: str | None) -> None:
    """Install and count."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        temporary, wheel = Path(folder), ""
        if not smallest:
            command = [sys.executable, "-I", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
            subprocess.run([*command, str(temporary), str(ROOT)], check=True)
            (wheel,) = map(str, temporary.glob("*.whl"))
        for name, spec in ({"nothing": ""} if smallest else WAYS).items():
            place = (into or temporary) / re.sub(r"\W+", "-", name).strip("-")
            results[name] = counted(installed(spec.format(wheel=wheel), place))
    rows = ((name, str(row["megabytes"]), str(row["packages"])) for name, row in results.items())
    console(json_path).print(table(("", ">MB", ">packages"), rows))
    python = sys.version.split()[0]
    write_json(json_path, {"python": python, "platform": sys.platform, "results": results})


if __name__ == "__main__":
    main()
