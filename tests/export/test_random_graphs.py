"""Random graphs compute the same before and after the passes that move constants."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smx.export.passes import FoldAffine, MergeGroups
from tests.export.graphs import inputs, mixed, net, run

STEPS = {  # what may follow a value of N channels, (batch, N, 4, 4); in braces: source, target, unique number, channels
    "conv": "{t} = Conv({s}, w{i}_{n}_{n}_1_1, c{i}_{n})",
    "wider": "{t} = Conv({s}, w{i}_6_{n}_1_1)",
    "padded": "{t} = Conv <group = 2, pads = [1, 1, 1, 1]> ({s}, w{i}_{n}_{half}_3_3, c{i}_{n})",
    "norm": "{t} = BatchNormalization({s}, g{i}_{n}, b{i}_{n}, m{i}_{n}, var{i}_{n})",
    "mul": "{t} = Mul({s}, s{i}_{n}_1_1)",
    "div": "{t} = Div({s}, s{i}_)",
    "add": "{t} = Add(s{i}_1_{n}_1_1, {s})",
    "sub": "{t} = Sub({s}, s{i}_{n}_1_1)",
    "relu": "{t} = Relu({s})",
    "max": "{t} = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({s})",
    "mean": "{t} = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> ({s})",
    "mean of all": "{t} = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({s})",
    "linear": "{t}a = Transpose <perm = [0, 2, 3, 1]> ({s}) {t}b = MatMul({t}a, w{i}_{n}_{n})"
    " {t}c = Add({t}b, c{i}_{n}) {t} = Transpose <perm = [0, 3, 1, 2]> ({t}c)",
    "concat": "{t} = Concat <axis = 1> ({o}, {s})",
    "sum": "{t} = Add({s}, {o})",
    "mixed": "",
}
HEADS = (
    "{t}a = Flatten({s}) y = Gemm({t}a, w_{flat}_3, c_3)",
    "{t}a = Constant <value_ints = [3, 2]> () {t}b = ReduceMean <keepdims = 0> ({s}, {t}a) y = Gemm({t}b, w_{n}_3)",
    "{t}a = GlobalAveragePool({s}) y = Conv({t}a, w_3_{n}_1_1)",
)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """Draw a network of a few steps, each on one of the last values."""
    text, known = "v0 = Conv(h, w_4_2_1_1, c_4) ", {"v0": 4}
    for i, step in enumerate(draw(st.lists(st.sampled_from(list(STEPS)), min_size=2, max_size=7)), 1):
        source = draw(st.sampled_from(list(known)[-2:]))
        n, target = known[source], f"v{i}"
        other = draw(st.sampled_from([name for name in known if step != "sum" or known[name] == n]))
        if step == "mixed":
            choice = ", ".join(map(str, draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))))
            text += mixed(source, target, choice, ("elu", "sigmoid", "selu", "tanh", "relu"))
        else:
            text += STEPS[step].format(s=source, t=target, o=other, i=i, n=n, half=n // 2)
        known[target] = 6 if step == "wider" else n + known[other] if step == "concat" else n
        text += " "
    source, n = list(known.items())[-1]
    return text + draw(st.sampled_from(HEADS)).format(s=source, t="y", n=n, flat=16 * n)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies())
def test_passes_keep_what_random_networks_compute(body: str) -> None:
    before, after = net(body, "batch,2,4,4"), net(body, "batch,2,4,4")
    FoldAffine()(after)
    MergeGroups()(after)
    expected = run(before, **inputs("batch,2,4,4"))
    atol = 1e-6 * max(1, np.abs(expected).max())  # the operator SELU has its constants in single precision
    np.testing.assert_allclose(run(after, **inputs("batch,2,4,4")), expected, rtol=1e-6, atol=atol)
