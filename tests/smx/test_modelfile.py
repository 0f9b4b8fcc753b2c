from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # which can't be loaded once the fixture has exchanged sys.modules

from smx import data
from smx.architecture import Architecture, architecture_for
from smx.errors import InputError
from smx.modelfile import FORMAT, SavedModel, load_model, save_model, split_state
from smx.training.run import train
from tests import reference
from tests.smx.runs import SMALL


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("evil-was-here",))


@pytest.fixture
def content(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "model.pt", weights_only=True)
    return loaded


def refuse(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        load_model(path, trust_code=True)
    assert "\n" not in str(refusal.value)


def test_the_content_is_plain_and_means_the_formula(content: dict[str, Any], run: Path) -> None:
    """What a file of release 0.1 holds; later releases read it."""
    fixed = {"format": "smx-model", "version": 1, "architecture": {"kind": "mlp", "sizes": [64, 24, 16, 10]}}
    data = {"name": "digits", "sample_shape": [8, 8], "maximum": 16.0, "class_names": list("0123456789")}
    fixed |= {"pool": ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu"], "data": data}
    assert {name: content[name] for name in fixed} == fixed
    assert content.keys() - fixed.keys() == {"smx_version", "training", "metrics", "choices", "weights"}
    raw = torch.randint(17, (5, 8, 8), dtype=torch.uint8)
    h = raw.reshape(5, 64).numpy() / 16
    for layer in ("layer1", "layer2"):
        z = h @ content["weights"][f"{layer}.linear.weight"].double().numpy().T
        z += content["weights"][f"{layer}.linear.bias"].numpy()
        h = reference.mixed(z, content["choices"][f"{layer}.activation"].numpy(), tuple(content["pool"]))
    expected = h @ content["weights"]["output.weight"].double().numpy().T + content["weights"]["output.bias"].numpy()
    network = load_model(run / "model.pt").build(raw=True, dtype=torch.float64)
    np.testing.assert_allclose(network(raw).detach(), expected, rtol=1e-12, atol=1e-12)


def test_files_that_are_no_model(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    refuse(path, r"model\.pt does not exist; expected a smx-model file written by smx train")
    path.touch()
    refuse(path, "is damaged or no file of tensors")
    refuse(tmp_path, "is a folder; give the file in it, such as .*model.pt")
    path.write_text("hello")
    refuse(path, "is damaged or no file of tensors")
    whole = (run / "model.pt").read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refuse(path, "is damaged or no file of tensors")
    torch.save({"format": FORMAT, "version": 1, "weights": Evil()}, path)
    refuse(path, "was refused: it holds Python objects that could run code")
    assert not Path("evil-was-here").exists()
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    refuse(path, "holds a state dict with weight, bias; expected a smx-model file")
    torch.save([1, 2], path)
    refuse(path, "holds a list; expected")
    torch.save({"format": FORMAT, "version": 99}, path)
    refuse(path, "has format version 99, this smx reads up to 1; upgrade")
    advice = "the state of a run in phase 2: finish it with smx train --resume"
    refuse(run / "checkpoint.pt", f"is a smx-checkpoint file, {advice}; expected a smx-model file")


def test_damaged_content(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    def changed(**changes: Any) -> Path:
        torch.save({**content, **changes}, path)
        return path

    weights = dict(content["weights"])
    weights["output.bias"] = weights["output.bias"].clone()
    weights["output.bias"][3] = torch.nan
    refuse(changed(weights=weights), r"output\.bias has 1 of 10 values that are not finite")
    refuse(changed(pool=["relu", "swoosh"]), "can't be built: unknown activation 'swoosh'")
    refuse(changed(pool=["relu"]), "can't be built: choice must index the pool's 1 activations")
    refuse(changed(choices={}), r"can't be built: .*Missing key.* \"layer1\.activation\.choice\"")
    floating = {name: choice.double() for name, choice in content["choices"].items()}
    refuse(changed(choices=floating), r"can't be built: choice must be int64 \(N,\)")
    refuse(changed(architecture={"kind": "mlp", "sizes": [64, 24, 10]}), "can't be built")
    refuse(changed(weights={}), "can't be built: 64-24-16-10 has 2130 parameters, and the file 0")
    others = {name.replace("output", "out"): weight for name, weight in content["weights"].items()}
    refuse(changed(weights=others), "can't be built: Error.* in loading state_dict")
    torch.save({key: value for key, value in content.items() if key != "data"}, path)
    refuse(path, "can't be built: Object missing required field data")


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(input_shape[0], {width}, 3)
        self.out = nn.Linear({width}, num_classes)

    def forward(self, x):
        return self.out({last}self.conv(x){end}.amax((2, 3)))
"""


def images_model(architecture: Architecture) -> SavedModel:
    """Return a model with random weights and choices, of images that were (4, 5, 3)."""
    choices, weights = split_state(architecture.mixed(("elu", "tanh")).state_dict())
    return SavedModel(
        architecture=architecture,
        pool=("elu", "tanh"),
        choices={name: torch.randint_like(choice, 2) for name, choice in choices.items()},
        weights=weights,
        data={"name": "x.npz", "sample_shape": (4, 5, 3), "maximum": 255.0, "class_names": ("a", "b")},
    )


@pytest.fixture
def own(write_module: Callable[[str, str], None]) -> Callable[[str], None]:
    """What writes the user's module `owned`."""
    write_module("owned", OWN.format(width=4, last="self.act(", end=")"))
    return partial(write_module, "owned")


@pytest.mark.parametrize("model", ["cnn", "owned:Net"])
def test_networks_of_images_are_built_again(model: str, own: Callable[[str], None], tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = images_model(architecture_for(model, (4, 5, 3), 2, hidden=()))
    save_model(tmp_path / "model.pt", saved)
    loaded = load_model(tmp_path / "model.pt", trust_code=True)
    assert loaded.architecture == saved.architecture
    assert all(torch.equal(loaded.choices[key], saved.choices[key]) for key in saved.choices)
    raw = torch.randint(0, 256, (6, 4, 5, 3), dtype=torch.uint8)
    x = raw.permute(0, 3, 1, 2) / 255
    assert torch.equal(loaded.build()(x), saved.build()(x))
    torch.testing.assert_close(loaded.build(raw=True)(raw), loaded.build()(x))
    exact = loaded.build(raw=True, dtype=torch.float64)(raw)
    torch.testing.assert_close(exact, loaded.build().double()(raw.permute(0, 3, 1, 2).double() / 255))


def test_a_users_network_that_changed_or_is_gone(own: Callable[[str], None], tmp_path: Path) -> None:
    saved = images_model(architecture_for("owned:Net", (4, 5, 3), 2, hidden=()))
    path = tmp_path / "model.pt"
    save_model(path, saved)
    own(OWN.format(width=5, last="self.act(", end=")"))
    refuse(path, r"model\.pt can't be built: owned:Net is no longer the network that was trained; .*size mismatch")
    own(OWN.format(width=4, last="self.act(1 * ", end=")").replace("self.out", "self.head"))
    refuse(path, "is no longer the network that was trained; bring that back .Error.* in loading state_dict for Net")
    own(OWN.format(width=4, last="(", end=").sigmoid()"))
    refuse(path, "is no longer the network that was trained; .*sigmoid\\.choice")
    own("")
    refuse(path, r"can't be built: owned:Net must be a function or an nn\.Module class that owned itself defines")
    (tmp_path / "owned.py").unlink()
    sys.modules.pop("owned")
    refuse(path, "can't be built: owned:Net: there is no module owned; run smx in the folder that holds it")


def test_masks_of_a_users_network_may_be_infinite(own: Callable[[str], None], tmp_path: Path) -> None:
    masked = OWN.replace("super().__init__()", "super().__init__(); self.register_buffer('mask', torch.zeros(2))")
    own("import torch\n" + masked.format(width=4, last="self.act(", end=")"))
    saved = images_model(architecture_for("owned:Net", (4, 5, 3), 2, hidden=()))
    path = tmp_path / "model.pt"
    for name, value, refused in (
        ("mask", -torch.inf, ""),
        ("mask", torch.nan, "mask"),
        ("out.bias", torch.inf, "out."),
    ):
        weights = {**saved.weights, name: torch.full((2,), value)}
        save_model(path, replace(saved, weights=weights))
        if refused:
            refuse(path, rf"{refused}.* has 2 of 2 values that are not finite")
        else:
            assert torch.equal(load_model(path, trust_code=True).weights["mask"], weights["mask"])
            assert load_model(path).weights.keys() == weights.keys()


def test_nothing_is_written_that_cannot_be_read(tmp_path: Path) -> None:
    wide = Architecture(kind="mlp", input_shape=(2**21,), num_classes=2, widths=(1,))
    deep = Architecture(kind="mlp", input_shape=(2,), num_classes=2, widths=(1,) * 1000)
    for architecture in (wide, deep):
        assert Architecture.from_dict(architecture.to_dict()) == architecture
    too_wide = Architecture(kind="mlp", input_shape=(2,), num_classes=2, widths=(2**21,))
    with pytest.raises(InputError, match=r"is not written, since it could not be read again: .* <= 1048576"):
        save_model(
            tmp_path / "model.pt",
            replace(images_model(architecture_for("cnn", (4, 5, 3), 2, hidden=())), architecture=too_wide),
        )
    assert not list(tmp_path.iterdir())


def test_looking_at_a_model_runs_no_code(own: Callable[[str], None], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_model(path, images_model(architecture_for("owned:Net", (4, 5, 3), 2, hidden=())))
    own("raise SystemExit('it was run')")
    saved = load_model(path)
    assert {name: len(choice) for name, choice in saved.choices.items()} == {"act": 4}
    assert str(saved.architecture) == "owned:Net 3x4x5-2"
    with pytest.raises(InputError, match=r"names code of yours, owned:Net; give --trust-code to run it"):
        saved.build()
    assert "owned" not in sys.modules
    refuse(path, "owned can't be imported .SystemExit: it was run")


def test_values_below_zero_are_no_pixels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(-100, 100, (90, 6))
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(90) % 3)
    config = replace(SMALL, data=str(tmp_path / "own.npz"))
    train(config, data.load(config.data), tmp_path / "run")
    with pytest.raises(InputError, match=r"own\.npz are no whole numbers from 0 to 255 \(some are below 0\), so the"):
        load_model(tmp_path / "run" / "model.pt").build(raw=True)
