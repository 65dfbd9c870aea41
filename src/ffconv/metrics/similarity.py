"""How alike two images are: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

#: Mean squared error that rounding to 8 bits makes; below it two images are the same picture.
ROUNDING_ERROR = 1 / (12 * 255**2)


def psnr(first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, peak 1, at most 58.9 dB, that of rounding to 8 bits.

    Args:
        first, second: (N, C, H, W), in [0, 1].
        mask: (N, 1, H, W), 1 where pixels count; by default all do.
    Returns:
        (N,) float64; NaN where no pixel counts.
    """
    error = (first.double() - second.double()).square()
    mean = error.mean((1, 2, 3)) if mask is None else masked_mean(error, mask)
    return -10 * mean.clamp(min=ROUNDING_ERROR).log10()


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity around each pixel, over a Gaussian window of 11 x 11 px (sigma 1.5), range 1.

    Borders are reflected, so that the map is as large as the images.

    Reference: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.

    Args:
        first, second: (N, C, H, W), in [0, 1], sides of at least 6 px.
    Returns:
        (N, 1, H, W) float64, the mean over the channels.
    """
    x, y = first.double(), second.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return (luminance * structure).mean(1, keepdim=True)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each image's values where the mask is 1: (N, C, H, W), (N, 1, H, W) -> (N,)."""
    weights = mask.to(values.dtype).expand_as(values)
    return (values * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, [_WINDOW // 2] * 4, mode="reflect")
    rows = F.conv2d(padded, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])
