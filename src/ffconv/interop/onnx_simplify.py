"""An exporter's ONNX graph made small: constants computed, norms folded, what nobody reads dropped.

Deviation from onnxscript's own optimizer, which ``torch.onnx.export`` runs: without its rule that looks for
two Slices which are one Split. It compares every Slice with every other, which takes longer than all the rest
in a network of many FFCs, and never fires there.
"""

from __future__ import annotations

from typing import Any

#: Constants uncover patterns, and patterns constants.
_ROUNDS = 2


def simplify(model: Any) -> None:
    """Makes a graph small, in place.

    Args:
        model: ``onnx_ir.Model`` as ``torch.onnx.export(..., optimize=False)`` holds it.
    """
    from onnx_ir import passes
    from onnx_ir.passes import common
    from onnxscript import optimizer, rewriter

    rules = _rules()
    optimizer.inline(model)
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        rewriter.rewrite(model, rules)  # drops what is no longer read, too
    passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def _rules() -> list[Any]:
    """Of onnxscript's default rules those that concern our operators."""
    from onnxscript.rewriter.rules import common

    return [
        *common.mul_by_1_rule.commute(),
        *common.add_0_rule.commute(),
        common.sub_0_rule,
        common.div_by_1_rule,
        common.two_reshapes_matmul_reshape_rule,
        common.one_reshape_matmul_reshape_rule,
        common.cast_constant_of_shape_rule,
        common.cast_constant_of_shape_without_value_rule,
        common.collapse_slice_rule,
        common.collapse_slice2_rule,
        common.materialize_reshape_shape_rule,
        common.min_max_rule,
        common.max_min_rule,
        common.successive_relu_rule,
        common.successive_relu_clip_rule,
        common.cast_cast_rule,
        common.no_op_cast_rule,
        common.no_op_expand_rule,
        common.reshape_reshape_rule,
        common.no_op_transpose_rule,
        common.transpose_transpose_rule,
        common.unsqueeze_unsqueeze_rule,
        common.squeeze_reshape_1d_rule,
        common.fuse_pad_into_conv_rule,
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
        common.remove_optional_bias_from_conv_rule,
        common.remove_optional_bias_from_conv_transpose_rule,
        common.remove_optional_bias_from_gemm_rule,
    ]
