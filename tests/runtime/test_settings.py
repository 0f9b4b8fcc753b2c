from __future__ import annotations

from typing import Any

import onnxruntime as ort
import pytest

from smx.errors import InputError
from smx.runtime.settings import Settings

SPINNING = [f"session.{threads}.allow_spinning" for threads in ("intra_op", "inter_op")]


def test_the_defaults_are_onnx_runtimes() -> None:
    options, plain = Settings().to_options(), ort.SessionOptions()
    for name in ("intra_op_num_threads", "inter_op_num_threads", "execution_mode", "graph_optimization_level"):
        assert getattr(options, name) == getattr(plain, name), name
    assert [options.get_session_config_entry(key) for key in SPINNING] == ["1", "1"]


def test_threads_are_for_one_operator_and_for_several() -> None:
    options = Settings(threads=3).to_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 3)


def test_spinning() -> None:
    options = Settings(spinning=False).to_options()
    assert [options.get_session_config_entry(key) for key in SPINNING] == ["0", "0"]


@pytest.mark.parametrize("name", ["disabled", "basic", "extended", "all"])
def test_optimization(name: str) -> None:
    suffix = {"disabled": "DISABLE_ALL"}.get(name, f"ENABLE_{name.upper()}")
    expected = getattr(ort.GraphOptimizationLevel, f"ORT_{suffix}")
    assert Settings(optimization=name).to_options().graph_optimization_level == expected


@pytest.mark.parametrize("name", ["sequential", "parallel"])
def test_execution_mode(name: str) -> None:
    expected = getattr(ort.ExecutionMode, f"ORT_{name.upper()}")
    assert Settings(execution_mode=name).to_options().execution_mode == expected


def test_onnx_runtime_prints_no_warnings_into_tables() -> None:
    assert Settings().to_options().log_severity_level == 4
    assert Settings().to_options() is not Settings().to_options()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": -1}, "threads must be at least 1, got -1"),
        ({"threads": 1.5}, r"threads must be at least 1, got 1\.5"),
        ({"threads": "2"}, "threads must be at least 1, got 2"),
        ({"spinning": "no"}, "spinning must be true or false, got no"),
        ({"execution_mode": "both"}, "unknown execution mode 'both'; known are sequential, parallel"),
        ({"optimization": "most"}, "unknown optimization 'most'; known are disabled, basic, extended, all"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        Settings(**values)


def test_in_words() -> None:
    assert Settings().describe() == "all threads, spinning, sequential, optimisation all"
    assert Settings(threads=1).describe() == "1 thread, spinning, sequential, optimisation all"
    assert Settings(threads=2, spinning=False, execution_mode="parallel", optimization="basic").describe() == (
        "2 threads, not spinning, parallel, optimisation basic"
    )
