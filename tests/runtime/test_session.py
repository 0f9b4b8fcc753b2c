from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from smx.errors import InputError, SmxError
from smx.runtime import Session
from smx.runtime.digest import sealed
from tests.runtime.fakes import HEAD, PLUS_ONE, save, save_wide

WEIGHTS = np.random.default_rng(1).random((64, 10), np.float32)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A matrix product, in place of a network."""
    model = onnx.parser.parse_model(HEAD + "(float[batch,64] x) => (float[batch,10] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHTS, "w"))
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def test_run_takes_any_number_dtype_and_batch(dense: Path) -> None:
    session = Session(dense, threads=1)
    assert (session.batch, session.takes_raw) == (None, False)
    x = np.random.default_rng(0).random((7, 64))
    together = session.run(x)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, x @ WEIGHTS, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([session.run(x[i : i + 1]) for i in range(7)]), together, rtol=1e-6)
    np.testing.assert_allclose(session.run(x, batch_size=3), together, rtol=1e-6)
    np.testing.assert_allclose(session.run((16 * x).astype(int)), (16 * x).astype(int) @ WEIGHTS, rtol=1e-5)


def test_wrong_inputs_say_what_was_expected(dense: Path) -> None:
    session = Session(dense)
    with pytest.raises(InputError, match=r"small\.onnx expects an input of shape \(batch, 64\), got \(2, 63\)"):
        session.run(np.zeros((2, 63)))
    with pytest.raises(InputError, match=r"got \(64,\)"):
        session.run(np.zeros(64))
    with pytest.raises(InputError, match="expects 1 inputs, got 2"):
        session.run(np.zeros((1, 64)), np.zeros((1, 64)))
    for strange in (np.ones((1, 64), np.complex64), np.ones((1, 64), "m8[s]"), np.ones((1, 64), "M8[s]")):
        with pytest.raises(InputError, match=f"an input of numbers, got dtype {re.escape(str(strange.dtype))}"):
            Session(dense).run(strange)
    with pytest.raises(InputError, match="an input of numbers, got dtype <U1"):
        session.run(np.full((1, 64), "a"))


def test_what_numpy_makes_arrays_of(dense: Path) -> None:
    x = np.random.default_rng(0).random((5, 64), np.float32)
    session = Session(dense)
    for given in (x.tolist(), torch.from_numpy(x), np.ma.masked_less(x, 0)):
        np.testing.assert_array_equal(session.run(given), session.run(x))
        np.testing.assert_array_equal(session.run(given, batch_size=2), session.run(x, batch_size=2))
    with pytest.raises(InputError, match="expects inputs without masked values; fill them"):
        session.run(np.ma.masked_less(x, 0.5))
    for odd in ([[1.0], [1.0, 2.0]], torch.from_numpy(x).requires_grad_(), torch.from_numpy(x).to(torch.bfloat16)):
        with pytest.raises(InputError, match=r"small\.onnx expects inputs that NumPy can read: "):
            session.run(odd)
    with pytest.raises(InputError, match=r"needs as many examples of each input, got shapes \[\(\)\]"):
        session.run(1.0, batch_size=3)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("bad allocation"),
        RuntimeError("Failed to allocate memory for requested buffer of size 4"),
        RuntimeError("CUDA failure 700: an illegal memory access was encountered"),
    ],
)
def test_a_machine_that_fails_is_no_wrong_input(error: Exception, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object) -> None:
        raise error

    session = Session(dense)
    monkeypatch.setattr(session._session, "run", run)
    for attempt in (session.run, session.bound):
        with pytest.raises(SmxError, match=r"small\.onnx could not be run: \w") as caught:
            attempt(np.zeros((1, 64)))
        assert not isinstance(caught.value, InputError)


def test_too_little_memory_as_onnx_runtime_says_it(tmp_path: Path) -> None:
    session = Session(save(tmp_path / "m.onnx", HEAD + "(int64[1] n) => (float[m] y) { y = ConstantOfShape(n) }"))
    with pytest.raises(SmxError, match=r"m\.onnx could not be run: .*Failed to allocate memory") as caught:
        session.run([2**50])
    assert not isinstance(caught.value, InputError)
    with pytest.raises(InputError, match=r"m\.onnx can't run this input: .*must be >= 0"):
        session.run([-1])


@pytest.mark.parametrize(
    ("inputs", "batch"),
    [("float[4,3] x, float[4] z", 4), ("float[4,3] x, float[1] z", None), ("float[1,3] x, float z", None),
     ("float[n,3] x, float[1] z", None), ("float z", None)],
)  # fmt: skip
def test_the_batch_size_is_that_of_all_inputs(inputs: str, batch: int | None, tmp_path: Path) -> None:
    assert Session(save(tmp_path / "m.onnx", HEAD + f"({inputs}) => (float y) {{ y = ReduceSum(z) }}")).batch == batch


RAW = (
    HEAD
    + """(uint8[4,2,3] x) => (float[4,6] y) <int64[2] shape = {4, 6}, float[1] most = {16}> {
    a = Cast <to = 1> (x)  b = Reshape(a, shape)  y = Div(b, most)
}"""
)


def test_a_model_of_one_batch_size_runs_on_any_number_of_raw_examples(tmp_path: Path) -> None:
    session = Session(save(tmp_path / "m.onnx", RAW))
    assert (session.batch, session.takes_raw) == (4, True)
    for examples in (1, 4, 9):
        x = np.random.default_rng(0).integers(0, 17, (examples, 2, 3), np.uint8)
        np.testing.assert_array_equal(session.run(x, batch_size=100), x.reshape(examples, 6) / np.float32(16))
    with pytest.raises(InputError, match=r"expects whole numbers \(uint8\), got dtype float32"):
        session.run(np.zeros((4, 2, 3), np.float32))


def test_a_provider_that_does_not_start_is_an_error(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would fall back to the CPU with a warning. Unknown providers: see test_providers.py."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(InputError, match=r"cuda could not be started .* fell back to CPU"),
    ):
        Session(dense, "cuda")


def test_files_that_are_no_model(tmp_path: Path, dense: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx does not exist; expected an ONNX model"):
        Session(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a folder"):
        Session(tmp_path)
    for content in (b"", b"hello", dense.read_bytes()[:1500]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx is no model that ONNX Runtime can load: [^\n]+$"):
            Session(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        Session(dense, threads=0)


@pytest.mark.parametrize(
    ("operator", "count", "message"),
    [("Relu", 30, "its functions stand for more than 16384 operators"), ("Own", 1, "its function F0 calls itself")],
)
def test_functions_that_stand_for_too_many_operators(
    operator: str, count: int, message: str, dense: Path, tmp_path: Path
) -> None:
    model = onnx.load(dense)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("own", 1)]
    model.opset_import.append(opsets[1])
    for i in range(count):
        called = (f"F{i - 1}", "own") if i else (operator, "") if operator == "Relu" else ("F0", "own")
        body = [onnx.helper.make_node(called[0], [a], [b], domain=called[1]) for a, b in (("a", "t"), ("t", "b"))]
        model.functions.append(onnx.helper.make_function("own", f"F{i}", ["a"], ["b"], body, opsets))
    model.graph.node.insert(0, onnx.helper.make_node(f"F{count - 1}", ["x"], ["called"], domain="own"))
    model.graph.node[1].input[0] = "called"
    for content in (model.SerializeToString(), sealed(model.SerializeToString())):  # a digest is no signature
        (tmp_path / "bomb.onnx").write_bytes(content)
        with pytest.raises(InputError, match=rf"bomb\.onnx is no model that ONNX Runtime can load: {message}"):
            Session(tmp_path / "bomb.onnx")
    del model.functions[4:]
    model.graph.node[0].op_type = "F3"
    if count > 4:
        (tmp_path / "small.onnx").write_bytes(model.SerializeToString())
        x = np.random.default_rng(0).random((3, 64), np.float32)
        np.testing.assert_allclose(Session(tmp_path / "small.onnx").run(x), x @ WEIGHTS, rtol=1e-5)


def test_a_model_given_as_bytes_and_its_weights_beside(tmp_path: Path) -> None:
    path = save_wide(tmp_path / "m.onnx", 300, save_as_external_data=True, location="m.data", size_threshold=0)
    session = Session(path.read_bytes(), folder=tmp_path, name="mine")
    np.testing.assert_array_equal(session.run(np.full((2, 1), 3)), np.full((2, 300), 3))
    with pytest.raises(InputError, match=r"^mine expects an input of shape \(batch, 1\), got \(1, 2\)$"):
        session.run(np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"^the model is no model that ONNX Runtime can load"):
        Session(b"x")


KINDS = {
    "float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8, "int32": np.int32,
    "int64": np.int64, "bool": np.bool_,
}  # fmt: skip


def test_random_inputs_are_what_the_model_takes(tmp_path: Path) -> None:
    takes = ", ".join(f"{kind}[b,50,20] x_{kind}" for kind in KINDS)
    path = save(tmp_path / "m.onnx", HEAD + f"({takes}) => (float[b,50,20] y) {{ y = Identity(x_float) }}")
    session = Session(path)
    inputs = dict(zip(KINDS, session.random_inputs(5, seed=1), strict=True))
    for kind, x in inputs.items():
        assert x.shape == (5, 50, 20)
        assert x.dtype == KINDS[kind]
        if kind == "bool":
            assert 0.4 < x.mean() < 0.6
        elif np.issubdtype(x.dtype, np.integer):
            assert (x.min(), x.max()) == (0, 255)
        else:
            assert 0 <= x.min() < 0.1
            assert 0.9 < x.max() <= 1
    np.testing.assert_array_equal(session.run(*inputs.values()), inputs["float"])
    assert (inputs["float"][0] != inputs["float"][1]).any()
    for seed, same in ((1, True), (2, False)):
        assert (session.random_inputs(5, seed)[0] == inputs["float"]).all() == same
    assert (session.random_inputs(5)[0] == session.random_inputs(5, seed=0)[0]).all()


def test_sizes_that_random_inputs_can_not_have(tmp_path: Path) -> None:
    fixed = Session(save(tmp_path / "fixed.onnx", PLUS_ONE.replace("batch", "4")))
    assert fixed.random_inputs(4)[0].shape == (4, 3)
    with pytest.raises(InputError, match=r"fixed\.onnx is made for batch size 4, got 1"):
        fixed.random_inputs(1)
    with pytest.raises(InputError, match="the batch size must be at least 1, got 0"):
        fixed.random_inputs(0)
    wide = Session(save(tmp_path / "wide.onnx", PLUS_ONE.replace("3", "width")))
    with pytest.raises(InputError, match=r"has an input 'x' whose sizes are not fixed: \['batch', 'width'\]"):
        wide.random_inputs(1)
    for size in (2**27, 2**62):
        path = save(tmp_path / "huge.onnx", PLUS_ONE.replace("3", str(size)))
        with pytest.raises(
            InputError, match=rf"has an input 'x' of \['batch', {size}\]; smx takes examples of 67108864"
        ):
            Session(path)
    large = Session(save(tmp_path / "large.onnx", PLUS_ONE.replace("3", str(2**20))))
    with pytest.raises(InputError, match=r"1024 examples of .* are more than 268435456 values; take a smaller batch"):
        large.random_inputs(1024)


def test_all_inputs_and_outputs_in_batches(tmp_path: Path) -> None:
    text = HEAD + "(float[4,3] x, float[4,3] z) => (float[4,3] y, float[4,3] w) { y = Add(x, z)  w = Sub(x, z) }"
    session = Session(save(tmp_path / "two.onnx", text))
    x, z = np.random.default_rng(0).random((2, 10, 3)).astype(np.float32)
    total, difference = session.run_all(x, z, batch_size=100)
    np.testing.assert_array_equal(total, x + z)
    np.testing.assert_array_equal(difference, x - z)
    for size in (1, 4):
        with pytest.raises(InputError, match=r"as many examples of each input, got shapes \[\(10, 3\), \(9, 3\)\]"):
            session.run_all(x, z[:9], batch_size=size)
    with pytest.raises(InputError, match="the batch size must be at least 1, got 0"):
        session.run(x, z, batch_size=0)


def recurrent(operator: str, gates: int, batch: str = "batch") -> bytes:
    """Return a recurrent layer of 2 units on 3 features: (time, batch, 3) -> (time, 1, batch, 2) and (1, batch, 2)."""
    text = f"(float[time,{batch},3] x) => (float[time,1,{batch},2] y, float[1,{batch},2] last)"
    model = onnx.parser.parse_model(HEAD + text + f" {{ y, last = {operator} <hidden_size = 2> (x, w, r) }}")
    for name, columns in (("w", 3), ("r", 2)):
        values = np.random.default_rng(0).random((1, gates * 2, columns), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model.SerializeToString()


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_an_empty_batch_never_reaches_a_recurrent_layer(operator: str, gates: int) -> None:
    """ONNX Runtime would abort the process."""
    model = onnx.load_from_string(recurrent(operator, gates))
    graph = model.graph
    turn = onnx.helper.make_node("Transpose", ["z"], ["x"], perm=[1, 0, 2])  # (batch, time, 3), as users export it
    graph.node.insert(0, turn)
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", "time", 3]))
    session = Session(model.SerializeToString())
    for batch_size in (None, 1, 5):
        outputs = session.run_all(np.zeros((0, 7, 3)), batch_size=batch_size)
        assert [(y.shape, y.dtype.name) for y in outputs] == [((7, 1, 0, 2), "float32"), ((1, 0, 2), "float32")]
    with pytest.raises(InputError, match=r"\(batch, time, 3\), got \(2, 0, 3\) \(no axis but the first may be empty\)"):
        session.run(np.zeros((2, 0, 3)))
    with pytest.raises(InputError, match="the model can't be timed without examples"):
        session.bound(np.zeros((0, 7, 3)))
    time_first = Session(recurrent(operator, gates))
    with pytest.raises(InputError, match="needs at least one example: its output 'last' has none"):
        time_first.run(np.zeros((0, 2, 3)))


@pytest.mark.parametrize("batch", ["batch", "4"])
def test_no_examples_give_no_outputs(batch: str, tmp_path: Path) -> None:
    plain = Session(save(tmp_path / "plain.onnx", PLUS_ONE.replace("batch", batch)))
    for batch_size in (None, 3):
        y = plain.run(np.zeros((0, 3)), batch_size=batch_size)
        assert (y.shape, y.dtype.name) == ((0, 3), "float32")
    text = HEAD + f"(float[{batch},3] x, int64[{batch}] i) => (float[{batch},3] y, float[n,1] rows, bool[{batch}] z)"
    text = text.replace("(float", "(float factor, float", 1) + " <int64[2] s = {-1, 1}> {"
    text += " y = Mul(x, factor) rows = Reshape(x, s) k = Cast<to = 9>(i) z = Not(k) }"
    session = Session(save(tmp_path / "m.onnx", text))
    outputs = session.run_all(np.array(2.0), np.zeros((0, 3)), np.zeros(0, np.int64))
    assert [y.shape for y in outputs] == [(0, 3), (0, 1), (0,)]
    assert [y.dtype for y in outputs] == [np.float32, np.float32, np.bool_]
    with pytest.raises(InputError, match=r"expects an input of shape \(.*3\), got \(0, 2\)"):
        session.run(np.array(2.0), np.zeros((0, 2)), np.zeros(0, np.int64))


@pytest.mark.parametrize("batch", ["batch", "4"])
def test_an_output_without_examples_needs_some(batch: str, tmp_path: Path) -> None:
    text = HEAD + f"(float[{batch},3] x) => (float m) {{ m = ReduceSum <keepdims = 0> (x) }}"
    with pytest.raises(InputError, match="needs at least one example: its output 'm' has none"):
        Session(save(tmp_path / "m.onnx", text)).run(np.zeros((0, 3)))
