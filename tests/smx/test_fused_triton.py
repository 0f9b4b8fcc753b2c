"""The GPU's kernels against formulas in NumPy and against PyTorch.

Where there is a GPU they run on it; everywhere they run in Triton's interpreter. That must be chosen before Triton is
imported, so `test_in_the_interpreter` runs this file again, in a process of its own.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from smx import activations, functional, layers
from smx.fused import operators

triton = pytest.importorskip("triton")
kernels = importlib.import_module("smx.fused.triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
needs_kernels = pytest.mark.skipif(not (GPU or INTERPRETED), reason="test_in_the_interpreter runs this one")
needs_gpu = pytest.mark.skipif(not GPU, reason="needs a CUDA device")

SELU = (1.0507009873554805, 1.0507009873554805 * 1.6732632423543772)
PAPER = {
    "relu": (1.0, 0.0, 0.0, 0.0, 0.0),
    "sigmoid": (0.0, 0.0, 0.0, 1.0, 0.0),
    "tanh": (0.0, 0.0, 0.0, 0.0, 1.0),
    "leaky_relu": (1.0, 0.01, 0.0, 0.0, 0.0),
    "elu": (1.0, 0.0, 1.0, 0.0, 0.0),
    "selu": (SELU[0], 0.0, SELU[1], 0.0, 0.0),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
Array = NDArray[np.float64]


@needs_kernels
def test_the_operators_on_top_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase 1 with its logits, and a fixed choice, in dense, channels-last and sliced memory."""
    monkeypatch.setattr(operators, "backend_for", lambda z: kernels)
    random = torch.Generator().manual_seed(0)
    pool = activations.resolve_pool(PAPER)
    whole = torch.randn(3, 12, 4, 5, generator=random).to(DEVICE)
    logits, noise = torch.randn(2, 6, 6, generator=random).to(DEVICE)
    affine = torch.randn(2, 6, 6, generator=random).to(DEVICE)
    in_order, reversed_ = (layers.Mixed(choice, pool, device=DEVICE) for choice in (range(6), range(5, -1, -1)))

    def plain(layer: layers.Mixed) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda z, x: functional.grouped_plain(z, functional.groups(layer.choice), pool)

    def selective(function: Callable[..., Tensor], *matching: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda z, x: function(z, x, noise, 0.3, pool, 1, *matching)

    for z in (
        whole[:, :6].contiguous(),
        whole[:, :6],
        whole[:, :6].contiguous(memory_format=torch.channels_last),
        whole.contiguous(memory_format=torch.channels_last)[:, :6],
    ):
        for functions in (
            (selective(functional.selective), selective(functional.selective_plain)),
            (selective(functional.selective, affine), selective(functional.selective_plain, affine)),
            (lambda z, x: reversed_(z), plain(reversed_)),
            (lambda z, x: in_order(z), plain(in_order)),
        ):
            found = []
            for run in functions:
                leaves = z.detach().requires_grad_(), logits.detach().requires_grad_()
                h = run(*leaves)
                found.append([h.detach(), *torch.autograd.grad(h.square().sum(), leaves, materialize_grads=True)])
            torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)


@pytest.mark.long
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


def formulas(g: Array, z: Array, c: Array) -> tuple[Array, Array, Array]:
    """Return h, g dh/dz and the sums; g and z (M, N, L), c and the sums (5, N)."""
    negative = np.minimum(z, 0)
    basis = np.stack([np.maximum(z, 0), negative, np.expm1(negative), expit(z), np.tanh(z)])
    c_JMNL = c[:, None, :, None]
    slope = np.where(z > 0, c_JMNL[0], c_JMNL[1] + c_JMNL[2] * np.exp(negative))
    slope = slope + c_JMNL[3] * expit(z) * expit(-z) + c_JMNL[4] / np.cosh(np.clip(z, -300, 300)) ** 2
    return (c_JMNL * basis).sum(0), g * slope, (g * basis).sum((1, 3))


