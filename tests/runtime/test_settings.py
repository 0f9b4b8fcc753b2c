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


LEVEL, MODE = ort.GraphOptimizationLevel, ort.ExecutionMode


@pytest.mark.parametrize(
    ("values", "option", "expected"),
    [
        ({"threads": 3}, "intra_op_num_threads", 3), ({"threads": 3}, "inter_op_num_threads", 3),
        ({"optimization": "disabled"}, "graph_optimization_level", LEVEL.ORT_DISABLE_ALL),
        ({"optimization": "basic"}, "graph_optimization_level", LEVEL.ORT_ENABLE_BASIC),
        ({"optimization": "extended"}, "graph_optimization_level", LEVEL.ORT_ENABLE_EXTENDED),
        ({"optimization": "all"}, "graph_optimization_level", LEVEL.ORT_ENABLE_ALL),
        ({"execution_mode": "sequential"}, "execution_mode", MODE.ORT_SEQUENTIAL),
        ({"execution_mode": "parallel"}, "execution_mode", MODE.ORT_PARALLEL),
    ],
)  # fmt: skip
def test_each_setting_is_an_option(values: dict[str, Any], option: str, expected: Any) -> None:
    assert getattr(Settings(**values).to_options(), option) == expected


def test_onnx_runtime_prints_no_warnings_into_tables() -> None:
    options = Settings(spinning=False).to_options()
    assert options.log_severity_level == 4
    assert [options.get_session_config_entry(key) for key in SPINNING] == ["0", "0"]
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
