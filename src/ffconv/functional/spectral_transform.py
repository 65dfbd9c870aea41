"""The Spectral Transform of images, in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from ffconv.functional.fft import irfftn, rfftn
from ffconv.functional.fourier_unit import batch_norm, fourier_unit, split_quadrants, tile_quadrants

AXES = (2, 3)

FFT = tuple[Callable[..., Tensor], Callable[..., Tensor]]
PLAIN_FFT: FFT = (rfftn, irfftn)


def spectral_transform(
    x: Tensor,
    tensors: Sequence[Tensor],
    *,
    batch_stats: Sequence[bool],
    eps: Sequence[float],
    fft: FFT = PLAIN_FFT,
) -> Tensor:
    """Apply conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), or a Fourier Unit fu(x) alone.

    Args:
        x: Feature map, after pooling.
        tensors: Five tensors a layer: weight of the 1x1 convolution, weight, bias, running mean and running
            variance of the batch norm. Layers: conv1, the Fourier Unit's and, optionally, the Local Fourier Unit's;
            then conv2's weight. Five tensors alone are a Fourier Unit.
        batch_stats: Normalise by the statistics of the batch, one entry a layer.
        eps: Of the batch norms, one entry a layer.
        fft: The transform and its inverse.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W).
    """
    layers = [(tensors[5 * i], tensors[5 * i + 1 : 5 * i + 5]) for i in range(len(eps))]
    options = [{"batch_stats": b, "eps": e} for b, e in zip(batch_stats, eps, strict=True)]
    if len(layers) == 1:
        return fourier_unit(x, *layers[0], **options[0], fft=fft)
    h = F.relu(batch_norm(F.conv2d(x, layers[0][0]), layers[0][1], **options[0]))
    mixed = h + fourier_unit(h, *layers[1], **options[1], fft=fft)
    if len(layers) == 3:
        conv = layers[2][0]
        quadrants = split_quadrants(h[:, : conv.shape[1] // 8], AXES)
        unit = fourier_unit(quadrants, *layers[2], **options[2], fft=fft)
        mixed = mixed + tile_quadrants(unit, AXES, h.shape[2:])
    return F.conv2d(mixed, tensors[-1])
