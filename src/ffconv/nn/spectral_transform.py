"""The Spectral Transform: the global-to-global path of a Fast Fourier Convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ffconv.dispatch import fused, own_type
from ffconv.functional import ConvGeometry, aligned_avg_pool, conv_geometry
from ffconv.nn.fourier_unit import IMAGE, Axes, FourierUnit, LocalFourierUnit, check_groups

torch.fx.wrap("aligned_avg_pool")  # reads sizes: one node for torch.fx


@own_type
class SpectralTransform(nn.Module):
    """Apply a bottleneck around a Fourier Unit and, with ``lfu``, a Local Fourier Unit.

        h = relu(bn1(conv1(pool(x))))        c = max(1, C_out // 2) channels
        y = conv2(h + fu(h) + lfu(h))        C_out channels

    Precision: transforms and spectral norms run in float32 (float64 for float64 input). Under autocast the other
    layers follow it, except on the CPU, where the compiled kernels run all of it in float32.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.3, Fig. 2 and 3.
    Deviation: sides that the stride does not divide are pooled over the rest of the last window, so that the output
    has the size of a convolution's; the authors' pooling drops the rest.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        stride: Average pooling before the transform, along each axis.
        groups: Blocks of the three 1x1 convolutions; divides C_in, C_out and c.
        lfu: Add the Local Fourier Unit.
        axes: Transformed axes, by default those of an image.
        device: Of the parameters.
        dtype: Of the parameters.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)), or the output size of a geometry that is
        given with x.
    Raises:
        ValueError: If groups does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        groups: int = 1,
        lfu: bool = True,
        *,
        axes: Axes = IMAGE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = max(1, out_channels // 2)
        check_groups(groups, in_channels=in_channels, out_channels=out_channels, hidden_channels=hidden)
        self.stride = stride
        self.axes = axes
        self.conv1 = axes.channel_mixing_conv(in_channels, hidden, groups, **factory)
        self.bn1 = axes.norm(hidden, **factory)
        self.fu = FourierUnit(hidden, hidden, groups, axes=axes, **factory)
        self.lfu = LocalFourierUnit(hidden, hidden, groups, axes=axes, **factory) if lfu else None
        self.conv2 = axes.channel_mixing_conv(hidden, out_channels, groups, **factory)
        self.reset_parameters()

    @property
    def geometry(self) -> ConvGeometry:
        """Geometry of the pooling, that of a 1x1 convolution of ``stride``."""
        return conv_geometry(self.axes.dims, 1, self.stride)

    def reset_parameters(self) -> None:
        """Initialise the convolutions by kaiming normal (fan out), the norms by 1 and 0."""
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn1.reset_parameters()
        self.fu.reset_parameters()
        if self.lfu is not None:
            self.lfu.reset_parameters()

    @fused("spectral_transform")
    def forward(self, x: Tensor, geometry: ConvGeometry | None = None) -> Tensor:
        """Transform a map on the output grid of ``geometry``, by default that of the stride."""
        h = relu(self.bn1(self.conv1(aligned_avg_pool(x, geometry or self.geometry))))
        y = h + self.fu(h)
        if self.lfu is not None:
            y = y + self.lfu(h)
        return self.conv2(y)
