"""Real Fourier transforms of feature maps as interleaved real channels, in plain torch.

A spectrum of C channels is one real tensor of 2C channels, [re0, im0, re1, im1, ...], over half of the last
transformed axis, for an image ``Wf = W // 2 + 1``. With channels last in memory the complex tensor's real view
already has that order.

The inverse takes any spectrum, Hermitian or not: an inverse complex transform over all axes but the last one,
then a complex-to-real one, which ignores the imaginary part of the columns kx = 0 and, for even W, kx = W / 2.

Axes are numbers of the tensor's axes, ascending: (2, 3) for images (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rfftn(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the orthonormal half spectrum over ``axes``, interleaved.

    Shape:
        x (N, C, *size), float32 or float64 -> (N, 2C, *size), with n // 2 + 1 in place of n along the last axis
        of ``axes``.
    """
    channels_last = [axis - 1 for axis in axes]
    last = axes[-1]
    # From the real map: the ONNX exporter cannot read a dynamic size of a complex tensor.
    size = (x.shape[0], *x.shape[2:last], x.shape[last] // 2 + 1, *x.shape[last + 1 :], 2 * x.shape[1])
    spectrum = torch.fft.rfftn(x.movedim(1, -1), dim=channels_last, norm="ortho").contiguous()
    return torch.view_as_real(spectrum).reshape(size).movedim(-1, 1)


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Return the inverse of :func:`rfftn` for any interleaved half spectrum.

    Args:
        spectrum: Interleaved half spectrum.
        axes: Transformed axes.
        width: Size of the map along the last axis of ``axes``.
    Shape:
        spectrum (N, 2C, H, width // 2 + 1) -> (N, C, H, width).
    """
    *others, last = [axis - 1 for axis in axes]
    columns = torch.view_as_complex(spectrum.movedim(1, -1).contiguous().unflatten(-1, (-1, 2)))
    device = spectrum.device.type
    if device == "mps" and width % 2:
        # irfft reverses rows of odd width there: https://github.com/pytorch/pytorch/issues/126649. All columns but
        # the first stand for two; a complex transform fills up with zeros.
        weighted = columns * column_weights(2.0, width, spectrum, last)
        columns = torch.fft.ifftn(weighted, dim=others, norm="ortho") if others else weighted
        return torch.fft.ifft(columns, n=width, dim=last, norm="ortho").real.contiguous().movedim(-1, 1)
    if device not in ("cpu", "meta"):
        # cuFFT defines the complex-to-real transform for Hermitian spectra only. Its kernels ignore nothing, so the
        # columns that are their own conjugates are replaced by their Hermitian parts, which gives the same map.
        columns = _hermitian(columns, others, last, width)
        return torch.fft.irfftn(columns, s=_sizes(columns, others, width), dim=[*others, last], norm="ortho") \
            .contiguous().movedim(-1, 1)
    if others:
        columns = torch.fft.ifftn(columns, dim=others, norm="ortho")
    return torch.fft.irfft(columns, n=width, dim=last, norm="ortho").contiguous().movedim(-1, 1)


def _sizes(columns: Tensor, others: Sequence[int], width: int) -> list[int]:
    return [*(columns.shape[axis] for axis in others), width]


def _hermitian(columns: Tensor, others: Sequence[int], last: int, width: int) -> Tensor:
    """Replace the columns kx = 0 and W / 2 by (z_k + conj z_-k) / 2, k over the other axes."""
    first, inner, half = columns.narrow(last, 0, 1), columns.narrow(last, 1, (width - 1) // 2), None
    if width % 2 == 0:
        half = columns.narrow(last, width // 2, 1)

    def symmetric(column: Tensor) -> Tensor:
        mirrored = column
        for axis in others:
            mirrored = mirrored.flip(axis).roll(1, axis)
        return (column + mirrored.conj()) / 2

    parts = [symmetric(first), inner, *([] if half is None else [symmetric(half)])]
    return torch.cat(parts, last)


def column_weights(weight: float, width: int, like: Tensor, axis: int) -> Tensor:
    """Return 1 for the columns kx = 0 and W / 2, which are their own conjugates, and ``weight`` for the others.

    Shape:
        (width // 2 + 1,), followed by ones so that it broadcasts along ``axis`` of ``like``.
    """
    column = torch.arange(width // 2 + 1, device=like.device)
    own = (column == 0) | (2 * column == width)
    weights = torch.where(own, 1.0, weight).to(like.dtype)
    return weights.reshape(-1, *[1] * (like.dim() - axis - 1))
