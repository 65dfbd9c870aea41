"""Networks as files that run without this package: ONNX, torch.export, TorchScript.

Every file is run against its network before it gets its name.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ffconv.errors import InputError, require
from ffconv.interop import onnx_graph
from ffconv.interop.export_engines import Format, OnnxEngine, Runner, open_exported
from ffconv.interop.export_input import DynamicAxis, NetworkInput
from ffconv.interop.export_torch import capture, write_program, write_trace
from ffconv.dispatch import fft_backend
from ffconv.surgery import fuse

ExportFFT = Literal["torch", "dft_matmul"]
Precision = Literal["float32", "float16", "bfloat16"]

#: Says, at level INFO, what is being done: an engine can take minutes over a file.
logger = logging.getLogger(__name__)

#: Largest difference allowed, as a share of the largest output, by the precision of the weights.
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class ExportConfig:
    """How a network is written.

    Args:
        to: format of the file.
        dtype: of the weights. float16: the network computes in it, and takes and gives it; its Fourier Units
            keep float32. bfloat16: likewise in torch's formats; an ONNX file stores its weights in it and
            computes in float32.
        fuse: fold norms first, see :func:`ffconv.fuse`.
        dynamic: axes whose size is left open.
        opset: of an ONNX file.
        fft_backend: Standard FFT operators ("torch") or products of real matrices ("dft_matmul").
    Raises:
        InputError: for a combination that does not exist.
    """

    to: Format = "onnx"
    dtype: Precision = "float32"
    fuse: bool = False
    dynamic: tuple[DynamicAxis, ...] = ()
    opset: int = 18
    fft_backend: ExportFFT = "dft_matmul"

    def __post_init__(self) -> None:
        for name, known in (("to", Format), ("dtype", Precision), ("fft_backend", ExportFFT)):
            value, names = getattr(self, name), get_args(known)
            require(value in names, f"{name}={value!r} must be one of {', '.join(names)}")
        fixed = self.to != "torchscript" or not {"size", "time"} & set(self.dynamic)
        require(fixed, "a trace keeps the size it was made with: dynamic=batch alone goes with torchscript")

    @property
    def input_dtype(self) -> torch.dtype:
        """What the file takes and gives."""
        if self.to == "onnx" and self.dtype == "bfloat16":
            return torch.float32
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Difference:
    """Of one input, what the file gives from what the network gives.

    Args:
        input: which, and of what size.
        absolute: the largest.
        relative: the same as a share of the network's largest output.
    """

    input: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Args:
        path: the file.
        config: how.
        operators: how often each operator occurs in an ONNX file.
        differences: one for each input of the check.
    """

    path: Path
    config: ExportConfig
    operators: dict[str, int] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Check:
    """How the file is compared with the network.

    Args:
        inputs: (1, C, ...) float32 of the exported size, by a name, beside random ones.
        engine: what runs an ONNX file.
        tolerance: see :data:`TOLERANCE`, which is the default.
    """

    inputs: tuple[tuple[str, Tensor], ...] = ()
    engine: OnnxEngine = "onnxruntime"
    tolerance: float | None = None


def export(
    network: nn.Module,
    path: str | Path,
    given: NetworkInput,
    config: ExportConfig | None = None,
    *,
    check: Check | None = Check(),
) -> ExportReport:
    """Writes a network to a file that needs neither this package nor, as ONNX, torch.

    The file is written under a temporary name, run against the network, and then renamed: where the name
    stands, the check has passed.

    Args:
        network: takes one tensor and gives one; left alone.
        path: file to write.
        given: the network's input.
        config: how it is written.
        check: what it is checked with; None does not run it.
    Raises:
        InputError: if the network refuses the input or cannot be exported, if a package is missing, or the
            file gives something else than the network.
    Example:
        >>> given = NetworkInput("classification", (3, 64, 64))
        >>> report = export(network, "net.onnx", given)  # doctest: +SKIP
        >>> report.differences[0].relative < 1e-4  # doctest: +SKIP
        True
    """
    path, config = Path(path), config or ExportConfig()
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    axes = given.dynamic_axes(config.dynamic)
    if config.to == "onnx":
        onnx_graph.require_packages()
        onnx_graph.require_opset(config.opset, has_dft=config.fft_backend == "torch")
    require(path.parent.is_dir(), f"cannot write {path}: there is no folder {path.parent}")
    require(path.is_file() or not path.exists(), f"cannot write {path}: it is no ordinary file")
    expected = _run_network(network, given.example(config.dynamic))
    require(isinstance(expected, Tensor), f"{type(network).__name__} gives no single tensor")
    temporary = path.parent / f".{path.name}.tmp"
    try:
        logger.info("writing %s", path)
        operators = _write(network, temporary, given, config, axes)
        differences = () if check is None else _checked(network, temporary, given, config, check)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return ExportReport(path, config, operators, differences)


