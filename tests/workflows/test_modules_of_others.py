"""Wrapped, scripted, quantized, pruned and half modules, and any signature, in every call that takes a module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import smx
from smx.errors import SmxError
from smx.export import export_onnx
from smx.layers import layers_of

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning"),
]


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def committed() -> nn.Sequential:
    torch.manual_seed(0)
    net = smx.select(plain(), example_input=X)
    nn.init.normal_(net.get_submodule("1").logits)  # type: ignore[arg-type]
    result = smx.commit(net).eval()
    assert isinstance(result, nn.Sequential)
    return result


def calls(make: Callable[[nn.Sequential], nn.Module], path: Path) -> Iterator[Callable[[], Any]]:
    """Yield every call, on what `make` returns for a network of its kind."""
    yield lambda: smx.select(make(plain()), example_input=X)
    yield lambda: smx.plan(make(plain()), example_input=X)
    yield lambda: smx.commit(make(smx.select(plain(), example_input=X)))  # type: ignore[arg-type]
    yield lambda: smx.sort(make(committed()), example_input=X)
    yield lambda: export_onnx(make(committed()), path / "m.onnx", example_input=X)
    yield lambda: smx.save(make(committed()), path / "m.pt", example_input=X)


def scripted(net: nn.Sequential) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(plain(), X)  # type: ignore[no-any-return, no-untyped-call]


def quantized(net: nn.Sequential) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})  # type: ignore[no-any-return, no-untyped-call]


def pruned(net: nn.Sequential) -> nn.Module:
    prune.l1_unstructured(net[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    net(X)
    return net


def weight_normed(net: nn.Sequential) -> nn.Module:
    nn.utils.weight_norm(net[0])
    net(X)
    return net


def spectral_normed(net: nn.Sequential) -> nn.Module:
    nn.utils.spectral_norm(net[0])
    net.train()(X)
    return net


REFUSED: dict[Callable[[nn.Sequential], nn.Module], str] = {
    scripted: r"it is a ScriptModule, whose forward can't be changed; give the module it was made from",
    quantized: r"is quantized, so that nothing is left to train; give the module before quantization",
    pruned: r"0 can't be copied; call torch\.nn\.utils\.prune\.remove first",
    weight_normed: r"0 can't be copied; call torch\.nn\.utils\.remove_weight_norm, or use .* first",
    spectral_normed: r"0 can't be copied; call torch\.nn\.utils\.remove_spectral_norm, or use .* first",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_no_call_can_use_is_one_line(make: Callable[[nn.Sequential], nn.Module], tmp_path: Path) -> None:
    tried = 0
    for call in calls(make, tmp_path):
        with pytest.raises(ValueError, match=REFUSED[make]) as caught:
            call()
        assert "\n" not in str(caught.value)
        tried += 1
    assert tried == 6
    assert not [*tmp_path.iterdir()]


def test_distributed_data_parallel_is_left_away(tmp_path: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        around = nn.parallel.DistributedDataParallel
        assert [*layers_of(smx.select(around(plain()), example_input=X))] == ["1"]
        expected = committed()(X)
        assert isinstance(smx.commit(around(smx.select(plain(), example_input=X))), nn.Sequential)
        torch.testing.assert_close(smx.sort(around(committed()), example_input=X)(X), expected)
        export_onnx(around(committed()), tmp_path / "m.onnx", example_input=X)
    finally:
        distributed.destroy_process_group()
    torch.testing.assert_close(torch.from_numpy(smx.runtime.Session(tmp_path / "m.onnx").run(X.numpy())), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_lower_precision(dtype: torch.dtype) -> None:
    x, net = X.to(dtype), plain().to(dtype).eval()
    assert torch.equal(smx.select(net, example_input=x, start="current").eval()(x), net(x))
    chosen = smx.select(net, example_input=x).train()
    chosen(x).float().square().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in chosen.parameters())
    assert smx.commit(chosen)(x).dtype == dtype
    mixed = committed().to(dtype)
    torch.testing.assert_close(smx.sort(mixed, example_input=x)(x), mixed(x))


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, *terms: Tensor) -> Tensor:
        result: Tensor = self.outer(torch.relu(self.inner(terms[0] + terms[1])))
        return result


class Options(Sums):
    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: float = 1.0, **more: Any) -> Tensor:  # type: ignore[override]
        h = self.inner(x) if y is None else self.inner(x + y)
        result: Tensor = self.outer(torch.relu(h) * scale)
        return result


@pytest.mark.parametrize("make", [Sums, Options])
def test_any_signature(make: Callable[[], nn.Module]) -> None:
    net = smx.commit(smx.select(make(), example_input=(X, X + 1))).eval()
    assert len(layers_of(net)) == 1
    torch.testing.assert_close(smx.sort(net, example_input=(X, X + 1))(X, X + 1), net(X, X + 1))


class ReadsShapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("3 features")
        result: Tensor = self.outer(F.relu(self.inner(x)).reshape(*x.shape[:-1], 8))[: len(x)]
        return result


def test_shapes_are_read_without_an_example() -> None:
    (layer,) = layers_of(smx.select(ReadsShapes())).values()
    assert (layer.choice if isinstance(layer, smx.Mixed) else layer.num_features, layer.dim) == (8, -1)


def test_an_axis_that_is_given() -> None:
    tokens = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    (layer,) = layers_of(smx.select(tokens, example_input=torch.randn(2, 5, 3), dim={"1": 1})).values()
    assert isinstance(layer, smx.Selective)
    assert (layer.num_features, layer.dim) == (5, 1)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_in_float16(mode: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 1, 6, 6)
    net = smx.commit(smx.select(net, example_input=x)).eval()  # type: ignore[assignment]
    export_onnx(net, tmp_path / "m.onnx", example_input=x, precision="float16")
    found = torch.from_numpy(smx.runtime.Session(tmp_path / "m.onnx").run(x.numpy())).float()
    torch.testing.assert_close(found, net(x).detach(), atol=0.02, rtol=0.02)


class Later(nn.Sequential):
    """A network that fails after so many calls."""

    calls = 10**9

    def forward(self, x: Tensor) -> Tensor:
        Later.calls -= 1
        if Later.calls < 0:
            raise KeyError("k")
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y


def test_a_forward_that_fails_late_is_named(tmp_path: Path) -> None:
    net = Later(nn.Linear(4, 3), smx.Mixed([0, 1, 2]), nn.Linear(3, 2)).eval()
    x = np.ones((3, 4), np.float32)
    export_onnx(net, tmp_path / "m.onnx", example_input=torch.from_numpy(x))
    given = {"example_input": torch.from_numpy(x), "data": x, "batch_sizes": [1]}
    assert smx.verify(net, tmp_path / "m.onnx", **given).passed  # type: ignore[arg-type]
    Later.calls = 4
    with pytest.raises(SmxError, match=r"m\.onnx is compared with fails in PyTorch \(KeyError: 'k'\)"):
        smx.verify(net, tmp_path / "m.onnx", **given)  # type: ignore[arg-type]
    Later.calls = 10**9
