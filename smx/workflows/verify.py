"""Does an ONNX file give PyTorch's answers, and if not, where does it go wrong?"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError, SmxError, reason
from smx.runtime.parity.check import ParityReport, check_parity
from smx.runtime.parity.inputs import synthetic_inputs
from smx.runtime.parity.locate import Location, Reference
from smx.runtime.parity.locate import locate as find_fault
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing.machine import machine
from smx.workflows import OnProgress, listed, silent

if TYPE_CHECKING:
    from torch import nn

    from smx.example_input import ExampleInput
    from smx.workflows.network import Network, NetworkLike

Inputs = NDArray[Any] | tuple[NDArray[Any], ...]
Data = str | os.PathLike[str] | Inputs

MAX_CHANGED = {"float16": 0.001, "int8": 0.005}
"""The share of predictions that lower precision may change."""
SEARCHED = 256
"""At most this many examples are searched for values at the kinks of the activations."""
CHUNK = 1000
"""Examples that are searched for a fault at a time."""
GENERATED = 128
"""Examples in a set of generated inputs."""
LENGTHENED = 16
"""Examples in a set of another length."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport(ParityReport):
    """The comparisons of a file with its network; see `ParityReport` for the rest.

    Attributes:
        model: path of the ONNX file.
        class_names: one for each output, or empty.
        location: where the first fault is; None when it was not asked for, or nothing failed.
        located_on: the set of inputs on which it was searched.
        machine: see `smx.timing.machine.machine`.
    """

    model: str
    class_names: tuple[str, ...]
    location: Location | None
    located_on: str | None
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = super().to_dict()
        located_on = values.pop("located_on")
        return values | {"location": self.location and {"inputs": located_on, **self.location.to_dict()}}


def verify(
    network: NetworkLike,
    onnx_path: str | os.PathLike[str],
    *,
    example_input: ExampleInput | None = None,
    data: Data | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    batch_sizes: int | Sequence[int] = (1, 16, 128, 1000),
    atol: float | None = None,
    rtol: float | None = None,
    locate: bool = False,
    provider: str = "cpu",
    allow_fallback: bool = False,
    trust_code: bool = False,
    on_progress: OnProgress = silent,
) -> VerifyReport:
    """Compare an exported file with its network in PyTorch.

    The inputs are a test set, random and extreme values, and values at the kinks of the activations, each in several
    batch sizes; and random values at other lengths of the axes that are dynamic. The report also says whether the file
    or PyTorch is nearer to the network in float64. A float16 or int8 file is judged on the test set alone, by the share
    of predictions that change.

    Args:
        network, example_input, trust_code: see `smx.workflows.network.open_network`.
        onnx_path: the file.
        data: name of a data set or path of an `.npz` file, for a saved network; or examples as the network takes them,
            an array (B, *) or one for each argument. None is the data set that the network was trained on, if any.
        data_dir: where downloaded data sets are, see `smx.data.load`.
        batch_sizes: examples a run.
        atol, rtol: tolerance, see `smx.runtime.check_parity`; None takes that of the export. Without either, a file of
            lower precision whose outputs are classes may change some of them, see `MAX_CHANGED`.
        locate: when a comparison fails, find the first layer, neuron and example that break.
        provider, allow_fallback: see `smx.runtime.Session`.
        on_progress: see `smx.workflows.OnProgress`.

    Raises:
        InputError: a file is missing or damaged, or the inputs do not fit the network.
    """
    import torch

    from smx.export.reference import in_parts
    from smx.workflows.network import open_network

    batch_sizes = tuple(dict.fromkeys(listed(batch_sizes)))
    session = Session(onnx_path, provider, settings=Settings(), allow_fallback=allow_fallback)
    opened = open_network(network, example_input, raw=session.takes_raw, trust_code=trust_code)
    usual = atol is None and rtol is None
    max_changed = MAX_CHANGED.get(session.info.precision) if session.info and usual else None
    inputs, class_names = _given(opened, session, data, data_dir)
    if max_changed is None or not inputs:
        made = _generated(opened, session, next(iter(inputs.values()), None)) | _other_lengths(opened, session)
        inputs |= {name: x for name, x in made.items() if _is_finite(opened.module, x)} or made
    float32, float64 = in_parts(opened.module), in_parts(opened.exact, torch.float64)
    try:
        float64(*(x.numpy() for x in opened.example), given=())
        arbiter: Reference | None = float64
    except Exception:  # a forward that makes float32 of what it gets, as of uint8, has no weights in float64
        arbiter, float64 = None, float32
    done, total = count(), len(inputs) * len(batch_sizes)  # at most: some sets are small

    def outputs(run: Reference, *x: NDArray[Any]) -> Sequence[NDArray[Any]]:
        try:
            return run(*x, given=()).outputs
        except Exception as error:  # whatever the forward of a user's network may raise
            what = f"the network that {onnx_path} is compared with"
            raise SmxError(f"{what} fails in PyTorch ({reason(error)})") from error

    parity = check_parity(
        partial(outputs, float32),
        session,
        inputs,
        arbiter=partial(outputs, arbiter) if arbiter else None,
        atol=atol,
        rtol=rtol,
        max_changed=max_changed,
        batch_sizes=batch_sizes,
        on_progress=lambda name, batch_size: on_progress(f"{name}, batch {batch_size}", next(done), total),
    )
    location = located_on = None
    if locate and not parity.passed:
        located_on = next(row.inputs for row in parity.comparisons if not row.passed)
        how: dict[str, Any] = {"provider": session.provider, "allow_fallback": allow_fallback}
        location = _locate(partial(find_fault, str(onnx_path), float32, float64, **how), _tuple(inputs[located_on]))
    return VerifyReport(
        **vars(parity),
        model=str(onnx_path),
        class_names=class_names,
        location=location,
        located_on=located_on,
        machine=machine(),
    )


