"""Networks written as ONNX graphs of standard operators."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram

from ffconv.errors import InputError, require
from ffconv.interop.export_torch import quiet, said_in_one_line
from ffconv.interop.onnx_opset import OLDEST, lower_opset
from ffconv.interop.onnx_simplify import simplify

NEWEST = 23
_OLDEST_OF_EXPORTER = 18
_FIRST_WITH_DFT = 17


class Names(NamedTuple):
    """What an ONNX file calls things.

    Args:
        input: the input.
        output: the output.
        axes: the input's axes of open size, by number.
        multiple: what open heights and widths are multiples of.
    """

    input: str
    output: str
    axes: Mapping[int, str]
    multiple: int = 1


def require_opset(opset: int, *, has_dft: bool) -> None:
    """Refuses operator sets the network cannot be written in.

    Args:
        opset: of ONNX's own operators.
        has_dft: whether Fourier transforms are operators.
    Raises:
        InputError: with the opsets that will do.
    """
    oldest = _FIRST_WITH_DFT if has_dft else OLDEST
    advice = f"; fft_backend dft_matmul needs no such operator and takes {OLDEST}" if has_dft else ""
    why = " (the operator DFT is of opset 17)" if has_dft else ""
    require(oldest <= opset <= NEWEST, f"opset={opset} must lie in {oldest} to {NEWEST}{why}{advice}")


def require_packages() -> None:
    """Refuses to go on without the packages that write ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            "ONNX files need the packages onnx and onnxscript: pip install 'ffconv[export]'"
        ) from error


def onnx_model(program: ExportedProgram, network: torch.nn.Module, names: Names, opset: int) -> Any:
    """An ``onnx.ModelProto`` of a captured network.

    Args:
        program: the network, captured.
        network: itself, for messages.
        names: of input, output and open axes.
        opset: of ONNX's own operators.
    Raises:
        InputError: if an operator has no counterpart in ONNX, or in the opset.
    """
    with torch.no_grad(), quiet(), said_in_one_line(network):
        written = torch.onnx.export(
            program,
            input_names=[names.input],
            output_names=[names.output],
            opset_version=max(opset, _OLDEST_OF_EXPORTER),
            custom_translation_table={torch.ops.aten.remainder.Scalar: _remainder},
            verbose=False,
            optimize=False,
        )
        if written is None:
            raise InputError(f"{type(network).__name__} cannot be exported: the exporter gave nothing")
        simplify(written.model)
    model = written.model_proto
    _name_axes(model, names)
    lower_opset(model, opset)
    return model


def save_model(model: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes an ONNX model with all its weights into one file.

    Raises:
        InputError: if it is larger than the format's 2 GiB.
    """
    import onnx

    model.producer_name, model.producer_version = "ffconv", _version()
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    try:
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
    except ValueError as error:  # protobuf's bound
        raise InputError(f"{path}: the network is larger than the 2 GiB of an ONNX file") from error


def store_in_bfloat16(model: Any, names: Collection[str]) -> None:
    """Stores these weights in bfloat16, in place; the graph turns them to float32 where it reads them.

    Args:
        model: ``onnx.ModelProto`` in float32.
        names: of weights; those of one axis, norms and biases, stay in float32.
    """
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in names or len(tensor.dims) < 2:
            continue
        low = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        stored = numpy_helper.from_array(low, f"{tensor.name}_bfloat16")
        casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(stored)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def operators(model: Any) -> Counter[str]:
    """How often each operator occurs in an ONNX model, those of other domains with the domain's name.

    Args:
        model: ``onnx.ModelProto``.
    """
    found: Counter[str] = Counter()
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            found[f"{node.domain}.{node.op_type}".lstrip(".")] += 1
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def _remainder(self: Any, other: Any) -> Any:
    """The remainder of whole numbers by a size that is not known, which the exporter lacks."""
    from onnxscript import opset18 as op

    divisor: Any = op.CastLike(other, self)
    return op.Mod(self, divisor)


def _name_axes(model: Any, names: Names) -> None:
    """Calls open sizes what they are, where the exporter has numbered symbols."""
    symbols = {}
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for number, name in names.axes.items():
        symbol = re.search(r"[A-Za-z_]\w*", dims[number].dim_param)
        if symbol is not None:
            scaled = names.multiple > 1 and "*" in dims[number].dim_param
            symbols[symbol[0]] = f"{name}_{names.multiple}" if scaled else name
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(
                    r"[A-Za-z_]\w*", lambda found: symbols.get(found[0], found[0]), dim.dim_param
                )


def _version() -> str:
    from importlib.metadata import version

    return version("ffconv")
