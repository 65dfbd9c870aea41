"""Real Fourier transforms of feature maps over some of their axes, as interleaved real channels.

A spectrum of C channels is one real tensor of 2C channels, [re0, im0, re1, im1, ...], over half of the last
transformed axis, for an image ``Wf = W // 2 + 1``. With channels last in memory the complex tensor's real
view is already in that order, so that packing and unpacking copy nothing.

The inverse takes any spectrum, Hermitian or not: an inverse complex transform over all axes but the last one,
for an image over H, then a complex-to-real one over W, which ignores the imaginary part of the columns kx = 0
and, for even W, kx = W / 2.

Transformed axes are named by their numbers in the tensor, ascending: (2, 3) for images (N, C, H, W), (3, 4)
for each frame of videos (N, C, T, H, W).

Each backward pass is the other transform with weighted columns, where the derivative of ``torch.fft.rfftn``
pads to the full complex spectrum. Both are operators (``torch.ops.ffconv``), so that a compiler sees real
tensors only; an exporter gets the transforms of ``torch.fft``, so that what it writes does not need this
package. Real matrix products, where :func:`ffconv.ops.engines.transform_engine` asks for them, are no
operators: whoever compiles or exports sees the products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffconv.ops import cufft, matrix, native
from ffconv.ops.engines import current_engine, table_engine
from ffconv.ops.onlookers import need_operations

LOW_PRECISION = (torch.float16, torch.bfloat16)


def rfftn(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Orthonormal half spectrum over the given axes, interleaved.

    Half-precision input is transformed in float32. Under float16 autocast the spectrum is divided by sqrt(H
    W), so that the channel mixing which follows stays within float16's range: the constant coefficient is
    then the map's mean. :func:`restore_scale` undoes it.

    Shape:
        x (N, C, *size) -> (N, 2C, *size), with n // 2 + 1 in place of n along the last of the axes; float32
        or float64. For images (N, C, H, W) -> (N, 2C, H, Wf), any H, W >= 1.
    """
    if x.dtype in LOW_PRECISION:
        x = _whole_planes(x) if x.is_cuda and not need_operations() else x.float()
    if _float16_autocast(x.device.type):
        x = x / math.prod([x.shape[axis] for axis in axes]) ** 0.5
    engine = current_engine()
    if engine == "matrix":
        return matrix.rfftn(x, axes)
    return _rfftn(x, axes) if need_operations() else _rfftn_operator(x, axes, engine)