def tensors(shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return g and z of a shape, and coefficients: of the paper for some neurons, any for others."""
    random = np.random.default_rng(seed)
    neurons = shape[1]
    rows = np.array(list(PAPER.values()))[random.integers(0, len(PAPER), neurons)]
    rows = np.where(random.random((neurons, 1)) < 0.5, rows, random.normal(0, 1, rows.shape))
    g, z = torch.tensor(random.normal(0, 1, shape)), torch.tensor(random.normal(0, 2, shape))
    arithmetic = torch.promote_types(dtype, torch.float32)
    return g.to(DEVICE, dtype), z.to(DEVICE, dtype), torch.tensor(rows.T.copy()).to(DEVICE, arithmetic)


def float64(tensor: Tensor) -> Array:
    return np.asarray(tensor.double().cpu().numpy())


def assert_near(ours: Tensor, theirs: Array) -> None:
    """Assert equality up to the rounding of the arithmetic, relative to the largest, and then of the result's type."""
    arithmetic = 1e-12 if ours.dtype == torch.float64 else 4e-6
    rounding = torch.finfo(ours.dtype).eps if ours.element_size() == 2 else 0.0
    tolerance = rounding * np.abs(theirs) + arithmetic * np.abs(theirs).max(initial=0)
    assert (np.abs(float64(ours) - theirs) <= tolerance + 1e-7 * (rounding > 0)).all()  # float16 has subnormals


shapes = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(1, 150), st.just(1)),
    st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(2, 70)),
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1000, 2100)),
)


@needs_kernels
@settings(deadline=None, max_examples=30, phases=set(Phase) - {Phase.shrink})  # it would take the interpreter minutes
@given(
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    programs=st.sampled_from([1, 5, kernels.PROGRAMS]),
    seed=st.integers(0, 2**31),
)
@example(shape=(0, 3, 1), dtype=torch.float32, programs=5, seed=0)
@example(shape=(3, 2, 0), dtype=torch.float32, programs=5, seed=0)
def test_the_kernels_are_the_formulas(
    shape: tuple[int, int, int], dtype: torch.dtype, programs: int, seed: int
) -> None:
    """With few programs each adds up many tiles, with many each has one."""
    g, z, coefficients = tensors(shape, dtype, seed)
    with patch.object(kernels, "PROGRAMS", programs):
        h = kernels.forward(z, coefficients, 1)
        g_z, sums = kernels.backward(g, z, coefficients, 1)
    assert (h.shape, h.dtype, g_z.shape, g_z.dtype) == (z.shape, dtype, z.shape, dtype)
    assert (sums.shape, sums.dtype) == (coefficients.shape, coefficients.dtype)
    for ours, theirs in zip((h, g_z, sums), formulas(*map(float64, (g, z, coefficients))), strict=True):
        assert_near(ours, theirs)


@needs_kernels
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in the series, where it is not taken
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAPER)
def test_every_activation_at_kinks_and_extremes(name: str, dtype: torch.dtype) -> None:
    """Value by value, not relative to the largest: tiny results have their digits, too. NaN stays NaN."""
    tiny = [0.0, 1e-40, 1e-30, 1e-8, 1e-4, 0.2499, 0.25, 0.2501]
    positive = torch.tensor([*tiny, *np.linspace(0.3, 20, 50), 80.0, 1e4, 1e30], dtype=dtype)
    z = torch.cat([positive, -positive, torch.tensor([torch.nan])]).reshape(-1, 1, 1)
    coefficients = torch.tensor(PAPER[name], dtype=dtype, device=DEVICE)[:, None]
    exact = z.double().requires_grad_()
    expected = activations.get(name).function(exact)
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    h, g = kernels.forward(z.to(DEVICE), coefficients, 1), torch.ones_like(z, device=DEVICE)
    g_z, _ = kernels.backward(g, z.to(DEVICE), coefficients, 1)
    g_z_from_h = kernels.backward_fixed(g, h, coefficients, 1, True)
    rtol, atol = (4e-6, 1e-6) if dtype == torch.float32 else (1e-13, 1e-14)
    torch.testing.assert_close(h.cpu().double(), expected.detach(), rtol=rtol, atol=1e-32, equal_nan=True)
    real = ~z.isnan()  # PyTorch's slope of ReLU at NaN is 0
    for ours in (g_z, g_z_from_h):
        torch.testing.assert_close(ours.cpu().double()[real], slope[real], rtol=rtol, atol=atol)


@needs_kernels
def test_any_strides_are_taken() -> None:
    """The gradient of a sum, for one, is a single number, expanded."""
    g, z, coefficients = tensors((3, 4, 6), torch.float64)
    wide, one = z.mT.contiguous().mT, g[:1, :1, :1].expand(z.shape)
    tall = coefficients.t().contiguous().t()
    h = kernels.forward(z, coefficients, 1)
    assert torch.equal(kernels.forward(wide, tall, 1), h)
    strided, plain = kernels.backward(one, wide, tall, 1), kernels.backward(one.contiguous(), z, coefficients, 1)
    torch.testing.assert_close(strided, plain)  # added up in another order
    strided = kernels.backward_fixed(one, h, tall, 1, True)
    assert torch.equal(strided, kernels.backward_fixed(one.contiguous(), h, coefficients, 1, True))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """Compile what would be launched, for a GPU that need not be there, and return it."""
    found: list[Any] = []
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    questions = {"get_current_target": target, "get_current_device": 0, "get_current_stream": 0}
    driver = SimpleNamespace(**{name: lambda *_, answer=answer: answer for name, answer in questions.items()})
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    launched = kernels._forward, kernels._backward, kernels._backward_from_result
    for kernel in launched:

        def compile_only(*arguments: Any, run: Any = kernel.run, **options: Any) -> None:
            found.append(run(*arguments, **{**options, "warmup": True}))

        monkeypatch.setattr(kernel, "run", compile_only)
    yield found
    for kernel in launched:
        kernel.device_caches.clear()