def _write(
    network: nn.Module, path: Path, given: NetworkInput, config: ExportConfig, axes: dict[int, str]
) -> dict[str, int]:
    """Writes the file; returns the operators of an ONNX graph."""
    written = (fuse(network) if config.fuse else copy.deepcopy(network)).to(config.input_dtype)
    example = given.example(config.dynamic).to(config.input_dtype)
    metadata = given.metadata()
    with fft_backend(config.fft_backend):
        if config.to == "torchscript":
            write_trace(written, example, path, json.dumps(metadata))
            return {}
        program = capture(written, example, axes, multiple=given.multiple)
        if config.to == "torch-export":
            write_program(program, path, json.dumps(metadata))
            return {}
        names = onnx_graph.Names(given.name, given.output_name, axes, given.multiple)
        model = onnx_graph.onnx_model(program, network, names, config.opset)
    if config.dtype == "bfloat16":
        # As in torch's formats, what a network of that type keeps in float32 stays.
        low = copy.deepcopy(written).to(torch.bfloat16).state_dict()
        names = {name for name, tensor in low.items() if tensor.dtype == torch.bfloat16}
        onnx_graph.store_in_bfloat16(model, names)
    onnx_graph.save_model(model, path, metadata)
    return dict(onnx_graph.operators(model).most_common())


def _checked(
    network: nn.Module, path: Path, given: NetworkInput, config: ExportConfig, check: Check
) -> tuple[Difference, ...]:
    engine = check.engine if config.to == "onnx" else "torch"
    logger.info("loading it in %s", engine)
    runner = open_exported(path, config.to, check.engine)
    random = [given.example(config.dynamic), *given.other_examples(config.dynamic)]
    inputs = [(f"random {_size(x)}", x) for x in random]
    inputs += [(f"{name} {_size(x)}", x) for name, x in check.inputs]
    differences = tuple(_difference(network, runner, config, named) for named in inputs)
    tolerance = TOLERANCE[config.dtype] if check.tolerance is None else check.tolerance
    for found in differences:
        # Written so that a difference that is no number fails.
        require(
            found.relative <= tolerance,
            f"the exported file is wrong and was not kept: with {found.input} it differs from the network by"
            f" {found.absolute:.3g}, {found.relative:.3g} of its largest output (allowed: {tolerance:.3g})",
        )
    return differences


def _difference(
    network: nn.Module, runner: Runner, config: ExportConfig, named: tuple[str, Tensor]
) -> Difference:
    name, x = named
    logger.info("running network and file with %s", name)
    expected = _run_network(network, x)
    with torch.no_grad():
        found = runner(x.to(config.input_dtype)).float()
    same = found.shape == expected.shape
    require(same, f"with {name} the exported file gives {_size(found)}, the network {_size(expected)}")
    absolute = (found - expected).abs().max().item()
    return Difference(name, absolute, absolute / max(expected.abs().max().item(), 1e-30))


def _run_network(network: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            return network(x)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{type(network).__name__} takes no input of {_size(x)}: {reason}") from error


def _size(x: Sequence[int] | Tensor) -> str:
    return "x".join(map(str, x.shape if isinstance(x, Tensor) else x))
