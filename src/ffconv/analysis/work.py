"""What benchmarks time: one step of inference or training of a network or an operator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ffconv.errors import InputError, require
from ffconv.dispatch import FFTBackend, fft_backend
from ffconv.surgery import fuse

Mode = Literal["inference", "training"]
Engine = Literal["eager", "fused", "compile", "fused+compile", "compile+graphs", "fused+compile+graphs"]
Precision = Literal["float32", "float64", "bfloat16", "float16"]
MemoryFormat = Literal["contiguous", "channels_last"]
Inputs = Tensor | tuple[Tensor, ...]

MEMORY_FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Setting:
    """What all subjects of a comparison have in common.

    Args:
        mode: inference, or training: forward, backward from a given gradient of the output and, for
            networks, a step of SGD with momentum; for operators the gradient of the input too.
        dtype: float32 and float64 throughout; bfloat16 and float16 by autocast.
        engine: eager, compile (torch.compile), fused (batch norms folded into the convolutions before them by
            torch.fx; inference only), or both; with graphs, what is compiled is recorded as CUDA graphs.
        fft_backend: Backend of the Fourier transforms of our operators, see
            :func:`ffconv.fft_backend`; the plain transcriptions keep torch.fft.
        memory_format: of network and input; "faster" tries each subject in both.
        device: cpu, cuda or cuda:N.
        batch_size: images a step.
        size: (H, W) of the input.
    Raises:
        InputError: for a number below 1, a device, transform or memory format that is not there, fusion in
            training, or CUDA graphs on another device.
    """

    mode: Mode = "inference"
    dtype: Precision = "float32"
    engine: Engine = "eager"
    device: str = "cpu"
    batch_size: int = 8
    size: tuple[int, int] = (224, 224)
    fft_backend: FFTBackend = "auto"
    memory_format: MemoryFormat | Literal["faster"] = "faster"

    def __post_init__(self) -> None:
        require(self.batch_size > 0, f"batch_size={self.batch_size} must be at least 1")
        require(min(self.size) > 0, f"size={self.size} must be positive")
        require(
            not (self.mode == "training" and "fused" in self.engine),
            f"engine={self.engine} folds norms, which leaves nothing to train: use it with mode inference",
        )
        require(
            "graphs" not in self.engine or self.device.startswith("cuda"),
            f"engine={self.engine} records CUDA graphs, which device={self.device} does not have",
        )
        formats = ("faster", *MEMORY_FORMATS)
        require(
            self.memory_format in formats,
            f"memory_format={self.memory_format!r} must be one of {', '.join(formats)}",
        )
        present = not self.device.startswith("cuda") or torch.cuda.is_available()
        require(present, f"device={self.device}: this machine has no CUDA device")
        try:
            with fft_backend(self.fft_backend):
                pass
        except ValueError as error:
            raise InputError(str(error)) from error

    @property
    def memory_formats(self) -> tuple[MemoryFormat, ...]:
        """Those in which a subject is tried."""
        return tuple(MEMORY_FORMATS) if self.memory_format == "faster" else (self.memory_format,)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What autocast computes in; None without autocast."""
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.dtype)


@dataclass(frozen=True)
class Subject:
    """A network or an operator to be timed.

    Args:
        name: as printed.
        build: makes it, a new one at every call, on the CPU in float32.
        make_input: float32 input or inputs for a batch size and a map size.
        is_operator: whether the input needs a gradient and nothing is updated.
    """

    name: str
    build: Callable[[], nn.Module]
    make_input: Callable[[int, tuple[int, int]], Inputs]
    is_operator: bool = False


class Work:
    """A subject set up under a setting; a call is one step.

    Args:
        subject: built anew, with the same random weights and input every time.
        setting: how it runs.
        memory_format: a key of ``MEMORY_FORMATS``.
    """

    def __init__(self, subject: Subject, setting: Setting, memory_format: MemoryFormat) -> None:
        self.name = subject.name
        self.setting = setting
        self.memory_format = memory_format
        self.device = torch.device(setting.device)
        kept = torch.float64 if setting.dtype == "float64" else torch.float32
        torch.manual_seed(0)
        training = setting.mode == "training"
        model = subject.build().train(training)
        if "fused" in setting.engine:
            model = fuse(model)
        inputs = subject.make_input(setting.batch_size, setting.size)
        layout = MEMORY_FORMATS[memory_format]
        if layout is torch.channels_last and any(tensor.dim() == 5 for tensor in tree_leaves(inputs)):
            layout = torch.channels_last_3d
        self._model = model.to(device=self.device, dtype=kept).to(memory_format=layout)
        self._inputs: Inputs = tree_map(
            lambda tensor: tensor.to(self.device, kept, memory_format=layout), inputs
        )
        if training and subject.is_operator:
            self._inputs = tree_map(lambda tensor: tensor.requires_grad_(), self._inputs)
        self._optimizer = (
            torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
            if training and not subject.is_operator
            else None
        )
        self._run = self._compiled() if "compile" in setting.engine else self._model
        self._gradients: list[Tensor] | None = None

    def _compiled(self) -> Any:
        return torch.compile(self._model, mode="reduce-overhead" if "graphs" in self.setting.engine else None)

    def __call__(self) -> None:
        """One step, on a CUDA device only started."""
        with fft_backend(self.setting.fft_backend):
            self._step()

    def _step(self) -> None:
        if self.setting.mode == "inference":
            with torch.inference_mode():
                self._forward()
            return
        outputs = [tensor for tensor in tree_leaves(self._forward()) if tensor.requires_grad]
        if self._gradients is None:
            self._gradients = [torch.randn_like(output) for output in outputs]
        torch.autograd.backward(outputs, self._gradients)
        if self._optimizer is not None:
            self._optimizer.step()
        for tensor in (*self._model.parameters(), *tree_leaves(self._inputs)):
            tensor.grad = None

    def _forward(self) -> Any:
        low = self.setting.autocast_dtype
        with nullcontext() if low is None else torch.autocast(self.device.type, low):
            return self._run(self._inputs)

    @property
    def resident_bytes(self) -> int:
        """Bytes of parameters, buffers, inputs and optimizer state, which stay between steps."""
        tensors = [*self._model.parameters(), *self._model.buffers(), *tree_leaves(self._inputs)]
        if self._optimizer is not None:
            tensors += [value for value in tree_leaves(self._optimizer.state) if isinstance(value, Tensor)]
        return sum(tensor.nbytes for tensor in tensors)