def restore_scale(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Undo the scale of :func:`rfftn` after a linear channel mixing, and return to float32 or float64.

    Shape:
        spectrum (N, C, H, Wf) -> the same; ``width`` is W of the map, its size along the last of the axes.
    """
    if spectrum.dtype in LOW_PRECISION:
        spectrum = spectrum.float()
    if _float16_autocast(spectrum.device.type):
        spectrum = spectrum * (math.prod([spectrum.shape[axis] for axis in axes[:-1]]) * width) ** 0.5
    return spectrum


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Inverse of :func:`rfftn` for any interleaved half spectrum.

    Shape:
        spectrum (N, 2C, H, Wf) -> (N, C, H, width), with Wf = width // 2 + 1 and ``width`` the size along the
        last of the axes; float32 or float64.
    """
    engine = current_engine()
    if engine == "matrix":
        return matrix.irfftn(spectrum, axes, width)
    return (
        _irfftn(spectrum, axes, width)
        if need_operations()
        else _irfftn_operator(spectrum, axes, width, engine)
    )


def _whole_planes(x: Tensor) -> Tensor:
    """x in float32, laid out by the same pass as cuFFT would otherwise have it by another one."""
    return x.to(torch.float32, memory_format=torch.contiguous_format)


def _rfftn(x: Tensor, axes: Sequence[int]) -> Tensor:
    behind = [axis - 1 for axis in axes]  # once the channels are the last axis
    last = axes[-1]
    # Out of the real map: ONNX's exporter cannot ask a complex tensor for a size that is not fixed.
    size = (x.shape[0], *x.shape[2:last], x.shape[last] // 2 + 1, *x.shape[last + 1 :], 2 * x.shape[1])
    spectrum = torch.fft.rfftn(x.movedim(1, -1), dim=behind, norm="ortho").contiguous()  # (N, H, Wf, C)
    return torch.view_as_real(spectrum).reshape(size).movedim(-1, 1)


def _irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    *others, last = [axis - 1 for axis in axes]
    pairs = spectrum.movedim(1, -1).contiguous().unflatten(-1, (-1, 2))  # (N, H, Wf, C, 2)
    columns = torch.view_as_complex(pairs)
    if others:
        columns = torch.fft.ifftn(columns, dim=others, norm="ortho")
    if _reverses_odd_widths(spectrum.device.type) and width % 2:
        # All but the first column stand for two; a complex transform fills up with zeros.
        twice = columns * _inner_columns(2.0, width, spectrum, last)
        rows = torch.fft.ifft(twice, n=width, dim=last, norm="ortho")
        return rows.real.contiguous().movedim(-1, 1)
    if not _ignores_own_imaginary_parts(spectrum.device.type):
        of_two = 1 - _inner_columns(0.0, width, spectrum, last)
        columns = torch.complex(columns.real, columns.imag * of_two)
    return torch.fft.irfft(columns, n=width, dim=last, norm="ortho").contiguous().movedim(-1, 1)


def _reverses_odd_widths(device_type: str) -> bool:
    """Whether irfft gives rows of odd width in reverse: https://github.com/pytorch/pytorch/issues/126649."""
    return device_type == "mps"


def _ignores_own_imaginary_parts(device_type: str) -> bool:
    """Whether irfft is known to ignore the imaginary parts of the columns kx = 0 and W / 2. The libraries of
    GPUs leave it undefined: https://github.com/lwa-project/bifrost/pull/182."""
    return device_type == "cpu"


def _planes(x: Tensor, axes: Sequence[int]) -> Tensor | None:
    """Sequences, and each frame of a video, as images (N, C, H, W); None where other axes are transformed."""
    match x.dim(), *axes:
        case (3, 2):
            return x.unsqueeze(2)
        case (4, 2, 3):
            return x
        case (5, 3, 4):
            return x.transpose(1, 2).flatten(0, 1)
    return None


def _like(images: Tensor, x: Tensor) -> Tensor:
    """Undo :func:`_planes` of x."""
    match x.dim():
        case 3:
            return images.squeeze(2)
        case 5:
            return images.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    return images


@torch.library.custom_op("ffconv::rfftn", mutates_args=())
def _rfftn_operator(x: Tensor, axes: Sequence[int], engine: str = "auto", inner: float = 1.0) -> Tensor:
    """``inner`` is a factor of the columns that are not their own conjugates."""
    if engine == "auto":
        sides = [x.shape[axis] for axis in axes]
        engine = table_engine(x.device, x.dtype, x.shape[1], sides)
    match engine, _planes(x, axes):
        case "native", Tensor() as planes if native.suits(planes, *planes.shape[2:]):
            return _like(native.rfft2(planes, inner=inner), x)
        case "triton", Tensor() as planes if triton_kernels().suits(planes, *planes.shape[2:]):
            return _like(triton_kernels().rfft2(planes, inner=inner), x).contiguous()
    if x.is_cuda and engine != "matrix":
        return _laid_out(cufft.rfftn(x, axes, inner=inner), engine)
    spectrum = matrix.rfftn(x, axes) if engine == "matrix" else _rfftn(x, axes)
    if inner != 1:
        spectrum = spectrum * _inner_columns(inner, x.shape[axes[-1]], spectrum, axes[-1])
    return _laid_out(spectrum, engine)


@torch.library.custom_op("ffconv::irfftn", mutates_args=())
def _irfftn_operator(
    spectrum: Tensor, axes: Sequence[int], width: int, engine: str = "auto", inner: float = 1.0
) -> Tensor:
    if engine == "auto":
        sides = [*(spectrum.shape[axis] for axis in axes[:-1]), width]
        engine = table_engine(spectrum.device, spectrum.dtype, spectrum.shape[1] // 2, sides)
    match engine, _planes(spectrum, axes):
        case "native", Tensor() as planes if native.suits(planes, planes.shape[2], width):
            return _like(native.irfft2(planes, (planes.shape[2], width), inner=inner), spectrum)
        case "triton", Tensor() as planes if triton_kernels().suits(planes, planes.shape[2], width):
            return _like(triton_kernels().irfft2(planes, width, inner=inner), spectrum).contiguous()
    if spectrum.is_cuda and engine != "matrix":
        return _laid_out(cufft.irfftn(spectrum, axes, width, inner=inner), engine)
    if inner != 1:
        spectrum = spectrum * _inner_columns(inner, width, spectrum, axes[-1])
    inverse = matrix.irfftn if engine == "matrix" else _irfftn
    return _laid_out(inverse(spectrum, axes, width), engine)


def triton_kernels() -> Any:
    """:mod:`ffconv.ops.triton`, where a user asks for it: its package is not everywhere."""
    from ffconv.ops import triton

    return triton


def _laid_out(x: Tensor, engine: str) -> Tensor:
    """As :func:`_empty` tells a compiler."""
    return x.contiguous() if engine == "triton" else x.movedim(1, -1).contiguous().movedim(-1, 1)


@_rfftn_operator.register_fake
def _(x: Tensor, axes: Sequence[int], engine: str = "auto", inner: float = 1.0) -> Tensor:
    return _empty(x, 2 * x.shape[1], axes[-1], x.shape[axes[-1]] // 2 + 1, engine)


@_irfftn_operator.register_fake
def _(spectrum: Tensor, axes: Sequence[int], width: int, engine: str = "auto", inner: float = 1.0) -> Tensor:
    return _empty(spectrum, spectrum.shape[1] // 2, axes[-1], width, engine)


def _empty(like: Tensor, channels: int, axis: int, width: int, engine: str) -> Tensor:
    """A map of so many channels that is ``width`` wide along the axis and else like this one.

    The channels are last in memory, but planes of the triton engine are whole.
    """
    size = [*like.shape[2:axis], width, *like.shape[axis + 1 :]]
    if engine == "triton":
        return like.new_empty(like.shape[0], channels, *size)
    return like.new_empty(like.shape[0], *size, channels).movedim(-1, 1)


def _remember_rfftn(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.axes, ctx.engine, ctx.inner = inputs
    ctx.width = x.shape[ctx.axes[-1]]


def _remember_irfftn(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ctx.axes, ctx.width, ctx.engine, ctx.inner = inputs


def _rfftn_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    # The inverse counts each inner column twice, for the half plane that is left out; a gradient counts once.
    gradient = _irfftn_operator(grad, ctx.axes, ctx.width, ctx.engine, ctx.inner / 2)
    return gradient, None, None, None


def _irfftn_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    return _rfftn_operator(grad, ctx.axes, ctx.engine, 2 * ctx.inner), None, None, None, None


_rfftn_operator.register_autograd(_rfftn_backward, setup_context=_remember_rfftn)
_irfftn_operator.register_autograd(_irfftn_backward, setup_context=_remember_irfftn)


def _inner_columns(weight: float, width: int, like: Tensor, axis: int) -> Tensor:
    """1 for the columns that are their own conjugates, kx = 0 and W / 2, ``weight`` for the others; (Wf,),
    shaped to lie along the axis."""
    column = torch.arange(width // 2 + 1, device=like.device)
    own = (column == 0) | (2 * column == width)
    weights = torch.where(own, 1.0, weight).to(like.dtype)
    return weights.reshape(-1, *[1] * (like.dim() - axis - 1))


def _float16_autocast(device_type: str) -> bool:
    if device_type == "meta":  # has no autocast, and says so by an error
        return False
    return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16
