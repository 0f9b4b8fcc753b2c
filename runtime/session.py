"""A model loaded in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from smx.errors import InputError, one_line
from smx.runtime.metadata import ModelInfo
from smx.runtime.providers import DEVICES, assignments, check_assignments, execution_providers, record_assignments
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, read_tuning

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}


class Session:
    """A model in ONNX Runtime, on the provider that was asked for.

    Args:
        model: the file's path, or its bytes.
        provider: a short name of `smx.runtime.providers.PROVIDERS`; it is really used, or an error says what there is.
        threads: for one operator; None leaves it to the settings.
        settings: how to run; None takes what `smx tune` left beside the file, or else the defaults.
        allow_fallback: let operators that the provider can't run go to the CPU.
        folder: where the weights of a model given as bytes lie, if they are not in it.
        name: how messages call it, if not by its path.

    Attributes:
        tuning: what `smx tune` left beside the file, where it is used.
        note: why it is not used, where it is there.

    Raises:
        InputError: the file is missing or no ONNX model, or the provider is not there, or does not run all operators;
            or the file that `smx tune` left is damaged.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        provider: str = "cpu",
        threads: int | None = None,
        *,
        settings: Settings | None = None,
        allow_fallback: bool = False,
        folder: Path | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or ("the model" if isinstance(model, bytes) else str(model))
        self.provider = provider
        wanted = execution_providers(provider)
        self.tuning: Tuning | None = None
        self.note: str | None = None
        source = model if isinstance(model, bytes) else _existing(Path(model))
        if settings is None and isinstance(source, str):
            self.tuning, self.note = read_tuning(source, provider)
            if self.tuning is not None:
                settings = self.tuning.settings
                source = str(Path(source).with_name(self.tuning.file)) if self.tuning.file else source
        settings = settings or Settings()
        self.settings = settings if threads is None else replace(settings, threads=threads)
        options = self.settings.to_options()
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        if provider != "cpu":
            record_assignments(options)
        try:
            # Without its own fallback, which would quietly repeat a failed run on the CPU.
            self._session = ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InputError(f"{self.name} is no model that ONNX Runtime can load: {one_line(error)}") from error
        used = self._session.get_providers()
        if used[0] != wanted[0]:
            raise InputError(f"{provider} could not be started by ONNX Runtime, which fell back to {used[0]}")
        if provider != "cpu" and not allow_fallback:
            check_assignments(self.name, provider, assignments(self._session))
        self.inputs: list[Any] = self._session.get_inputs()
        self.outputs: list[Any] = self._session.get_outputs()

    @property
    def info(self) -> ModelInfo | None:
        """What the exporter wrote about the model; None for a model of another tool."""
        try:
            return ModelInfo.from_properties(self._session.get_modelmeta().custom_metadata_map)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def run(self, *inputs: NDArray[Any]) -> NDArray[Any]:
        """Run the model on one array for each of its inputs, batch first, and return its first output.

        Values are converted to the model's dtype.

        Raises:
            InputError: the number or the shapes of the inputs are not the model's.
        """
        return self.run_all(*inputs)[0]

    @property
    def batch(self) -> int | None:
        """The batch size that the model is made for; None if it takes any."""
        sizes = {wanted.shape[0] for wanted in self.inputs if wanted.shape}
        fixed = sorted(size for size in sizes if isinstance(size, int))
        return fixed[0] if fixed else None

    @property
    def takes_raw(self) -> bool:
        """Whether the model takes whole numbers from 0 to 255, as files and cameras have them."""
        return bool(self.inputs) and self.inputs[0].type == "tensor(uint8)"

    def run_many(self, x: NDArray[Any], batch_size: int) -> NDArray[Any]:
        """Run the model on any number of examples and return its first output for all of them.

        Args:
            x: (B, *), with B at least 1.
            batch_size: examples a run; a model made for one batch size runs with that, the last run filled up with
                zeros.
        """
        return np.concatenate([outputs[0] for outputs in self._runs((x,), batch_size)])[: len(x)]

    def run_batches(self, *inputs: NDArray[Any], batch_size: int) -> list[NDArray[Any]]:
        """Run the model like `run_many` on one array (B, *) for each of its inputs, and return all its outputs."""
        outputs = zip(*self._runs(inputs, batch_size), strict=True)
        return [np.concatenate(parts)[: len(inputs[0])] for parts in outputs]

    def _runs(self, inputs: tuple[NDArray[Any], ...], batch_size: int) -> Iterator[list[NDArray[Any]]]:
        examples = {len(x) for x in inputs}
        if len(examples) != 1 or 0 in examples:
            raise InputError(f"{self.name} needs at least one example, and as many of each input")
        (count,) = examples
        size = self.batch or batch_size
        missing = -count % size if self.batch else 0
        filled = [np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x for x in inputs]
        for start in range(0, count, size):
            yield self.run_all(*(x[start : start + size] for x in filled))

    def run_all(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the model like `run` and return all its outputs."""
        feed = self._feed(inputs)
        try:
            return list(self._session.run(None, feed))
        except Exception as error:
            raise InputError(f"{self.name} can't run this input: {one_line(error)}") from error

    def bound(self, *inputs: NDArray[Any], io_binding: bool = False) -> Callable[[], object]:
        """Check inputs once and return a call that only runs the model on them, for timing.

        Args:
            inputs: as for `run`.
            io_binding: inputs and outputs stay on the provider's device; the call waits until the device is done.
        """
        feed = self._feed(inputs)
        if not io_binding:
            return lambda: self._session.run(None, feed)
        device = DEVICES.get(self.provider, "cpu")
        binding = self._session.io_binding()
        for name, x in feed.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(x, device, 0))
        for output in self.outputs:
            binding.bind_output(output.name, device)
        binding.synchronize_inputs()

        def run() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def random_inputs(self, batch_size: int, seed: int = 0) -> list[NDArray[Any]]:
        """Return random arrays that the model takes, see `random_inputs`."""
        return random_inputs(self.name, self.inputs, batch_size, seed)

    def _feed(self, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if len(inputs) != len(self.inputs):
            raise InputError(f"{self.name} expects {len(self.inputs)} inputs, got {len(inputs)}")
        return {wanted.name: self._fit(wanted, x) for wanted, x in zip(self.inputs, inputs, strict=True)}

    def _fit(self, wanted: Any, x: NDArray[Any]) -> NDArray[Any]:
        fits = len(x.shape) == len(wanted.shape) and all(
            not isinstance(size, int) or size == got for size, got in zip(wanted.shape, x.shape, strict=True)
        )
        if not fits:
            shape = ", ".join(map(str, wanted.shape))
            raise InputError(f"{self.name} expects an input of shape ({shape}), got {x.shape}")
        if not (np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_):
            raise InputError(f"{self.name} expects an input of numbers, got dtype {x.dtype}")
        dtype = DTYPES.get(wanted.type, x.dtype)
        if np.issubdtype(dtype, np.integer) and not np.issubdtype(x.dtype, np.integer):
            raise InputError(f"{self.name} expects whole numbers ({dtype}), got dtype {x.dtype}")
        return np.ascontiguousarray(x.astype(dtype, copy=False))


def random_inputs(name: str, inputs: Sequence[Any], batch_size: int, seed: int = 0) -> list[NDArray[Any]]:
    """Return random arrays for the inputs of a model: in [0, 1), or whole numbers from 0 to 255, or booleans.

    Args:
        name: how messages call the model.
        inputs: as ONNX Runtime describes them.
        batch_size: examples a run.
        seed: of the values.

    Raises:
        InputError: the model is made for another batch size, or an input has other sizes that are not fixed.
    """
    random = np.random.default_rng(seed)
    arrays: list[NDArray[Any]] = []
    for wanted in inputs:
        first, *rest = wanted.shape or [None]
        if isinstance(first, int) and first != batch_size:
            raise InputError(f"{name} is made for batch size {first}, got {batch_size}")
        if not all(isinstance(size, int) for size in rest):
            raise InputError(f"{name} has an input {wanted.name!r} whose sizes are not fixed: {wanted.shape}")
        dtype = DTYPES.get(wanted.type, np.dtype(np.float32))
        values = random.random((batch_size, *rest))
        whole = not np.issubdtype(dtype, np.floating)
        arrays.append((np.floor(values * (2 if dtype == np.bool_ else 256)) if whole else values).astype(dtype))
    return arrays


def _existing(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the ONNX file in it")
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected an ONNX model, as smx export writes it")
    return str(path)
