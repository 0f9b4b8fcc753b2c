from __future__ import annotations

from smx.runtime.graph import NodeInfo
from smx.runtime.profile.origins import origins


def node(name: str, operator: str, inputs: str, outputs: str, domain: str = "") -> NodeInfo:
    """Make a node; its values are words."""
    return NodeInfo(
        name=name, operator=operator, domain=domain, inputs=tuple(inputs.split()), outputs=tuple(outputs.split())
    )


def traced(file: list[NodeInfo], optimised: list[NodeInfo]) -> list[tuple[list[str], str | None]]:
    """Return for each optimised node what it covers, and its home, by names."""
    return [
        ([file[i].name for i in origin.covers], None if origin.home is None else file[origin.home].name)
        for origin in origins(file, optimised)
    ]


def test_a_chain_that_became_one_node() -> None:
    file = [
        node("l1/Gemm", "Gemm", "x w b", "z"),
        node("l1/act/Relu", "Relu", "z", "h"),
        node("l2/Gemm", "Gemm", "h w2 b2", "y"),
    ]
    optimised = [
        node("fused l1/Gemm", "FusedGemm", "x w b", "h", "com.microsoft"),
        node("l2/Gemm", "Gemm", "h w2 b2", "y"),
    ]
    assert traced(file, optimised) == [(["l1/Gemm", "l1/act/Relu"], "l1/Gemm"), (["l2/Gemm"], "l2/Gemm")]


def test_what_is_folded_or_computed_once_belongs_to_nobody() -> None:
    file = [
        node("a/Add", "Add", "w w", "w2"),  # of constants
        node("b/Relu", "Relu", "x", "r"),
        node("c/Relu", "Relu", "x", "r2"),  # the same again
        node("d/Sum", "Sum", "r r2 w2", "y"),
    ]
    optimised = [node("b/Relu", "Relu", "x", "r"), node("d/Sum", "Sum", "r r w2", "y")]
    assert traced(file, optimised) == [(["b/Relu"], "b/Relu"), (["d/Sum"], "d/Sum")]


def test_constants_that_go_in_are_where_a_fused_node_begins() -> None:
    file = [
        node("w_Dequantize", "DequantizeLinear", "wq s", "w"),
        node("a/act_Dequantize", "DequantizeLinear", "xq s", "x"),
        node("a/Gemm", "Gemm", "x w", "y"),
    ]
    optimised = [node("a/Gemm", "QGemm", "xq s wq s", "y", "com.microsoft")]
    assert traced(file, optimised) == [(["w_Dequantize", "a/act_Dequantize", "a/Gemm"], "a/Gemm")]


def test_what_was_added_belongs_to_its_neighbour() -> None:
    file = [node("a/LeakyRelu", "LeakyRelu", "x", "h"), node("b/Gemm", "Gemm", "h w", "y")]
    optimised = [
        node("", "Less", "x zero", "below"),
        node("", "Mul", "x alpha", "scaled"),
        node("", "Where", "below scaled x", "h"),
        node("Memcpy", "MemcpyToHost", "h", "h_host"),
        node("b/Gemm", "Gemm", "h_host w", "y_host"),
        node("Memcpy_1", "MemcpyFromHost", "y_host", "y_device"),
    ]
    leaky, gemm = "a/LeakyRelu", "b/Gemm"
    expected = [([], leaky), ([], leaky), ([leaky], leaky), ([], gemm), ([gemm], gemm), ([], gemm)]
    assert traced(file, optimised) == expected


def test_converted_values_keep_their_node() -> None:
    file = [
        node("cast", "Cast", "x", "x16"),
        node("a/Gemm", "Gemm", "x16 w", "z"),
        node("a/Relu", "Relu", "z", "h"),
        node("out", "Cast", "h", "y"),
    ]
    prefix = "InsertedPrecisionFreeCast_"
    optimised = [
        node("a/Gemm", "Gemm", "x FusedBack_w", f"{prefix}z"),
        node("", "Max", f"{prefix}z zero", f"{prefix}h"),
        node("back", "Cast", f"{prefix}h", "h"),
        node("out", "Cast", "h", "y"),
    ]
    expected = [(["cast", "a/Gemm"], "a/Gemm"), (["a/Relu"], "a/Relu"), ([], "out"), (["out"], "out")]
    assert traced(file, optimised) == expected


