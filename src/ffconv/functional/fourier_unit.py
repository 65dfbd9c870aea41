"""The Fourier Unit and its local form, in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.functional.fft import irfftn, rfftn

LOW_PRECISION = (torch.float16, torch.bfloat16)


def fourier_unit(
    x: Tensor,
    conv: Tensor,
    norm: Sequence[Tensor],
    *,
    batch_stats: bool,
    eps: float,
    fft: tuple[Callable[..., Tensor], Callable[..., Tensor]] = (rfftn, irfftn),
) -> Tensor:
    """Apply irfft2(relu(bn(conv(rfft2(x))))).

    Transforms and norm run in float32, or in float64 for float64 input; the convolution follows autocast.

    Args:
        x: Feature map.
        conv: Weight of the 1x1 convolution, (2 C_out, 2 C_in, 1, 1).
        norm: Weight, bias, running mean and running variance of the batch norm, each (2 C_out,).
        batch_stats: Normalise by the statistics of the batch, not by the running ones.
        eps: Of the batch norm.
        fft: The transform and its inverse.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W).
    """
    rfftn, irfftn = fft
    spectrum = rfftn(x.float() if x.dtype in LOW_PRECISION else x, (2, 3))
    spectrum = unscale_spectrum(F.conv2d(scale_spectrum(spectrum, conv), conv), conv)
    spectrum = F.relu(batch_norm(spectrum, norm, batch_stats=batch_stats, eps=eps))
    return irfftn(spectrum, (2, 3), x.shape[3]).to(x.dtype)


def batch_norm(x: Tensor, norm: Sequence[Tensor], *, batch_stats: bool, eps: float) -> Tensor:
    """Apply a batch norm; the arguments are those of :func:`fourier_unit`."""
    weight, bias, mean, var = norm
    statistics = (None, None) if batch_stats else (mean, var)
    return F.batch_norm(x, *statistics, weight, bias, batch_stats, 0.0, eps)


def scale_spectrum(spectrum: Tensor, weight: Tensor) -> Tensor:
    """Return the spectrum as the channel mixing takes it, within float16's range where that computes.

    Args:
        spectrum: (N, 2C, H, Wf), float32 or float64.
        weight: Of the channel mixing.
    """
    if _mixing_dtype(spectrum, weight) == torch.float16:
        spectrum = spectrum * _pixels(spectrum) ** -0.5
    return spectrum.to(weight.dtype) if weight.dtype in LOW_PRECISION else spectrum


def unscale_spectrum(spectrum: Tensor, weight: Tensor) -> Tensor:
    """Undo :func:`scale_spectrum` after the channel mixing, and return to float32 or float64."""
    full = spectrum.float() if spectrum.dtype in LOW_PRECISION else spectrum
    if _mixing_dtype(full, weight) == torch.float16:
        full = full * _pixels(full) ** 0.5
    return full


def _mixing_dtype(spectrum: Tensor, weight: Tensor) -> torch.dtype:
    device = spectrum.device.type
    # The meta device has no autocast, and says so by an error.
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _pixels(spectrum: Tensor) -> int:
    pixels = 2
    for size in spectrum.shape[2:]:
        pixels = pixels * size
    return pixels


def split_quadrants(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Stack the halves of a map along each of ``axes`` as channels; odd sizes repeat their last entry.

    The first axis changes fastest: top-left, bottom-left, top-right, bottom-right.

    Shape:
        x (N, q, H, W) -> (N, 4q, ceil(H / 2), ceil(W / 2)) for the axes (2, 3).
    """
    halves = {axis: (x.shape[axis] + 1) // 2 for axis in axes}
    sizes = [x.shape[axis] for axis in axes]
    if not _parities_are_known(sizes) or any(size % 2 for size in sizes):
        missing = [2 * halves[axis] - x.shape[axis] if axis in halves else 0 for axis in range(2, x.dim())]
        x = F.pad(x, [pad for after in reversed(missing) for pad in (0, after)], mode="replicate")
    parts = [x]
    for axis, half in reversed(halves.items()):
        parts = [part.narrow(axis, start, half) for part in parts for start in (0, half)]
    return torch.cat(parts, dim=1)


def tile_quadrants(x: Tensor, axes: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Repeat a map twice along each of ``axes`` and crop it to ``sizes``, one for each of the axes."""
    if not _parities_are_known(sizes):
        for axis, size in zip(axes, sizes, strict=True):
            half, index = x.shape[axis], torch.arange(size, device=x.device)
            x = x.index_select(axis, torch.where(index < half, index, index - half))
        return x
    # repeat would make a channels-last map contiguous.
    repeats = [2 if axis in axes else 1 for axis in range(2, x.dim())]
    tiled = x.movedim(1, -1).repeat(1, *repeats, 1).movedim(-1, 1)
    for axis, size in zip(axes, sizes, strict=True):
        tiled = tiled.narrow(axis, 0, size)
    return tiled


def _parities_are_known(sizes: Sequence[int]) -> bool:
    """Return True if padding and cropping odd sizes needs no guard on a dynamic size."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(any(statically_known_true(size % 2 == parity) for parity in (0, 1)) for size in sizes)
