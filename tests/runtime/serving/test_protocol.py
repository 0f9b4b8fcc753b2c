"""Raw bytes of tensors, against NumPy's own and tritonclient's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.utils as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.typing import NDArray

from smx.runtime.serving.protocol import DTYPES, MAX_MESSAGE, NUMERIC, Cause, Refusal, from_bytes, to_bytes

SHAPES = hn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.text(max_size=5)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    """Draw a datatype's name and an array of it."""
    name = draw(st.sampled_from(sorted(NUMERIC)))
    dtype = np.dtype(triton.triton_to_np_dtype(name))
    return name, draw(hn.arrays(dtype, SHAPES))


@given(tensors(), st.integers(0, 9))
def test_numbers_are_their_bytes_wherever_they_begin(tensor: tuple[str, NDArray[Any]], offset: int) -> None:
    name, array = tensor
    raw = array.tobytes()
    read = from_bytes("x", name, list(array.shape), memoryview(b"?" * offset + raw)[offset:])
    assert (read.datatype, read.array.dtype) == (name, array.dtype)
    assert read.array.flags.aligned
    np.testing.assert_array_equal(read.array, array)
    assert to_bytes(read.array) == raw
    assert to_bytes(read.array.T) == array.T.tobytes()  # in the order of the shape, not of the memory


@given(hn.arrays(np.object_, SHAPES, elements=TEXTS))
def test_texts_are_what_tritonclient_writes(array: NDArray[Any]) -> None:
    written = triton.serialize_byte_tensor(array)
    assert to_bytes(array) == (written.item() if written.size else b"")
    back = [text.decode() for text in triton.deserialize_bytes_tensor(to_bytes(array))]
    assert back == array.ravel().tolist()


def test_every_datatype_but_bf16_has_the_dtype_of_tritonclient() -> None:
    assert {name: np.dtype(triton.triton_to_np_dtype(name)) for name in DTYPES} == DTYPES


def test_a_truth_is_any_byte_but_0() -> None:
    read = from_bytes("x", "BOOL", [4], b"\0\1\2\xff").array
    np.testing.assert_array_equal(read.view(np.uint8), [0, 1, 1, 1])


REFUSED: list[tuple[Any, Any, bytes, str]] = [
    ("FP32", [2, 3], bytes(23), "of FP32 [2, 3] needs 24 bytes, got 23"),
    ("FP32", [2, 3], bytes(25), "needs 24 bytes, got 25"),
    ("FP32", [0, 3], bytes(4), "needs 0 bytes, got 4"),
    ("FP32", [-1], bytes(4), "has the length -1 in its shape"),
    ("FP32", [True], bytes(4), "has the length True in its shape"),
    ("FP32", [1.0], bytes(4), "has the length 1.0 in its shape"),
    ("FP32", ["1"], bytes(4), "has the length '1' in its shape"),
    ("FP32", [2**64 + 1], bytes(4), "has the length 18446744073709551617 in its shape"),
    ("FP32", [2**32, 2**32], b"", "has more than 2**60 elements"),
    ("FP32", [2**40, 2**40, 0], b"", "has more than 2**60 elements"),
    ("FP32", [2**59] * 60, b"", "has more than 2**60 elements"),
    ("FP32", [1] * 65, bytes(4), "has a shape of 65 lengths; 64 are possible"),
    ("FP32", [2**59] * 1_000_000, b"", "has a shape of 1000000 lengths"),
    ("FP32", 4, bytes(4), "needs a shape, a list of whole numbers, got 4"),
    ("FP32", None, bytes(4), "got None"),
    ("FP32", "1", bytes(4), "got '1'"),
    ("FP32", {"1": 1}, bytes(4), "got {'1': 1}"),
    ("BF16", [1], bytes(2), "needs a datatype of BOOL, UINT8"),
    ("fp32", [1], bytes(4), "got 'fp32'"),
    (None, [1], bytes(4), "got None"),
    (["FP32"], [1], bytes(4), "got ['FP32']"),
    ("BYTES", [2**22], bytes(2**24), "got 'BYTES'"),  # not decoded, which would take seconds
]


@pytest.mark.parametrize(("datatype", "shape", "raw", "part"), REFUSED)
def test_what_is_no_tensor(datatype: Any, shape: Any, raw: bytes, part: str) -> None:
    with pytest.raises(Refusal) as caught:
        from_bytes("x", datatype, shape, raw)
    assert caught.value.cause is Cause.INVALID
    assert part in str(caught.value)


def test_a_shape_of_the_largest_rank() -> None:
    assert from_bytes("x", "FP32", [1] * 64, bytes(4)).array.shape == (1,) * 64


@given(st.text())
def test_a_refusal_is_one_short_line_whatever_it_quotes(text: str) -> None:
    message = str(Refusal(Cause.INVALID, f"got {text} " + "x\ny " * 200))
    assert message.startswith("got ")
    assert len(message.splitlines()) == 1
    assert len(message) <= MAX_MESSAGE + 3
