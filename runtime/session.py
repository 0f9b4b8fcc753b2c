"""A model loaded in ONNX Runtime."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from smx.errors import InputError, SmxError, no_file, one_line
from smx.limits import RANDOM_VALUES, VALUES
from smx.runtime.digest import check_digest
from smx.runtime.graph import check_functions
from smx.runtime.metadata import ModelInfo
from smx.runtime.providers import DEVICES, check_assignments, execution_providers
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, read_tuning

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    **{f"tensor({name})": np.dtype(name) for size in (8, 16, 32, 64) for name in (f"int{size}", f"uint{size}")},
    "tensor(bool)": np.dtype(np.bool_),
}
"""The types of tensors that ONNX Runtime and numpy share, other than text."""
MACHINE = re.compile(r"bad_alloc|bad allocation|[Ff]ailed to allocate|out of memory|CUDA (failure|error)|CUDNN|CUBLAS")
"""Of ONNX Runtime's messages, which have no kinds: that not the input but memory or a device is at fault."""


class Session:
    """A model in ONNX Runtime, on the provider that was asked for.

    Args:
        model: the file's path, or its bytes.
        provider: a key of `smx.runtime.providers.PROVIDERS`.
        threads: threads of one operator; None takes those of the settings.
        settings: of ONNX Runtime; None takes those that `smx tune` wrote beside the file, or else the defaults.
        allow_fallback: let the CPU run operators that the provider can't run.
        folder: where the weights of a model given as bytes are, if they are not in it.
        name: of the model in messages, if it is not its path.

    Attributes:
        info: the metadata that the exporter wrote; None for a model of another tool.
        tuning: what `smx tune` wrote beside the file; None where there is nothing, or it is not used.
        note: why it is not used.

    Raises:
        InputError: the file is missing, damaged (see `smx.runtime.digest`), of a later format or no ONNX model; the
            provider is not available, or does not run all operators; or the file that `smx tune` wrote is damaged.
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
        source = model if isinstance(model, bytes) else existing(Path(model))
        if settings is None and isinstance(source, str):
            self.tuning, self.note = read_tuning(source, provider)
            if self.tuning is not None:
                settings = self.tuning.settings
                source = str(Path(source).with_name(self.tuning.file)) if self.tuning.file else source
        check_digest(source if isinstance(source, bytes) else Path(source), self.name)
        settings = settings or Settings()
        self.settings = settings if threads is None else replace(settings, threads=threads)
        options = self.settings.to_options()
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        if provider != "cpu":
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            check_functions(source)
            # Without its own fallback, which would quietly repeat a failed run on the CPU.
            self._session = ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InputError(f"{self.name} is no model that ONNX Runtime can load: {one_line(error)}") from error
        used = self._session.get_providers()
        if used[0] != wanted[0]:
            raise InputError(f"{provider} could not be started by ONNX Runtime, which fell back to {used[0]}")
        if provider != "cpu" and not allow_fallback:
            check_assignments(self.name, provider, self._session)
        self.inputs: list[Any] = self._session.get_inputs()
        self.outputs: list[Any] = self._session.get_outputs()
        self._check_sizes()
        self.info = self._read_info()

    def _check_sizes(self) -> None:
        """Refuse inputs that a small file declares and no memory holds."""
        for wanted in self.inputs:
            sizes = [size for size in wanted.shape[1:] if isinstance(size, int)]
            if math.prod(sizes) > VALUES:
                raise InputError(
                    f"{self.name} has an input {wanted.name!r} of {wanted.shape}; smx takes examples of {VALUES} values"
                    " at most"
                )

    def _read_info(self) -> ModelInfo | None:
        try:
            return ModelInfo.from_properties(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: the model's metadata is no UTF-8 text; export it again") from error
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def run(self, *inputs: ArrayLike, batch_size: int | None = None) -> NDArray[Any]:
        """Run the model like `run_all` and return its first output."""
        return self.run_all(*inputs, batch_size=batch_size)[0]

    def run_all(self, *inputs: ArrayLike, batch_size: int | None = None) -> list[NDArray[Any]]:
        """Run the model and return all its outputs, each (B, *) for B examples.

        Scikit-learn's scores, a dict for each example, become a structured array (B,) with a field for each class.

        B may be 0. ONNX Runtime would abort the process with some models, so it is not given an empty batch: the shapes
        of the outputs are found by running the model on zeros.

        Args:
            inputs: an array (B, *), or what NumPy makes one of, for each input of the model; values are converted to
                the model's dtype.
            batch_size: examples in a run of ONNX Runtime, one run after the other; None runs all examples at once. A
                model made for one batch size is run with that, the last batch filled up with zeros.

        Raises:
            InputError: the number, the shapes or the dtypes of the inputs are not the model's; an output is no array;
                or it does not have the examples on an axis, for no examples, or its first, for several batches.
            SmxError: there is not enough memory, or the device fails.
        """
        arrays = self._arrays(inputs)
        if batch_size is not None:
            return self._run_batches(arrays, batch_size)
        return self._run_whole(arrays)

    def _run_whole(self, inputs: tuple[NDArray[Any], ...]) -> list[NDArray[Any]]:
        feed = self._feed(inputs)
        return self._run_empty(feed) if any(map(_is_empty, feed.values())) else self._call(feed)

    def _run_batches(self, inputs: tuple[NDArray[Any], ...], batch_size: int) -> list[NDArray[Any]]:
        counts = [len(x) for x in inputs if x.ndim]
        if len(set(counts)) != 1 or len(counts) != len(inputs):
            shapes = [x.shape for x in inputs]
            raise InputError(f"{self.name} needs as many examples of each input, got shapes {shapes}")
        if batch_size < 1:
            raise InputError(f"the batch size must be at least 1, got {batch_size}")
        count, size = counts[0], self.batch or batch_size
        if count in (0, size) or (count < size and not self.batch):
            return self._run_whole(inputs)
        missing = -count % size if self.batch else 0
        filled = [np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x for x in inputs]
        runs = [self._run_whole(tuple(x[start : start + size] for x in filled)) for start in range(0, count, size)]
        for output, y in zip(self.outputs, runs[0], strict=True):
            if y.shape[:1] != (size,):
                raise InputError(
                    f"{self.name} has the output {output.name!r} of shape {y.shape}, not one row for each of {size}"
                    " examples; run it on one batch"
                )
        return [np.concatenate(parts)[:count] for parts in zip(*runs, strict=True)]

    def _run_empty(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all outputs for no examples: the axes that differ between one and two examples have the length 0."""
        sizes = {wanted.name: wanted.shape[0] for wanted in self.inputs if _is_empty(feed[wanted.name])}
        batch = next((size for size in sizes.values() if isinstance(size, int)), None)

        def run(examples: int) -> list[NDArray[Any]]:
            zeros = {name: np.zeros((batch or examples, *feed[name].shape[1:]), feed[name].dtype) for name in sizes}
            return self._call({**feed, **zeros})

        outputs = []
        for output, one, two in zip(self.outputs, run(1), run(2), strict=True):
            shape = np.maximum(2 * np.array(one.shape, int) - two.shape, 0)
            if batch and one.ndim and one.shape[0] % batch == 0:
                shape[0] = 0
            if 0 not in shape:
                raise InputError(f"{self.name} needs at least one example: its output {output.name!r} has none")
            outputs.append(np.zeros(shape, one.dtype))
        return outputs

    def _call(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found = self._run(feed)
        return [self._array(output, value) for output, value in zip(self.outputs, found, strict=True)]

    def _run(self, feed: dict[str, NDArray[Any]]) -> list[Any]:
        try:
            return list(self._session.run(None, feed))
        except Exception as error:
            reason = one_line(error)
            if isinstance(error, MemoryError) or MACHINE.search(reason):
                raise SmxError(f"{self.name} could not be run: {reason}") from error
            raise InputError(f"{self.name} can't run this input: {reason}") from error

    def _array(self, output: Any, value: Any) -> NDArray[Any]:
        """Return an output as an array."""
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        if value and isinstance(value, list) and all(isinstance(row, dict) for row in value):
            classes = [*value[0]]
            if classes and all(row.keys() == value[0].keys() for row in value):
                dtype = np.dtype([(str(each), np.float64) for each in classes])
                return np.array([tuple(row[each] for each in classes) for row in value], dtype)
        raise InputError(f"{self.name} has the output {output.name!r} of {output.type}, which is no array")

    @property
    def batch(self) -> int | None:
        """The batch size that the model is made for; None if it takes any, or an input has other examples, or none."""
        sizes = {wanted.shape[0] if wanted.shape else None for wanted in self.inputs}
        (size,) = sizes if len(sizes) == 1 else (None,)
        return size if isinstance(size, int) else None

    @property
    def takes_raw(self) -> bool:
        """Whether the first input is uint8: values from 0 to 255, as images have them; the model normalises them."""
        return bool(self.inputs) and self.inputs[0].type == "tensor(uint8)"

    def bound(self, *inputs: ArrayLike, io_binding: bool = False) -> Callable[[], object]:
        """Check inputs once, and return a function that does nothing but run the model on them, for timing.

        Args:
            inputs: as for `run_all`, with at least one example.
            io_binding: keep inputs and outputs on the provider's device; the function waits until the device is done.

        Raises:
            InputError: as for `run_all`, but outputs may be anything.
        """
        feed = self._feed(self._arrays(inputs))
        if any(map(_is_empty, feed.values())):
            raise InputError(f"{self.name} can't be timed without examples")
        self._run(feed)  # an error is said here
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
        """Return random arrays that the model takes: in [0, 1), or whole numbers from 0 to 255 (127), or booleans.

        Raises:
            InputError: the model does not take this batch size, an input has other sizes that are not fixed, or is no
                tensor of numbers.
        """
        if batch_size < 1:
            raise InputError(f"the batch size must be at least 1, got {batch_size}")
        random = np.random.default_rng(seed)
        arrays: list[NDArray[Any]] = []
        for wanted in self.inputs:
            first, *rest = wanted.shape or [None]
            if isinstance(first, int) and first != batch_size:
                raise InputError(f"{self.name} is made for batch size {first}, got {batch_size}")
            if not all(isinstance(size, int) for size in rest):
                raise InputError(f"{self.name} has an input {wanted.name!r} whose sizes are not fixed: {wanted.shape}")
            dtype = DTYPES.get(wanted.type)
            if dtype is None:
                raise InputError(f"{self.name} has an input {wanted.name!r} of {wanted.type}, which takes no numbers")
            if batch_size * math.prod(rest) > RANDOM_VALUES:
                raise InputError(
                    f"{batch_size} examples of {self.name} are more than {RANDOM_VALUES} values; take a smaller batch"
                )
            values = random.random((batch_size, *rest))
            count = {"b": 2, "i": 128 if dtype == np.int8 else 256, "u": 256}.get(dtype.kind)
            arrays.append((np.floor(values * count) if count else values).astype(dtype))
        return arrays

    def end_profiling(self) -> Path:
        """Return the JSON file that ONNX Runtime's profiler wrote, if the settings turned it on."""
        return Path(self._session.end_profiling())

    def _arrays(self, inputs: Sequence[ArrayLike]) -> tuple[NDArray[Any], ...]:
        """Return what NumPy makes of the inputs: of lists, say, or of tensors on the CPU."""
        if any(map(np.ma.is_masked, inputs)):
            raise InputError(f"{self.name} expects inputs without masked values; fill them")
        try:
            return tuple(map(np.asarray, inputs))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.name} expects inputs that NumPy can read: {one_line(error)}") from error

    def _feed(self, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if len(inputs) != len(self.inputs):
            raise InputError(f"{self.name} expects {len(self.inputs)} inputs, got {len(inputs)}")
        return {wanted.name: self._fit(wanted, x) for wanted, x in zip(self.inputs, inputs, strict=True)}

    def _fit(self, wanted: Any, x: NDArray[Any]) -> NDArray[Any]:
        sizes = list(zip(wanted.shape, x.shape, strict=False))[int(_is_empty(x)) :]  # no examples are allowed
        if len(x.shape) != len(wanted.shape) or not all(
            got == size if isinstance(size, int) else got > 0 for size, got in sizes
        ):
            shape = ", ".join(map(str, wanted.shape))
            none = " (no axis but the first may be empty)" if 0 in x.shape[1:] else ""
            raise InputError(f"{self.name} expects an input of shape ({shape}), got {x.shape}{none}")
        if x.dtype.kind not in "biuf":  # to NumPy a timedelta is a whole number
            raise InputError(f"{self.name} expects an input of numbers, got dtype {x.dtype}")
        dtype = DTYPES.get(wanted.type, x.dtype)
        if np.issubdtype(dtype, np.integer) and x.dtype.kind not in "iu":
            raise InputError(f"{self.name} expects whole numbers ({dtype}), got dtype {x.dtype}")
        if np.issubdtype(dtype, np.integer) and x.size and not np.can_cast(x.dtype, dtype):
            low, high = int(x.min()), int(x.max())
            if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
                raise InputError(f"{self.name} expects whole numbers that {dtype} can hold, got {low} to {high}")
        with np.errstate(over="ignore"):
            fitted = np.ascontiguousarray(x.astype(dtype, copy=False))
        if not np.can_cast(x.dtype, dtype) and (np.isinf(fitted) & np.isfinite(x)).any():
            raise InputError(f"{self.name} expects values that {dtype} can hold, got {x.min():g} to {x.max():g}")
        return fitted


def _is_empty(x: NDArray[Any]) -> bool:
    return x.shape[:1] == (0,)


def existing(path: Path) -> str:
    """Return the path of a model file, as ONNX Runtime takes it.

    Raises:
        InputError: there is no such file, or its name is not UTF-8.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the ONNX file in it")
    if not path.is_file():
        raise InputError(f"{no_file(path)}; expected an ONNX model, as smx export writes it")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path} has a name that is not UTF-8, which ONNX Runtime can't open; rename it") from error
    return str(path)
