"""Networks written as programs of torch's own, which load without this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ffconv.errors import InputError

METADATA = "ffconv.json"
_LOGGERS = ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")


def capture(
    network: nn.Module, example: Tensor, axes: Mapping[int, str], *, multiple: int = 1
) -> ExportedProgram:
    """The network as a graph of torch's operators.

    Args:
        network: in evaluation mode.
        example: an input of its type, with at least 2 entries along the axes left open.
        axes: numbers and names of the axes left open.
        multiple: what open heights and widths are multiples of.
    Raises:
        InputError: if the network cannot be traced, with torch's reason.
    """
    shapes = {number: _open_axis(name, multiple) for number, name in axes.items()}
    with torch.no_grad(), quiet(), said_in_one_line(network):
        return torch.export.export(
            network,
            (example,),
            dynamic_shapes=(shapes,) if shapes else None,
            # What pooling and convolution assume of a size becomes a check of the file instead of an error.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _open_axis(name: str, multiple: int) -> Any:
    if name == "batch":
        return Dim("batch", min=1)
    if multiple > 1 and name in ("height", "width"):
        return multiple * Dim(f"{name}_{multiple}", min=2)
    return Dim.DYNAMIC  # from the smallest size on that the network takes


def write_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Writes a captured network as torch.export's file."""
    with quiet():
        torch.export.save(program, path, extra_files={METADATA: metadata})


def write_trace(network: nn.Module, example: Tensor, path: Path, metadata: str) -> None:
    """Traces the network and writes it as TorchScript.

    Raises:
        InputError: if it cannot be traced, with torch's reason.
    """
    with torch.no_grad(), quiet(), said_in_one_line(network):
        traced = torch.jit.trace(network, example, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={METADATA: metadata})


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor log lines of the exporters: they speak of the exporters, not of the network."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def said_in_one_line(network: nn.Module) -> Iterator[None]:
    """Whatever an exporter raises as an `InputError` with the innermost reason."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # exporters raise what the traced code and their own raise
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        line = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
        raise InputError(f"{type(network).__name__} cannot be exported: {line.strip()}") from error
