"""The compatibility matrix: which row holds for which family, and where it does not, why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from compatibility import compilers, files, precision, tools
from compatibility.families import Family
from ffconv.errors import InputError


@dataclass(frozen=True)
class Limit:
    """Why a row does not hold for a family.

    Args:
        reason: for the table's readers.
        error: what the row's check raises.
        message: pattern of what it says.
    """

    reason: str
    error: type[Exception]
    message: str


@dataclass(frozen=True)
class Row:
    """One thing that is done with networks.

    Args:
        name: in the table.
        check: does it, and fails where it does not hold.
        limits: by family's name, where it does not.
        quick: families whose check takes little time; None stands for all.
    """

    name: str
    check: Callable[[Family], None]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    quick: tuple[str, ...] | None = None


OPERATORS = ("FFC1d", "FFC2d", "FFC3d")
_FEW = (*OPERATORS, "FFC-ResNet", "LaMa, all options")
_EXPORTED_QUICKLY = ("FFC1d", "FFC2d", "LaMa")

_HARD_SIGMOID = Limit(
    "torch has no second derivative of hard sigmoid", RuntimeError, "hardsigmoid_backward is not implemented"
)
_ATTENTION = Limit(
    "torch has no second derivative of its fast attention", RuntimeError, "attention.*is not implemented"
)
_ATTENTION_FORWARD = Limit(
    "torch has no forward derivative of its fast attention",
    NotImplementedError,
    "forward AD with .*attention",
)

_NOT_1D = {
    "FFC1d": Limit("`ffconv.interop.export` takes images and clips", InputError, "must be CxHxW, or CxTxHxW")
}

ROWS = (
    Row("maps of other sizes", tools.other_sizes),
    Row("channels last", tools.channels_last),
    Row("`torch.compile(fullgraph=True)`, inference", compilers.compiled_evaluation, quick=OPERATORS),
    Row("`torch.compile(fullgraph=True)`, training", compilers.compiled_training, quick=()),
    Row(
        "`torch.compile(dynamic=True)`, one graph for all sizes, inference",
        compilers.compiled_once_for_all_sizes,
        quick=(),
    ),
    Row(
        "`torch.compile(dynamic=True)`, one graph for all sizes, training",
        compilers.trained_by_one_graph_for_all_sizes,
        quick=(),
    ),
    Row("`torch.export`", compilers.exported, quick=OPERATORS),
    Row("`torch.export`, dynamic batch", compilers.exported_with_dynamic_batch, quick=()),
    Row("`torch.jit.trace`", compilers.traced, quick=_FEW),
    Row("ONNX, matrix products: onnxruntime, OpenVINO", files.matrix_products, _NOT_1D, _EXPORTED_QUICKLY),
    Row("ONNX, operator DFT: onnxruntime", files.transforms, _NOT_1D, _EXPORTED_QUICKLY),
    Row("ONNX, fused, odd sizes: onnxruntime, OpenVINO", files.fused_at_odd_sizes, _NOT_1D, quick=()),
    Row("ONNX, float16: onnxruntime, OpenVINO", files.weights_in_float16, _NOT_1D, quick=()),
    Row("ONNX, bfloat16 weights: onnxruntime, OpenVINO", files.weights_in_bfloat16, _NOT_1D, quick=()),
    Row("`torch.fx.symbolic_trace`", compilers.symbolically_traced),
    Row("torchvision's feature extractor", compilers.features_extracted),
    Row("`ffconv.fuse`", tools.fused),
    Row("float64", precision.float64),
    Row("autocast to bfloat16", precision.autocast_bfloat16),
    Row("autocast to float16", precision.autocast_float16),
    Row("float16 with `GradScaler`", precision.scaled_gradients),
    Row("`.bfloat16()`", precision.whole_bfloat16),
    Row("`.half()`", precision.whole_float16),
    Row("deterministic algorithms, equal bits", precision.deterministic),
    Row("`state_dict`", tools.state_dict),
    Row("deep copy and pickle", tools.copied),
    Row("meta device", tools.meta_device),
    Row("gradient checkpointing", tools.checkpointed),
    Row("DistributedDataParallel", tools.in_parallel),
    Row(
        "gradient of a gradient",
        tools.gradient_of_gradient,
        {"converted MobileNet": _HARD_SIGMOID, "FFC-I3D + NL": _ATTENTION},
    ),
    Row("`torch.func.grad`", tools.function_of_parameters),
    Row("`torch.func.vmap`", tools.mapped_over_examples),
    Row("`torch.func.vmap` of `grad`, gradients by example", tools.gradients_by_example),
    Row("forward-mode derivative", tools.forward_derivative, {"FFC-I3D + NL": _ATTENTION_FORWARD}),
)
