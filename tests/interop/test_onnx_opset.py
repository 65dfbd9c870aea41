"""Graphs rewritten for older operator sets compute the same, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ffconv.errors import InputError
from ffconv.interop.onnx_opset import lower_opset


def graph_of(node: Any, *constants: tuple[str, Any], outputs: int = 1, rank: int = 3) -> Any:
    """A model of opset 18 that is one node on ``x``, a float map (2, 4, 6)."""
    values = [numpy_helper.from_array(np.array(value), name) for name, value in constants]
    results = [
        helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [None] * rank) for i in range(outputs)
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 4, 6))
    graph = helper.make_graph([node], "graph", [given], results, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def computed(model: Any) -> list[Any]:
    x = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    return ReferenceEvaluator(model).run(None, {"x": x})


@pytest.mark.parametrize(
    ("model", "opset"),
    [
        (
            graph_of(
                helper.make_node("ReduceMean", ["x", "axes"], ["y0"], keepdims=0), ("axes", [1, 2]), rank=1
            ),
            17,
        ),
        (graph_of(helper.make_node("Split", ["x"], ["y0", "y1"], axis=1, num_outputs=2), outputs=2), 17),
        (
            graph_of(helper.make_node("Pad", ["x", "p"], ["y0"], mode="reflect"), ("p", [0, 1, 1, 0, 1, 1])),
            17,
        ),
        (graph_of(helper.make_node("Reshape", ["x", "s"], ["y0"], allowzero=1), ("s", [2, -1]), rank=2), 13),
        (graph_of(helper.make_node("Relu", ["x"], ["y0"])), 13),
    ],
    ids=lambda value: value.graph.node[0].op_type if hasattr(value, "graph") else str(value),
)
def test_the_older_graph_is_valid_and_computes_the_same(model, opset: int):
    expected = computed(model)
    lower_opset(model, opset)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    for found, value in zip(computed(model), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_older_runtimes_can_read_the_file():
    model = graph_of(helper.make_node("Relu", ["x"], ["y0"]))
    lower_opset(model, 13)
    assert model.ir_version == 7  # that of ONNX 1.8, which brought opset 13


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (
            helper.make_node("Resize", ["x", "", "", "s"], ["y0"], antialias=1, mode="linear"),
            [("s", [2, 4, 3])],
            "opset=17: Resize has no antialias there",
        ),
        (
            helper.make_node("Pad", ["x", "p", "", "a"], ["y0"]),
            [("p", [1, 1]), ("a", [1])],
            "opset=17: Pad has no 4 inputs there",
        ),
        (
            helper.make_node("BitwiseNot", ["x"], ["y0"]),
            [],
            "opset=17 has no operator BitwiseNot",
        ),
        (
            helper.make_node("ReduceMax", ["x", "computed"], ["y0"]),
            [],
            "opset=17: ReduceMax with computed axes needs opset 18",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(node, constants, message: str):
    with pytest.raises(InputError, match=message):
        lower_opset(graph_of(node, *constants), 17)


def test_a_graph_that_is_old_enough_is_left_alone():
    model = graph_of(helper.make_node("Relu", ["x"], ["y0"]))
    lower_opset(model, 20)
    assert model.opset_import[0].version == 18