@pytest.mark.skipif(GPU or INTERPRETED, reason="where there is no GPU, at least the compiler sees the kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(128, 512, 1), (2, 3, 784)])
def test_the_kernels_compile(shape: tuple[int, int, int], dtype: torch.dtype, compiled: list[Any]) -> None:
    """Aligned memory is read and written several values at a time, and offsets have 64 bits."""
    g, z, coefficients = tensors(shape, dtype)
    kernels.forward(z, coefficients, 1)
    kernels.backward(g, z, coefficients, 1)
    kernels.backward_fixed(g, z, coefficients, 1, True)
    assert len(compiled) == 3
    for kernel in compiled:
        several = r"\.v4\.b32" if dtype == torch.float32 else r"\.v2\.b32"
        assert re.search(rf"ld\.global\S*{several}", kernel.asm["ptx"])
        assert re.search(rf"st\.global\S*{several}", kernel.asm["ptx"])
        tiles = re.findall(
            r"tt\.addptr .*: tensor<\d+x\d+x\d+x!tt.ptr<\w+>.*, tensor<\d+x\d+x\d+x(i\d+)>", kernel.asm["ttir"]
        )
        assert tiles
        assert set(tiles) == {"i64"}


@needs_gpu
@pytest.mark.parametrize("shape", [(128, 512, 1), (16, 48, 196)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_in_a_cuda_graph(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """What is replayed on new values has the bits of what runs at once."""
    inputs = tensors(shape, dtype)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles
        kernels.forward(*inputs[1:], 1)
        kernels.backward(*inputs, 1)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h = kernels.forward(*inputs[1:], 1)
        g_z, sums = kernels.backward(*inputs, 1)
        g_z_from_h = kernels.backward_fixed(inputs[0], h, inputs[2], 1, True)
    for seed in (1, 2):
        for static, new in zip(inputs, tensors(shape, dtype, seed), strict=True):
            static.copy_(new)
        graph.replay()
        fixed = kernels.backward_fixed(inputs[0], h, inputs[2], 1, True)
        expected = (kernels.forward(*inputs[1:], 1), *kernels.backward(*inputs, 1), fixed)
        torch.testing.assert_close((h, g_z, sums, g_z_from_h), expected, rtol=0, atol=0)


@needs_gpu
def test_more_than_2_to_the_31_elements() -> None:
    examples, neurons, positions = 2**15 + 1, 64, 1024
    if torch.cuda.mem_get_info()[0] < 4 * 2 * examples * neurons * positions:
        pytest.skip("needs 18 GB of a GPU's memory")
    z = torch.zeros(examples, neurons, positions, dtype=torch.bfloat16, device="cuda")
    _, last, coefficients = tensors((1, neurons, positions), torch.bfloat16)
    z[-1] = last[0]
    assert torch.equal(kernels.forward(z, coefficients, 1)[-1:], kernels.forward(last, coefficients, 1))
    g_z, _ = kernels.backward(z, z, coefficients, 1)
    assert torch.equal(g_z[-1:], kernels.backward(last, last, coefficients, 1)[0])
    del g_z
    g_z = kernels.backward_fixed(z, z, coefficients, 1, True)
    assert torch.equal(g_z[-1:], kernels.backward_fixed(last, last, coefficients, 1, True))


@pytest.mark.skipif(not GPU or torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_a_device_that_is_not_the_current_one() -> None:
    g, z, coefficients = tensors((5, 7, 1), torch.float32)
    others = [tensor.to("cuda:1") for tensor in (g, z, coefficients)]
    here, there = (
        (kernels.forward(*inputs[1:], 1), *kernels.backward(*inputs, 1), kernels.backward_fixed(*inputs, 1, True))
        for inputs in ((g, z, coefficients), others)
    )
    torch.testing.assert_close(there, here, rtol=0, atol=0, check_device=False)
