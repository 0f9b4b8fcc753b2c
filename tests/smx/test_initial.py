"""`init`: a run begins with the weights of a file, and with `start` = current also with its choices."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import smx
from smx.architecture import architecture_for
from smx.data import Dataset
from smx.errors import InputError
from smx.modelfile import load_model
from smx.models import cnn
from smx.training.config import TrainConfig, from_values
from smx.training.initial import load_initial
from smx.training.parallel import ALONE
from smx.training.run import _Run, load_checkpoint, train
from tests.smx.runs import SMALL, stop_run, stopped_and_resumed
from tests.smx.test_training import same_tensors

CNN = replace(SMALL, model="cnn", phase1_epochs=2)


def begun(config: TrainConfig) -> nn.Module:
    """Return the network that a run on the digits begins with."""
    architecture = architecture_for(config.model, (8, 8), 10, hidden=config.hidden)
    network = _Run(config, architecture, ALONE).network(min(config.phases))
    load_initial(network, architecture, config)
    return network.eval()


@pytest.fixture(scope="module")
def files(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of each kind: a baseline, a network after phase 2, and one in phase 1 that `smx.save` wrote."""
    out = tmp_path_factory.mktemp("init")
    train(replace(SMALL, activation="elu", phase1_epochs=1, phase2_epochs=1), digits, out / "baseline")
    train(SMALL, digits, out / "chosen")
    torch.manual_seed(0)
    phase1 = smx.select(cnn((1, 8, 8), 10, (16, 32, 64)), ("relu", "elu"), example_input=torch.rand(4, 1, 8, 8))
    phase1(torch.rand(20, 1, 8, 8))
    smx.save(phase1, out / "phase1.pt", example_input=torch.rand(4, 1, 8, 8))
    return {"baseline": out / "baseline/model.pt", "chosen": out / "chosen/model.pt", "phase1": out / "phase1.pt"}


@pytest.mark.parametrize("name", ["baseline", "chosen", "phase1"])
def test_a_run_begins_with_the_network_of_the_file(name: str, files: dict[str, Path]) -> None:
    base = CNN if name == "phase1" else SMALL
    config = replace(base, init=str(files[name]), start="current", selection="matched")
    expected, network = smx.load(files[name]), begun(config)
    x = torch.rand(30, 1, 8, 8) if name == "phase1" else torch.rand(30, 64)
    torch.testing.assert_close(network(x), expected(x))
    layers = {path: part for path, part in network.named_modules() if isinstance(part, smx.Selective)}
    assert layers
    for path, layer in layers.items():
        other: Any = expected.get_submodule(path)
        names, theirs = ([activation.name for activation in part.pool] for part in (layer, other))
        assert [names[k] for k in layer.choice] == [theirs[k] for k in other.choice]
    fresh = begun(replace(config, start="random"))  # which takes the weights alone
    state = expected.state_dict()
    same = [key for key in fresh.state_dict() if key.endswith("weight")]
    assert same
    assert all(torch.equal(fresh.state_dict()[key], state[key]) for key in same)
    assert all(layer.present is None for layer in fresh.modules() if isinstance(layer, smx.Selective))


def test_weights_of_a_file_and_one_activation_for_all(files: dict[str, Path]) -> None:
    config = replace(SMALL, init=str(files["baseline"]), start="tanh", selection="matched")
    network, x = begun(config), torch.rand(30, 64)
    first, second, output = (
        part for part in smx.load(files["baseline"]).modules() if isinstance(part, torch.nn.Linear)
    )
    torch.testing.assert_close(network(x), output(torch.tanh(second(torch.tanh(first(x))))))


def test_a_baseline_goes_on_from_a_file(files: dict[str, Path]) -> None:
    network, expected = (
        begun(replace(SMALL, activation="elu", init=str(files["baseline"]))),
        smx.load(files["baseline"]),
    )
    x = torch.rand(30, 64)
    assert torch.equal(network(x), expected(x))


