"""The transforms of :mod:`ffconv.ops.fourier` by ``torch.fft`` on CUDA, in few passes over the maps.

cuFFT takes and gives planes whose pixels lie side by side, and has no factors of its own: torch multiplies in
a pass for itself, and copies what lies otherwise. Here a change of layout, the orthonormal factor and that of
the inner columns are one pass. What a complex-to-real transform makes of imaginary parts in the columns
kx = 0 and W / 2 cuFFT leaves undefined, so they are taken away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rfftn(x: Tensor, axes: Sequence[int], *, inner: float = 1.0) -> Tensor:
    """Orthonormal half spectrum, interleaved; ``inner`` is a factor of the columns between kx = 0 and W / 2.

    Shape:
        x (N, C, *size), float32 or float64 -> (N, 2C, *size), with n // 2 + 1 in place of n along the last of
        the axes, channels last in memory.
    """
    factor = math.prod([x.shape[axis] for axis in axes]) ** -0.5
    spectrum = torch.fft.rfftn(x, dim=tuple(axes), norm="backward")  # which has no factor
    pairs = torch.view_as_real(spectrum).movedim(1, -2)  # (N, H, Wf, C, 2)
    scaled = torch.empty(pairs.shape, dtype=x.dtype, device=x.device)
    _scale(pairs, scaled, axes[-1] - 1, x.shape[axes[-1]], factor=factor, inner=inner)
    return scaled.flatten(-2).movedim(-1, 1)


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int, *, inner: float = 1.0) -> Tensor:
    """Inverse of any interleaved half spectrum, orthonormal; ``inner`` as in :func:`rfftn`.

    Shape:
        spectrum (N, 2C, H, Wf), float32 or float64 -> (N, C, H, width), channels last in memory.
    """
    *others, last = axes
    factor = math.prod([width, *(spectrum.shape[axis] for axis in others)]) ** -0.5
    pairs = spectrum.unflatten(1, (-1, 2)).movedim(2, -1)  # (N, C, H, Wf, 2)
    # First those axes lie side by side that are transformed first.
    kept = [axis for axis in range(spectrum.dim()) if axis not in axes]
    layout = (*kept, last, *others, spectrum.dim())
    scaled = torch.empty_permuted(pairs.shape, layout, dtype=spectrum.dtype, device=spectrum.device)
    _scale(pairs, scaled, last, width, factor=factor, inner=inner)
    columns = torch.view_as_complex(scaled)
    if others:
        columns = torch.fft.ifftn(columns, dim=others, norm="forward")  # which has no factor
    for k in own_columns(width):
        torch.view_as_real(columns).select(last, k).select(-1, 1).zero_()
    y = torch.fft.irfft(columns, n=width, dim=last, norm="forward")
    return y.movedim(1, -1).contiguous().movedim(-1, 1)


def own_columns(width: int) -> tuple[int, ...]:
    """The columns that are their own conjugates: kx = 0, and W / 2 where there is one."""
    return (0,) if width % 2 else (0, width // 2)


def _scale(x: Tensor, out: Tensor, axis: int, width: int, *, factor: float, inner: float) -> None:
    """out = factor x, and ``inner`` times as much along the axis where a column stands for two."""
    torch.mul(x, factor * inner, out=out)
    if inner != 1:
        for k in own_columns(width):
            out.select(axis, k).div_(inner)
