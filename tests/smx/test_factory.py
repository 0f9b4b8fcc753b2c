from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo  # which can't be loaded once the fixture has exchanged sys.modules
from torch import nn

from smx import data
from smx.errors import InputError, SmxError
from smx.factory import find, make_network, require_trainable
from smx.training.run import load_checkpoint, train
from tests.smx.runs import SMALL

NETWORKS = """
import os
import torch
import torch._dynamo  # which can't be loaded once the fixture has exchanged sys.modules
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

class Auxiliary(nn.Sequential):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)

def auxiliary(): return Auxiliary(*nothing())

def leaves(): raise SystemExit(0)
def leaves_with_lines(): raise SystemExit("bye\\nbye")
def generator(): raise GeneratorExit
class Leaves(nn.Sequential):
    def forward(self, x): raise SystemExit(0)
def leaves_forward(): return Leaves(*nothing())
def changed(change):
    class Changed(nn.Sequential):
        def forward(self, x): return change(super().forward(x))
    return Changed(*nothing())
def whole(): return changed(lambda y: y.long())
def complex_scores(): return changed(lambda y: y.to(torch.complex64))
def detached(): return changed(torch.Tensor.detach)
def one_row(): return changed(lambda y: y if len(y) == 2 else y[:1])
def frozen(): return nothing().requires_grad_(False)
def without_weights(): return nn.Sequential(nn.Flatten(), nn.ReLU(), nn.AdaptiveAvgPool1d(3))
def complex_weights():
    made = nothing()
    made.more = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    return made
class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(20, 4, sparse=True), nn.Linear(4, 3)
    def forward(self, x): return self.out(self.table((x.flatten(1) * 16).long()).mean(1).relu())
def sparse(): return Sparse()
class Later(nn.Sequential):
    # Fails, or leaves, in the so-manieth step of a training.
    left, way = 10**9, SystemExit
    def forward(self, x):
        Later.left -= self.training
        if Later.left < 0:
            raise Later.way("one\\ntwo")
        return super().forward(x)
def later(): return Later(nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3))
def other_dtype():
    torch.set_default_dtype(torch.float64)
    return nothing()
def other_device():
    torch.set_default_device("meta")
    return nothing()
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, write_module: Callable[[str, str], None]) -> Path:
    """A folder with a module and a package, which is the current one."""
    (tmp_path / "parts").mkdir()
    for name in ("networks", "parts/nets"):
        write_module(name, NETWORKS)
    return tmp_path


@pytest.mark.parametrize("factory", ["both", "shape_alone", "nothing", "anything", "Net"])
@pytest.mark.parametrize("module", ["networks", "parts.nets"])
def test_a_factory_gets_the_arguments_that_it_takes(module: str, factory: str) -> None:
    network = make_network(f"{module}:{factory}", (4, 5), 3)
    assert network(torch.zeros(7, 4, 5)).shape == (7, 3)
    assert all(part.training for part in network.modules())  # as the factory left it


def test_trying_a_network_draws_nothing(own: Path) -> None:
    """Also one with Dropout: what is drawn afterwards does not depend on it."""
    find("networks:nothing")  # importing it draws
    torch.manual_seed(0)
    nn.Linear(20, 3)
    expected = torch.rand(3)
    torch.manual_seed(0)
    make_network("networks:nothing", (4, 5), 3)
    assert torch.rand(3).equal(expected)


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
        ("networks:other", "input_shape and num_classes, or one of them, or nothing: missing .*'width'"),
        ("networks:positional", "or one of them, or nothing: missing .*'input_shape'"),
        ("networks:no_module", "networks:no_module must return an nn.Module, got str"),
        ("networks:fails", r"networks:fails failed \(KeyError: 'why'\)"),
        ("networks:narrow", r"must put out 3 scores an example.* got shape \(2, 2\)"),
        ("networks:tuples", "must put out 3 scores an example.* got tuple"),
        ("networks:auxiliary", r"must put out 3 scores an example.* got tuple in train\(\)"),
        ("networks:leaves", r"networks:leaves failed \(SystemExit: 0\)"),
        ("networks:leaves_with_lines", r"failed \(SystemExit: bye bye\)"),
        ("networks:generator", r"failed \(GeneratorExit: GeneratorExit\)"),
        ("networks:leaves_forward", r"can't take examples of shape \(4, 5\) \(SystemExit: 0\)"),
        ("networks:whole", r"must put out scores in floating numbers, got torch\.int64"),
        ("networks:complex_scores", r"must put out scores in floating numbers, got torch\.complex64"),
        ("networks:frozen", "must have parameters to train, all of floating numbers"),
        ("networks:without_weights", "must have parameters to train"),
        ("networks:complex_weights", "must have parameters to train, all of floating numbers"),
        ("networks:other_dtype", "sets PyTorch's default dtype or device, for all that runs after it; leave them"),
        ("networks:other_device", "sets PyTorch's default dtype or device"),
        ("networks:misfit", r"can't take examples of shape \(4, 5\) \(RuntimeError: mat1"),
    ],
)
def test_what_is_no_factory_is_refused_on_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        make_network(name, (4, 5), 3)
    assert "\n" not in str(refusal.value)
    assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("networks:detached", r"can't be trained \(RuntimeError: element 0 of tensors does not require grad"),
        ("networks:one_row", r"can't be trained \(ValueError: Expected input batch_size"),
        ("networks:sparse", r"can't be trained \(ValueError: it has sparse gradients, which Adam does not take\)"),
    ],
)
def test_what_can_not_be_trained_is_known_before(name: str, message: str) -> None:
    network = make_network(name, (4, 5), 3)
    with pytest.raises(InputError, match=message):
        require_trainable(name, network, (4, 5))
    trainable = make_network("networks:both", (4, 5), 3)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    require_trainable("networks:both", trainable, (4, 5))
    assert torch.rand(3).equal(expected)
    assert all(weight.grad is None for weight in trainable.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "os is the name of a module of Python's own; give yours another one"),
        ("code:Net", "code is the name of a module of Python's own; give yours another one"),
        ("smx.cli:main", "smx is an installed package; write a module of your own"),
        ("torch.hub:load", "torch is an installed package"),
        ("sklearn:clone", "sklearn is an installed package"),
        ("__main__:Net", "there is no module __main__"),
    ],
)
def test_nothing_but_a_users_own_is_imported(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(InputError, match=message):
        find(name)


@pytest.mark.parametrize("name", ["networks:both", "networks:late", "networks:missing", "absent:Net", "os:system"])
def test_the_current_folder_is_on_the_path_for_its_own_code_alone(name: str, own: Path) -> None:
    (own / "late_part.py").touch()
    with (own / "networks.py").open("a") as file:
        file.write("def late():\n    import late_part\n    return nothing()\n")
    sys.path[:] = before = [place for place in sys.path if place not in ("", str(own))]
    with nullcontext() if name in ("networks:both", "networks:late") else pytest.raises(InputError):
        make_network(name, (4, 5), 3)
    assert sys.path == before


@pytest.mark.parametrize("content", ["import absent_elsewhere", "def broken(:", "1 / 0", "raise SystemExit(0)"])
def test_a_module_that_cant_be_imported(content: str, write_module: Callable[[str, str], None]) -> None:
    write_module("broken", content)
    with pytest.raises(InputError, match=r"broken:Net: broken can't be imported \((\w+Error|SystemExit): "):
        find("broken:Net")


def test_the_current_folder_goes_before_the_path(own: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "networks.py").write_text("raise AssertionError")
    sys.path.insert(0, str(elsewhere))
    assert issubclass(find("networks:Net"), nn.Module)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", [SystemExit, KeyError, GeneratorExit])
def test_what_fails_in_the_middle_of_a_training_is_named(way: type[BaseException], own: Path) -> None:
    np.savez(own / "x.npz", x=np.random.default_rng(0).random((90, 4, 5), np.float32), y=np.arange(90) % 3)
    config = replace(SMALL, data=str(own / "x.npz"), model="networks:later", batch_size=10)
    dataset = data.load(config.data)
    later = find("networks:later").__globals__["Later"]
    later.way, later.left = way, 30
    with pytest.raises(SmxError, match=rf"^networks:later failed \({way.__name__}: .*one.*two.*\)$") as failure:
        train(config, dataset, own / "run")
    assert not isinstance(failure.value, InputError)
    later.left = 10**9
    train(config, dataset, own / "run", checkpoint=load_checkpoint(own / "run"))