def test_blocks_of_channels() -> None:
    file = [
        node("a/Conv", "Conv", "x w", "a"),
        node("b/Conv", "Conv", "a w2", "b"),
        node("b/Add", "Add", "b a", "sum"),
        node("b/Relu", "Relu", "sum", "h"),
        node("c/Pool", "AveragePool", "h", "pooled"),
        node("d/Flatten", "Flatten", "pooled", "y"),
    ]
    blocked = "com.microsoft.nchwc"
    optimised = [
        node("a_nchwc", "Conv", "x reorder", "reorder_token_0", blocked),
        node("b_nchwc", "Conv", "reorder_token_0 reorder_token_1  reorder_token_0", "reorder_token_2", blocked),
        node("pooled_nchwc", "AveragePool", "reorder_token_2", "reorder_token_3", blocked),
        node("ReorderOutput", "ReorderOutput", "reorder_token_3", "pooled", blocked),
        node("d/Flatten", "Flatten", "pooled", "y"),
    ]
    assert traced(file, optimised) == [
        (["a/Conv"], "a/Conv"),
        (["b/Conv", "b/Add", "b/Relu"], "b/Conv"),
        (["c/Pool"], "c/Pool"),
        ([], "d/Flatten"),
        (["d/Flatten"], "d/Flatten"),
    ]


def test_a_sum_went_into_one_of_two_blocked_nodes() -> None:
    file = [
        node("p/Conv", "Conv", "x w", "p"),
        node("q/Conv", "Conv", "x v", "q"),
        node("r/Add", "Add", "p q", "sum"),
        node("r/Relu", "Relu", "sum", "y"),
    ]
    optimised = [
        node("p_nchwc", "Conv", "x w_blocked", "token_0"),
        node("q_nchwc", "Conv", "x v_blocked token_0", "token_1"),
        node("ReorderOutput", "ReorderOutput", "token_1", "y"),
    ]
    q = ["q/Conv", "r/Add", "r/Relu"]
    assert traced(file, optimised) == [(["p/Conv"], "p/Conv"), (q, "q/Conv"), ([], "q/Conv")]


def test_a_constant_that_several_share_leads_nowhere() -> None:
    file = [
        node("a/Clip", "Clip", "x zero", "c"),
        node("b/Exp", "Exp", "c", "e"),
        node("c/Clip", "Clip", "e zero", "y"),
    ]
    optimised = [*file[:2], node("cast", "Cast", "e", "e32"), node("c/Clip", "Clip", "e32 zero", "y")]
    expected = [(["a/Clip"], "a/Clip"), (["b/Exp"], "b/Exp"), ([], "c/Clip"), (["c/Clip"], "c/Clip")]
    assert traced(file, optimised) == expected


def test_the_home_is_the_node_with_the_same_operator() -> None:
    file = [
        node("a/Transpose", "Transpose", "x", "t"),
        node("b/Relu", "Relu", "t", "r"),
        node("c/Transpose", "Transpose", "r", "y"),
    ]
    assert traced(file, [node("new", "Relu", "x", "y")]) == [(["a/Transpose", "b/Relu", "c/Transpose"], "b/Relu")]


def test_by_name_alone() -> None:
    file = [node("a/Relu", "Relu", "x", "r"), node("", "Exp", "r", "e"), node("twice", "Exp", "e", "f")]
    file.append(node("twice", "Exp", "f", "y"))
    names = [("a/Relu", "Relu"), ("a/Relu", "Clip"), ("", "Exp"), ("twice", "Exp"), ("e_nchwc", "Exp")]
    names.append(("Memcpy", "MemcpyToHost"))
    optimised = [NodeInfo(name=name, operator=operator) for name, operator in names]
    assert traced(file, optimised) == [(["a/Relu"], "a/Relu"), *[([], None)] * 5]
