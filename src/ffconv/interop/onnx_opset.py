"""ONNX graphs rewritten for older operator sets, as the exporter writes opset 18 at the oldest.

Most operators differ between opsets by further types and optional attributes alone. A node that uses neither
is the same in both; a few kinds that moved an attribute to an input are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffconv.errors import InputError, require

# From here on Squeeze, Unsqueeze and ReduceSum have their axes as an input, as the exporter writes them.
OLDEST = 13


def lower_opset(model: Any, opset: int) -> None:
    """Rewrites an ONNX model of opset 18 or later for an older one, in place.

    Args:
        model: ``onnx.ModelProto`` without functions.
        opset: of ONNX's own operators, at least ``OLDEST``.
    Raises:
        InputError: if a node has no counterpart there.
    """
    import onnx

    (used,) = (entry for entry in model.opset_import if not entry.domain)
    if used.version <= opset:
        return
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _MOVED:
            _MOVED[node.op_type](node, constants, opset)
        _require_same(node, used.version, opset)
    used.version = opset
    model.ir_version = min(model.ir_version, onnx.helper.find_min_ir_version_for(list(model.opset_import)))
    _drop_unread(model)


def _reduction(node: Any, constants: dict[str, Any], opset: int) -> None:
    """Axes as an attribute, which they were until opset 18."""
    from onnx import helper, numpy_helper

    if opset >= 18 or len(node.input) < 2:
        return
    axes = node.input.pop()
    require(axes in constants, f"opset={opset}: {node.op_type} with computed axes needs opset 18")
    node.attribute.append(helper.make_attribute("axes", numpy_helper.to_array(constants[axes]).tolist()))


def _split(node: Any, constants: dict[str, Any], opset: int) -> None:
    """Without the number of parts: until opset 18 it is that of the outputs."""
    for attribute in list(node.attribute):
        if attribute.name == "num_outputs" and opset < 18:
            node.attribute.remove(attribute)


def _reshape(node: Any, constants: dict[str, Any], opset: int) -> None:
    """Without the permission to make an axis empty, which no map ever is."""
    for attribute in list(node.attribute):
        if attribute.name == "allowzero" and opset < 14:
            node.attribute.remove(attribute)


_MOVED: dict[str, Callable[[Any, dict[str, Any], int], None]] = {
    "ReduceMean": _reduction,
    "ReduceMax": _reduction,
    "ReduceMin": _reduction,
    "ReduceProd": _reduction,
    "Reshape": _reshape,
    "Split": _split,
}


def _require_same(node: Any, newer: int, older: int) -> None:
    """Drops attributes that say what the older operator does anyway; refuses what it cannot do."""
    from onnx import defs, helper

    try:
        then = defs.get_schema(node.op_type, older, node.domain)
    except defs.SchemaError as error:
        raise InputError(f"opset={older} has no operator {node.op_type}, which this network needs") from error
    now = defs.get_schema(node.op_type, newer, node.domain)
    if then.since_version == now.since_version:
        return
    for attribute in list(node.attribute):
        if attribute.name not in then.attributes:
            usual = now.attributes[attribute.name].default_value
            same = usual.name and helper.get_attribute_value(attribute) == helper.get_attribute_value(usual)
            rule = f"opset={older}: {node.op_type} has no {attribute.name} there, which this network needs"
            require(bool(same), rule)
            node.attribute.remove(attribute)
    while node.input and not node.input[-1]:
        node.input.pop()
    enough = len(node.input) <= then.max_input
    require(enough, f"opset={older}: {node.op_type} has no {len(node.input)} inputs there")


def _drop_unread(model: Any) -> None:
    """Constants that became attributes."""
    read = {name for node in model.graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    for tensor in list(model.graph.initializer):
        if tensor.name not in read:
            model.graph.initializer.remove(tensor)
