"""The table of implementations: the only place that chooses.

Each operator has rows, fastest first. A row's ``supports`` returns None, or the reason why it cannot run a call;
the first row that supports a call runs it. The last row of each operator is plain torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ffconv import functional
from ffconv.backends import dft_matmul
from ffconv.backends.cpu import kernels
from ffconv.backends.cpu import layers as cpu_layers
from ffconv.dispatch.decompose import is_plain_tensor
from ffconv.dispatch.fft_backend import current_fft_backend
from ffconv.functional.ffc import has_onednn_fault
from ffconv.functional.fft import column_weights
from ffconv.functional.geometry import ConvGeometry, encode_geometry


class FFTCall(NamedTuple):
    """A forward transform of x, or with ``width`` an inverse one. See :mod:`ffconv.functional.fft`."""

    x: Tensor
    axes: Sequence[int]
    width: int | None
    backend: str  # the user's choice
    inner: float  # factor of the columns between kx = 0 and W / 2

    @property
    def sizes(self) -> list[int]:
        """Sizes of the map along the transformed axes."""
        *others, last = [self.x.shape[axis] for axis in self.axes]
        return [*others, last if self.width is None else self.width]

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return self.x.shape[1] // (1 if self.width is None else 2)


class SpectralCall(NamedTuple):
    """A Spectral Transform or a Fourier Unit, by the arguments of ``functional.spectral_transform``."""

    x: Tensor
    tensors: list[Tensor]
    eps: list[float]
    batch_stats: list[bool]
    geometry: ConvGeometry | None = None  # of the pooling before it

    def pooled(self) -> Tensor:
        """Return the map that is transformed."""
        return self.x if self.geometry is None else functional.aligned_avg_pool(self.x, self.geometry)


class FFCCall(NamedTuple):
    """A whole FFC of images without groups, by the arguments of ``functional.ffc``."""

    x: Tensor
    weights: tuple[Tensor | None, Tensor | None, Tensor | None]
    bias: Tensor | None
    tensors: list[Tensor]
    eps: list[float]
    batch_stats: list[bool]
    geometry: ConvGeometry
    size: tuple[int, ...]  # of the result
    residual: Tensor | None = None
    relu: bool = False
    packed: Tensor | None = None


class Implementation(NamedTuple):
    """One row of the table.

    Args:
        name: Of the backend.
        supports: Returns None, or the reason why the backend cannot run a call.
        run: Runs a call and returns its result; a call that trains also returns the statistics of its norms. None
            where the parts of a module run one by one.
        by_name_only: Choose the row only where the user names its backend.
    """

    name: str
    supports: Callable[[Any], str | None]
    run: Callable[[Any], Any] | None
    by_name_only: bool = False


def choose(operator: str, call: Any, backend: str | None = None) -> Implementation:
    """Return the first implementation that supports a call.

    Args:
        operator: A key of ``TABLE``.
        call: The operator's call.
        backend: The user's choice, by default the one in force.
    """
    backend = backend or current_fft_backend()
    return next(row for row in TABLE[operator] if reason_against(row, call, backend) is None)


def reason_against(row: Implementation, call: Any, backend: str) -> str | None:
    """Return None if a row may run a call, or the reason why it may not."""
    if backend != row.name and row.by_name_only:
        return f'it runs only under fft_backend("{row.name}")'
    if backend not in ("auto", row.name) and row.name != "torch":
        return f'fft_backend("{backend}") is set'
    return row.supports(call)


# Plain torch


def _always(call: Any) -> None:
    return None


def _torch_fft(call: FFTCall) -> Tensor:
    if call.width is None:
        return _weigh_columns(functional.rfftn(call.x, call.axes), call, call.x.shape[call.axes[-1]])
    return functional.irfftn(_weigh_columns(call.x, call, call.width), call.axes, call.width)


def _weigh_columns(spectrum: Tensor, call: FFTCall, width: int) -> Tensor:
    if call.inner == 1:
        return spectrum
    return spectrum * column_weights(call.inner, width, spectrum, call.axes[-1])


# Matrix products


def _dft_matmul_supports(call: FFTCall) -> str | None:
    if call.backend == "dft_matmul":
        return None
    if call.x.device.type != "cpu":
        return "it is not measured there, and runs only where it is named"
    if not (32 <= max(map(largest_prime_factor, call.sizes)) <= 128 and max(call.sizes) <= 128):
        return "torch.fft is faster unless a side of at most 128 has a prime factor above 31"
    return None


def _dft_matmul(call: FFTCall) -> Tensor:
    if call.width is None:
        return _weigh_columns(dft_matmul.rfftn(call.x, call.axes), call, call.x.shape[call.axes[-1]])
    return dft_matmul.irfftn(_weigh_columns(call.x, call, call.width), call.axes, call.width)


@functools.cache
def largest_prime_factor(n: int) -> int:
    """Return the largest prime factor of n, 1 for n = 1."""
    largest, factor = 1, 2
    while n > 1:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor = factor + 1 if factor * factor <= n else max(n, factor + 1)
    return largest


# Compiled kernels


def _cpu_tensors(tensors: Sequence[Tensor | None]) -> str | None:
    for tensor in tensors:
        if tensor is None:
            continue
        kind = type(tensor)
        if kind is not Tensor and kind is not Parameter:
            return f"a {kind.__name__} is no plain tensor"
        if not tensor.is_cpu:
            return f"a tensor is on {tensor.device.type}, not on the CPU"
        if tensor.dtype is not torch.float32:
            return f"a tensor is {str(tensor.dtype).removeprefix('torch.')}, not float32"
        # For compiled code the dispatcher resolves negative views.
        if not torch.compiler.is_dynamo_compiling() and tensor.is_neg():
            return "a tensor is a negative view"
    return None


def cpu_refuses(x: Tensor) -> str | None:
    """Return None if the kernels take maps like x, or the reason why they do not."""
    return _cpu_tensors([x]) if kernels.available() else kernels.why_unavailable()


def _planes(x: Tensor, axes: Sequence[int]) -> Tensor | None:
    """Return sequences and frames of clips as images (N, C, H, W), None where other axes are transformed."""
    match x.dim(), *axes:
        case (3, 2):
            return x.unsqueeze(2)
        case (4, 2, 3):
            return x
        case (5, 3, 4):
            return x.transpose(1, 2).flatten(0, 1)
    return None


def _from_planes(images: Tensor, x: Tensor) -> Tensor:
    """Undo :func:`_planes` of x."""
    match x.dim():
        case 3:
            return images.squeeze(2)
        case 5:
            return images.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    return images


def _plane_sides(call: FFTCall) -> tuple[int, int]:
    height, width = [1, *call.sizes][-2:]
    return height, width


def _cpu_fft_supports(call: FFTCall) -> str | None:
    if not kernels.available():
        return kernels.why_unavailable()
    if reason := _cpu_tensors([call.x]):
        return reason
    if (call.x.dim(), *call.axes) not in ((3, 2), (4, 2, 3), (5, 3, 4)):
        return f"the axes {tuple(call.axes)} are not those of images, sequences or frames"
    if call.x.numel() == 0:
        return "the map is empty"
    # Measured by benchmarks/fft_backends.py.
    if call.backend == "auto" and call.channels < 8 and max(call.sizes) > 32:
        return f"with {call.channels} channels and sides above 32 torch.fft is faster"
    if not all(map(kernels.is_smooth, call.sizes)):
        return f"a side of {call.sizes} has a large prime factor, for which others are faster"
    return None


def _cpu_fft(call: FFTCall) -> Tensor:
    planes: Any = _planes(call.x, call.axes)
    width, inner = call.width, call.inner
    y = kernels.rfft2(planes, inner) if width is None else kernels.irfft2(planes, width, inner)
    return _from_planes(y, call.x)


def _cpu_spectral_supports(call: SpectralCall) -> str | None:
    if not kernels.available():
        return kernels.why_unavailable()
    if reason := _cpu_tensors([call.x, *call.tensors]):
        return reason
    if len(call.eps) == 1 and call.tensors[0].shape[0] != call.tensors[0].shape[1]:
        return "a Fourier Unit has other channels out than in"
    if torch.compiler.is_compiling():  # which may leave sizes open: the kernels take all of them
        return None
    size = call.x.shape[2:]
    return _transform_sizes(call, size if call.geometry is None else call.geometry.output_size(size))


def _transform_sizes(call: SpectralCall | FFCCall, size: Sequence[int]) -> str | None:
    """Return None, or the reason why the kernels do not transform maps of ``size``."""
    height, width = size
    if height < 1 or width < 1 or call.x.shape[0] == 0:
        return "the map is empty"
    if not call.eps:
        return None
    is_smooth = kernels.is_smooth
    half_height, half_width = ((height + 1) // 2, (width + 1) // 2) if len(call.eps) == 3 else (height, width)
    if True in call.batch_stats and call.x.shape[0] * half_height * half_width == 1:
        return "statistics of a batch need more than one value"
    if not (is_smooth(height) and is_smooth(width) and is_smooth(half_height) and is_smooth(half_width)):
        return f"{height} x {width}, or its half, has a large prime factor, for which torch.fft is faster"
    return None


def _cpu_spectral(call: SpectralCall) -> Any:
    if not needs_gradients(call):
        return torch.ops.ffconv.spectral_transform(call.pooled(), call.tensors, call.eps), []
    y, stats, _ = torch.ops.ffconv.spectral_transform_training(
        call.pooled(), call.tensors, call.eps, call.batch_stats
    )
    return y, stats


def _cpu_ffc_supports(call: FFCCall) -> str | None:
    if not kernels.available():
        return kernels.why_unavailable()
    if torch.is_autocast_enabled("cpu"):
        return (
            "autocast is on: the convolutions follow it, and the Spectral Transform runs by itself in float32"
        )
    if all(weight is None for weight in call.weights):
        return "all channels are global, so that there is no convolution"
    if reason := _cpu_tensors([call.x, *call.weights, call.bias, *call.tensors, call.residual]):
        return reason
    if has_onednn_fault(call.geometry.kernel_size, call.geometry.stride) and needs_gradients(call):
        return "a 1x1 kernel with unequal strides, whose backward pass in oneDNN is faulty"
    if torch.compiler.is_compiling():
        return None
    if reason := _transform_sizes(call, call.size):
        return reason
    l2l, l2g, g2l = call.weights
    if not needs_gradients(call) and kernels.ffc_prefers_torch(
        l2l, g2l, l2g, call.geometry.stride, call.geometry.dilation, call.size
    ):
        return "oneDNN's convolution is faster for weights and maps so large"
    return None


def _cpu_ffc(call: FFCCall) -> Any:
    x, geometry = call.x, call.geometry
    if not needs_gradients(call):
        if not torch.compiler.is_compiling() and not torch.autograd.profiler._is_profiler_enabled:
            # torch's dispatcher takes 20 microseconds for a Python operator, as long as a small layer.
            tensors = (*call.weights, call.bias, call.tensors)
            last = (call.residual, call.relu, call.packed)
            return cpu_layers.ffc_inference(x, *tensors, call.eps, geometry, call.size, *last), []
        numbers = encode_geometry(geometry)
        options = (call.eps, numbers, call.residual, call.relu, call.packed)
        return torch.ops.ffconv.ffc(x, *call.weights, call.bias, call.tensors, *options), []
    pooled = None
    padded = functional.pad(x, geometry)
    if call.tensors and not (padded is x and geometry.is_same_grid):
        x_global = x[:, x.shape[1] - call.tensors[0].shape[1] :]
        pooled = functional.aligned_avg_pool(x_global, geometry)
    numbers = encode_geometry(geometry.after_padding())
    y, stats, _ = torch.ops.ffconv.ffc_training(
        padded, pooled, *call.weights, call.bias, call.tensors, call.eps, call.batch_stats, numbers
    )
    y = y if call.residual is None else y + call.residual
    return y.relu() if call.relu else y, stats


def pack(call: FFCCall) -> Tensor:
    """Return the weights of a call as the kernels read them, for maps of its size."""
    geometry = call.geometry
    layers, conv2 = (call.tensors[:-1], call.tensors[-1]) if call.tensors else ([], None)
    l2l, l2g, g2l = call.weights
    return kernels.pack_ffc(
        *(call.x.shape, l2l, g2l, l2g, call.bias, geometry.stride, geometry.pad_before, geometry.dilation),
        *(geometry.modes, call.size, layers, call.eps, conv2),
    )


def needs_gradients(call: SpectralCall | FFCCall) -> bool:
    """Return True if a call needs gradients, or the statistics of its batch."""
    if True in call.batch_stats:
        return True
    if not torch.is_grad_enabled():
        return False
    tensors: list[Tensor | None] = [call.x, *call.tensors]
    if isinstance(call, FFCCall):
        tensors += [*call.weights, call.bias, call.residual]
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


# Triton kernels, whose package is not everywhere


def _triton() -> Any:
    from ffconv.backends import triton

    return triton


def _triton_fft_supports(call: FFTCall) -> str | None:
    planes = _planes(call.x, call.axes)
    if planes is None:
        return f"the axes {tuple(call.axes)} are not those of images, sequences or frames"
    return _triton().unsupported(planes, *_plane_sides(call))


def _triton_fft(call: FFTCall) -> Tensor:
    planes: Any = _planes(call.x, call.axes)
    if call.width is None:
        y = _triton().rfft2(planes, inner=call.inner)
    else:
        y = _triton().irfft2(planes, call.width, inner=call.inner)
    return _from_planes(y, call.x)


def _triton_unit_supports(call: SpectralCall) -> str | None:
    if len(call.eps) > 1:
        return "it computes Fourier Units only"
    if needs_gradients(call) or torch.compiler.is_compiling():
        return "it runs in eager inference only"
    if not all(map(is_plain_tensor, (call.x, *call.tensors))):
        return "a tensor is no plain tensor"
    if _mixing_dtype(call) == torch.float16:
        return "the spectrum would leave float16's range"
    return _triton().unsupported(call.x, *call.x.shape[2:])


def _mixing_dtype(call: SpectralCall) -> torch.dtype:
    device = call.x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else call.tensors[0].dtype


def _triton_unit(call: SpectralCall) -> Any:
    conv, weight, bias, mean, var = call.tensors
    scale = weight * torch.rsqrt(var + call.eps[0])
    return _triton().fourier_unit(
        call.x, conv.flatten(1).to(_mixing_dtype(call)), scale, bias - mean * scale
    ), []


TABLE: dict[str, tuple[Implementation, ...]] = {
    "fft": (
        Implementation("triton", _triton_fft_supports, _triton_fft, by_name_only=True),
        Implementation("cpu", _cpu_fft_supports, _cpu_fft),
        Implementation("dft_matmul", _dft_matmul_supports, _dft_matmul),
        Implementation("torch", _always, _torch_fft),
    ),
    "spectral_transform": (
        Implementation("triton", _triton_unit_supports, _triton_unit, by_name_only=True),
        Implementation("cpu", _cpu_spectral_supports, _cpu_spectral),
        Implementation("torch", _always, None),
    ),
    "ffc": (
        Implementation("cpu", _cpu_ffc_supports, _cpu_ffc),
        Implementation("torch", _always, None),
    ),
}


def run_fft(call: FFTCall) -> Tensor:
    """Compute a transform by the first implementation that supports it, channels last in memory."""
    run: Any = choose("fft", call, call.backend).run
    return run(call).movedim(1, -1).contiguous().movedim(-1, 1)