def test_a_resumed_run_needs_the_file_no_more(files: dict[str, Path], digits: Dataset, tmp_path: Path) -> None:
    copied = tmp_path / "init.pt"
    copied.write_bytes(files["chosen"].read_bytes())
    config = replace(SMALL, init=str(copied), start="current", selection="matched", keep=0.8)
    whole = train(config, digits, tmp_path / "whole")
    stop_run(config, digits, tmp_path / "stopped", 2)
    copied.unlink()
    resumed = train(config, digits, tmp_path / "stopped", checkpoint=load_checkpoint(tmp_path / "stopped"))
    assert same_tensors(resumed.model.weights, whole.model.weights)
    assert same_tensors(resumed.model.choices, whole.model.choices)
    saved = load_model(tmp_path / "stopped" / "model.pt")
    assert saved.training["init"] == str(copied)
    assert saved.training["init_sha256"] == hashlib.sha256(files["chosen"].read_bytes()).hexdigest()
    assert 0 <= saved.metrics["phase1"]["moved"] <= 1
    assert whole.rows[0].validation_accuracy > train(SMALL, digits, tmp_path / "fresh").rows[0].validation_accuracy


def test_a_network_of_the_users_begins_as_its_factory_makes_it(
    write_module: Any, digits: Dataset, tmp_path: Path
) -> None:
    write_module(
        "pretrained",
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    torch.manual_seed(7)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10))\n",
    )
    config = replace(SMALL, model="pretrained:net", start="current", selection="matched", phase1_epochs=1)
    network = _Run(config, architecture_for("pretrained:net", (8, 8), 10, hidden=()), ALONE).network(1).eval()
    import pretrained  # type: ignore[import-not-found]

    x = torch.rand(9, 1, 8, 8)
    assert torch.equal(network(x), pretrained.net()(x))
    whole = train(config, digits, tmp_path / "whole")
    resumed = stopped_and_resumed(config, digits, tmp_path / "resumed", 1)
    assert same_tensors(resumed.model.weights, whole.model.weights)


def test_what_no_run_can_begin_with(files: dict[str, Path], digits: Dataset, tmp_path: Path) -> None:
    train(replace(CNN, selection="matched", phase1_epochs=1, phase2_epochs=1), digits, tmp_path / "matched")
    baseline = str(files["baseline"])
    cases = [
        (replace(SMALL, init=str(tmp_path / "absent.pt")), "absent.pt"),
        (
            replace(SMALL, hidden=(20, 11), init=baseline),
            r"of another network, 64-20-12-10: this one, 64-20-11-10, has",
        ),
        (replace(SMALL, hidden=(20,), init=baseline), "has nothing as layer2.linear.bias, the file"),
        (replace(CNN, init=baseline), "train with the file's --model and --hidden, or take another file"),
        (replace(SMALL, init=str(files["phase1"])), "is of another network, Sequential"),
        (
            replace(SMALL, init=baseline, start="current", pool=("relu", "tanh")),
            "has neurons of elu, which is not in the pool relu,tanh; add it",
        ),
        (replace(SMALL, init=str(files["chosen"]), start="current", per="layer"), "choose per = 1"),
        (replace(SMALL, init=baseline, start="current", keep=0.1), "keep must be from"),
        (
            replace(CNN, init=str(tmp_path / "matched/model.pt")),
            "layer1.activation have scales and shifts of their own",
        ),
    ]
    for config, message in cases:
        with pytest.raises(InputError, match=message):
            train(config, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "current"}, "start must be random without init = FILE or a model = module:factory of yours"),
        ({"start": "current", "init": "m.pt", "protocol": "author"}, "protocol must be standard with start = current"),
        ({"init": "m.pt", "rewind": True}, "init must be none where phase 2 begins with other weights, got 'm.pt'"),
        ({"init": "m.pt", "protocol": "author"}, "init must be none"),
        ({"start": "silu"}, "start must be one of .*, elu, selu, got 'silu'"),
        ({"start": "relu", "protocol": "author"}, "protocol must be standard with start = relu"),
        ({"keep": 1.0}, "keep must be between 0 and 1, got 1.0"),
        (
            {"start": "now"},
            "start must be one of random, current, relu, sigmoid, tanh, leaky_relu, elu, selu, got 'now'",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_values(settings)


def test_the_rule_of_choosing_follows_the_start() -> None:
    assert from_values({"start": "current", "init": "m.pt"}).selection == "matched"
    assert from_values({"start": "current", "init": "m.pt", "selection": "paper"}).selection == "paper"
    assert from_values({"start": "relu"}).selection == "matched"
    assert from_values({"start": "random"}).selection == from_values({}).selection == "paper"