def _tuple(inputs: Inputs) -> tuple[NDArray[Any], ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _arrays(data: Any, network: Network, session: Session) -> Inputs:
    """Return examples as arrays, one for each input of the network, in its dtype if that is floating.

    Raises:
        InputError: they are none, or not what the file takes.
    """
    arrays = tuple(map(np.asarray, data)) if isinstance(data, tuple) else (np.asarray(data),)
    if 0 in {len(x) if x.ndim else 0 for x in arrays}:
        raise InputError("data has no examples; give arrays (B, *) of one or more")
    session.run_all(*(x[:1] for x in arrays), batch_size=1)
    floating = [each.numpy().dtype if each.is_floating_point() else None for each in network.example]
    fitted = tuple(x.astype(dtype or x.dtype) for x, dtype in zip(arrays, floating, strict=True))
    return fitted if isinstance(data, tuple) else fitted[0]


def _given(
    network: Network, session: Session, data: Data | None, data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, Inputs], tuple[str, ...]]:
    """Return the test set by its name, if there is one, and the names of the classes."""
    import torch

    from smx import data as datasets

    if isinstance(data, np.ndarray | torch.Tensor | tuple | list):
        return {"given": _arrays(data, network, session)}, ()
    if data is not None and not isinstance(data, str | os.PathLike):
        raise InputError(f"data must be the name of a data set, or examples as an array, got {type(data).__name__}")
    if network.saved is None:
        if data:
            raise InputError(f"a module takes data as arrays (B, *), got the data set {data!r}")
        return {}, ()
    name = os.fspath(data) if data else network.saved.data["name"]
    if not name:
        return {}, network.saved.data["class_names"]
    dataset = datasets.load(name, data_dir)
    x = network.saved.examples(dataset, dataset.test.x, raw=session.takes_raw)
    return {f"{dataset.name} test": x}, dataset.class_names


def _generated(network: Network, session: Session, test: Inputs | None) -> dict[str, Inputs]:
    """Return random and extreme inputs, and those at kinks, which are searched between the examples of `test`.

    1. The file takes raw uint8 values alone: whole numbers up to the data's maximum.
    2. One floating input: all of them.
    3. Anything else: the example, and random values for its floating inputs. Whole numbers stay those of the example,
       because only these are known to be valid (indices of an embedding, for instance).
    """
    import torch

    from smx.hooks import kinks

    if session.takes_raw and session.info and len(network.example) == 1:
        most = int(session.info.maximum) if session.info.maximum > 1 else 255
        return {**synthetic_inputs(network.example[0].shape[1:], maximum=most)}
    if len(network.example) == 1 and network.example[0].is_floating_point():
        synthetic = synthetic_inputs(network.example[0].shape[1:])
        own = network.example[0].numpy().dtype
        sets: dict[str, Inputs] = {name: x.astype(own) for name, x in synthetic.items()}
        between = sets["random"] if test is None else test
        at_kinks = kinks(network.module, torch.from_numpy(_tuple(between)[0][:SEARCHED]).to(network.example[0])).numpy()
        return sets | ({"kinks": at_kinks} if len(at_kinks) else {})
    tiled = tuple(x.numpy()[np.arange(GENERATED) % len(x)] for x in network.example)
    random = np.random.default_rng(0)
    drawn = (random.uniform(-1, 1, x.shape).astype(x.dtype) if x.dtype.kind == "f" else x for x in tiled)
    return {"example": tiled, "random": tuple(drawn)}


def _is_finite(module: nn.Module, inputs: Inputs) -> bool:
    """Whether a network's outputs are finite; one that divides by its input's norm has none for zeros."""
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad(), suppress(Exception):  # what fails is said by the comparison
        outputs = module(*(torch.from_numpy(x) for x in _tuple(inputs)))
        return all(bool(y.isfinite().all()) for y in tree_leaves(outputs) if isinstance(y, torch.Tensor))
    return True


def _other_lengths(network: Network, session: Session) -> dict[str, Inputs]:
    """Return random inputs at two lengths of each axis beside the batch that the file takes in any length."""
    import torch

    from smx.calling import Flat
    from smx.export import sizes

    axes = tuple({i: n for i, n in enumerate(each.shape) if i and isinstance(n, str)} for each in session.inputs)
    if not any(axes):
        return {}
    ranks = [len(each.shape) for each in session.inputs]
    if ranks != [x.dim() for x in network.example]:
        raise InputError(f"{session.name} takes other inputs than the network; was it exported from another one?")
    random = torch.Generator().manual_seed(0)
    example = tuple(x[torch.arange(LENGTHENED) % len(x)] for x in network.example)
    drawn = tuple(torch.rand(x.shape, generator=random).to(x) if x.is_floating_point() else x for x in example)
    found = sizes.others(Flat(network.module, drawn), drawn, axes)
    return {name.replace("example", "random"): tuple(x.numpy() for x in inputs) for name, inputs in found}


def _locate(find: Callable[..., Location], inputs: tuple[NDArray[Any], ...]) -> Location:
    """Find the first fault on some inputs, one chunk after another."""
    for start in range(0, len(inputs[0]), CHUNK):
        location = find(*(x[start : start + CHUNK] for x in inputs))
        if location.fault is not None:
            return replace(location, fault=replace(location.fault, example=location.fault.example + start))
    return location
