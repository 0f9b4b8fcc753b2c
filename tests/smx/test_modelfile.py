from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from smx.errors import InputError
from smx.modelfile import FORMAT, load_model


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("evil-was-here",))


@pytest.fixture
def content(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "model.pt", weights_only=True)
    return loaded


def refuse(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_the_content_is_plain(content: dict[str, Any]) -> None:
    assert content["format"] == FORMAT
    assert content["architecture"] == {"kind": "mlp", "sizes": [64, 24, 16, 10]}
    assert content["pool"] == ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu"]
    assert {name: tuple(choice.shape) for name, choice in content["choices"].items()} == {
        "layer1.activation": (24,),
        "layer2.activation": (16,),
    }
    assert not any("activation" in name for name in content["weights"])
    assert content["data"] == {
        "name": "digits",
        "sample_shape": [8, 8],
        "maximum": 16.0,
        "class_names": list("0123456789"),
    }


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


def test_a_checkpoint_is_refused_with_advice(run: Path) -> None:
    refuse(
        run / "checkpoint.pt",
        "is a smx-checkpoint file; .* the state of a run in phase 2: finish it with smx train --resume",
    )


def test_damaged_content(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"

    def changed(**changes: Any) -> Path:
        torch.save({**content, **changes}, path)
        return path

    weights = dict(content["weights"])
    weights["output.bias"] = weights["output.bias"].clone()
    weights["output.bias"][3] = torch.nan
    refuse(changed(weights=weights), r"output\.bias has 1 of 10 values that are not finite")
    refuse(changed(pool=["relu", "swish"]), "can't be built: unknown activation 'swish'")
    refuse(changed(pool=["relu"]), "can't be built: choice must index the pool's 1 activations")
    refuse(changed(choices={}), r"lacks 'layer1\.activation'")
    refuse(changed(architecture={"kind": "mlp", "sizes": [64, 24, 10]}), "can't be built")
    refuse(changed(weights={}), "can't be built: Error.* in loading state_dict")
    torch.save({key: value for key, value in content.items() if key != "data"}, path)
    refuse(path, "lacks 'data'; it was not written by smx train")
