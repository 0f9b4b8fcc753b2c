from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from smx.errors import InputError
from smx.factory import find, make_network

NETWORKS = """
import os
from os import system
from torch import nn
from torch.nn import ReLU as Imported

def both(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], num_classes), nn.ReLU())

def shape_alone(*, input_shape, wide=False):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.ReLU())

def nothing():
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 3), nn.ReLU(), nn.Dropout())

def anything(**options):
    assert options == {"input_shape": (4, 5), "num_classes": 3}
    return nothing()

class Net(nn.Sequential):
    def __init__(self, num_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(20, num_classes), nn.ReLU())

class NoNet:
    pass

def other(width):
    return nothing()

def positional(input_shape, /, num_classes):
    return nothing()

def no_module(): return "a network"
def fails(): raise KeyError("why")
def narrow(): return nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
def tuples(): return nn.LSTM(5, 3)
def misfit(): return nn.Linear(7, 3)
instance = nn.Linear(20, 3)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module and a package, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "nets.py").write_text(NETWORKS)
    return tmp_path


@pytest.mark.parametrize("factory", ["both", "shape_alone", "nothing", "anything", "Net"])
@pytest.mark.parametrize("module", ["networks", "parts.nets"])
def test_a_factory_gets_the_arguments_that_it_takes(module: str, factory: str) -> None:
    network = make_network(f"{module}:{factory}", (4, 5), 3)
    assert network(torch.zeros(7, 4, 5)).shape == (7, 3)
    assert all(part.training for part in network.modules())  # as the factory left it


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("networks", "expected module:factory, such as my_network:Net, got 'networks'"),
        ("networks:a.b", "expected module:factory"),
        ("../networks:both", "expected module:factory"),
        ("absent:Net", r"there is no module absent; run smx in the folder that holds it, or add that to PYTHONPATH"),
        (
            "parts.absent:Net",
            r"parts\.absent can't be imported \(ModuleNotFoundError: No module named 'parts.absent'\)",
        ),
        ("networks:missing", "networks itself defines, got nothing of that name"),
        ("networks:Imported", "must be a function or an nn.Module class that networks itself defines, got <class"),
        ("networks:NoNet", "must be a function or an nn.Module class"),
        ("networks:instance", "must be a function or an nn.Module class"),
        ("networks:system", "must be a function or an nn.Module class .* got <built-in function system>"),
        (
            "networks:other",
            "input_shape and num_classes, or one of them, or nothing; its parameter width has no default",
        ),
        ("networks:positional", "its parameter input_shape has no default"),
        ("networks:no_module", "networks:no_module must return an nn.Module, got str"),
        ("networks:fails", r"networks:fails failed \(KeyError: 'why'\)"),
        ("networks:narrow", r"must put out 3 scores an example.* got shape \(2, 2\)"),
        ("networks:tuples", "must put out 3 scores an example.* got tuple"),
        ("networks:misfit", r"can't take examples of shape \(4, 5\) \(RuntimeError: mat1"),
    ],
)
def test_what_is_no_factory_is_refused_on_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        make_network(name, (4, 5), 3)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "smx.cli:main", "torch.hub:load", "sklearn:clone"])
def test_nothing_but_a_users_own_is_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(InputError, match="is an installed package; write a module of your own"):
        find(name)


@pytest.mark.parametrize("content", ["import absent_elsewhere", "def broken(:", "1 / 0", "raise SystemExit(0)"])
def test_a_module_that_cant_be_imported(content: str, own: Path) -> None:
    (own / "broken.py").write_text(content)
    with pytest.raises(InputError, match=r"broken:Net: broken can't be imported \((\w+Error|SystemExit): "):
        find("broken:Net")


def test_a_script_that_is_running_is_no_module() -> None:
    with pytest.raises(InputError, match="there is no module __main__"):
        find("__main__:Net")


def test_the_current_folder_goes_before_the_path(own: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "networks.py").write_text("raise AssertionError")
    sys.path.insert(0, str(elsewhere))
    assert issubclass(find("networks:Net"), nn.Module)  # type: ignore[arg-type]
