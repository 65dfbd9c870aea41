"""Two-dimensional real Fourier transforms of feature maps, as interleaved real channels.

A spectrum of C channels is one real tensor of 2C channels, [re0, im0, re1, im1, ...], over the half plane
``Wf = W // 2 + 1``. With channels last in memory the complex tensor's real view is already in that order, so
that packing and unpacking copy nothing.

The inverse takes any spectrum, Hermitian or not: an inverse complex transform over H, then a complex-to-real
one over W, which ignores the imaginary part of the columns kx = 0 and, for even W, kx = W / 2.

Each backward pass is the other transform with weighted columns, where the derivative of ``torch.fft.rfft2``
pads to the full complex spectrum. Both are operators (``torch.ops.ffconv``), so that a compiler sees real
tensors only; an exporter gets the transforms of ``torch.fft``, so that what it writes does not need this
package.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOW_PRECISION = (torch.float16, torch.bfloat16)


def rfft2(x: Tensor) -> Tensor:
    """Orthonormal half spectrum over the last two axes, interleaved.

    Half-precision input is transformed in float32. Under float16 autocast the spectrum is divided by sqrt(H
    W), so that the channel mixing which follows stays within float16's range: the constant coefficient is
    then the map's mean. :func:`restore_scale` undoes it.

    Shape:
        x (N, C, H, W) -> (N, 2C, H, Wf), any H, W >= 1; float32 or float64.
    """
    if x.dtype in LOW_PRECISION:
        x = x.float()
    if _float16_autocast(x.device.type):
        x = x / math.sqrt(x.shape[-2] * x.shape[-1])
    return _rfft2(x) if _exporting() else _rfft2_operator(x)


def restore_scale(spectrum: Tensor, width: int) -> Tensor:
    """Undo the scale of :func:`rfft2` after a linear channel mixing, and return to float32 or float64.

    Shape:
        spectrum (N, C, H, Wf) -> the same; ``width`` is W of the map.
    """
    if spectrum.dtype in LOW_PRECISION:
        spectrum = spectrum.float()
    if _float16_autocast(spectrum.device.type):
        spectrum = spectrum * math.sqrt(spectrum.shape[-2] * width)
    return spectrum


def irfft2(spectrum: Tensor, width: int) -> Tensor:
    """Inverse of :func:`rfft2` for any interleaved half spectrum.

    Shape:
        spectrum (N, 2C, H, Wf) -> (N, C, H, width), with Wf = width // 2 + 1; float32 or float64.
    """
    return _irfft2(spectrum, width) if _exporting() else _irfft2_operator(spectrum, width)


def _rfft2(x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho").contiguous()  # (N, H, Wf, C)
    return torch.view_as_real(spectrum).flatten(3).permute(0, 3, 1, 2)


def _irfft2(spectrum: Tensor, width: int) -> Tensor:
    pairs = spectrum.permute(0, 2, 3, 1).contiguous().unflatten(-1, (-1, 2))  # (N, H, Wf, C, 2)
    columns = torch.fft.ifft(torch.view_as_complex(pairs), dim=1, norm="ortho")
    return torch.fft.irfft(columns, n=width, dim=2, norm="ortho").contiguous().permute(0, 3, 1, 2)


@torch.library.custom_op("ffconv::rfft2", mutates_args=())
def _rfft2_operator(x: Tensor) -> Tensor:
    return _rfft2(x)


@torch.library.custom_op("ffconv::irfft2", mutates_args=())
def _irfft2_operator(spectrum: Tensor, width: int) -> Tensor:
    return _irfft2(spectrum, width)


@_rfft2_operator.register_fake
def _(x: Tensor) -> Tensor:
    N, C, H, W = x.shape
    return x.new_empty(N, H, W // 2 + 1, 2 * C).permute(0, 3, 1, 2)


@_irfft2_operator.register_fake
def _(spectrum: Tensor, width: int) -> Tensor:
    N, C, H, _ = spectrum.shape
    return spectrum.new_empty(N, H, width, C // 2).permute(0, 3, 1, 2)


def _remember_width(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.width = inputs[0].shape[-1] if len(inputs) == 1 else inputs[1]


def _rfft2_backward(ctx: Any, grad: Tensor) -> Tensor:
    # The inverse counts each inner column twice, for the half plane that is left out; a gradient counts once.
    return irfft2(grad * _inner_columns(0.5, ctx.width, grad), ctx.width)


def _irfft2_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    spectrum = rfft2(grad)
    return spectrum * _inner_columns(2.0, ctx.width, spectrum), None


_rfft2_operator.register_autograd(_rfft2_backward, setup_context=_remember_width)
_irfft2_operator.register_autograd(_irfft2_backward, setup_context=_remember_width)


def _inner_columns(weight: float, width: int, like: Tensor) -> Tensor:
    """(Wf,) of 1 for the columns that are their own conjugates, kx = 0 and W / 2, and ``weight`` for the
    others."""
    column = torch.arange(width // 2 + 1, device=like.device)
    own = (column == 0) | (2 * column == width)
    return torch.where(own, 1.0, weight).to(like.dtype)


def _exporting() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _float16_autocast(device_type: str) -> bool:
    if device_type == "meta":  # has no autocast, and says so by an error
        return False
    return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16
