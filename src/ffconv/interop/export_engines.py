"""Programs that run exported files, each as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ffconv.errors import InputError
from ffconv.interop.export_torch import quiet

Format = Literal["onnx", "torch-export", "torchscript"]
OnnxEngine = Literal["onnxruntime", "openvino"]
Runner = Callable[[Tensor], Tensor]


def open_exported(path: Path, form: Format, engine: OnnxEngine = "onnxruntime") -> Runner:
    """Loads an exported file on the CPU, with as many threads as torch has.

    Args:
        path: the file.
        form: its format.
        engine: what runs an ONNX file.
    Raises:
        InputError: if the engine is not installed, or does not take the file.
    """
    if form == "onnx":
        return _ENGINES[engine](path)
    with quiet():
        if form == "torchscript":
            return torch.jit.load(str(path))
        return torch.export.load(path).module()


def _onnxruntime(path: Path) -> Runner:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "onnxruntime runs the exported file and is not installed: pip install 'ffconv[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception for each of its codes
        raise _refused("onnxruntime", error) from error
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        try:
            (y,) = session.run(None, {name: x.contiguous().numpy()})
        except Exception as error:
            raise _refused("onnxruntime", error) from error
        return torch.from_numpy(y)

    return run


def _openvino(path: Path) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            "openvino was to run the exported file and is not installed: pip install 'ffconv[export]'"
        ) from error
    # Else it computes in half precision where the processor has it.
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise _refused("openvino", error) from error

    def run(x: Tensor) -> Tensor:
        try:
            return torch.from_numpy(compiled(x.contiguous().numpy())[0].copy())
        except RuntimeError as error:
            raise _refused("openvino", error) from error

    return run


def _refused(engine: str, error: Exception) -> InputError:
    # OpenVINO's reason stands behind a trace of its own.
    reason = str(error).rpartition("detailed log:")[2] or type(error).__name__
    return InputError(f"{engine} does not take the exported file: {' '.join(reason.split())[:300]}")


_ENGINES: dict[OnnxEngine, Callable[[Path], Runner]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
