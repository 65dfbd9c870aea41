"""The Spectral Transform: the global -> global path of a Fast Fourier Convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.ops.fourier_unit import FourierUnit, LocalFourierUnit, check_groups
from ffconv.ops.geometry import Geometry, aligned_avg_pool

torch.fx.wrap("aligned_avg_pool")


class SpectralTransform(nn.Module):
    """Spectral Transform: a bottleneck around a Fourier Unit and, with ``lfu``, a Local Fourier Unit.

        h = relu(bn1(conv1(pool(x))))        c = max(1, C_out // 2) channels
        y = conv2(h + fu(h) + lfu(h))        C_out channels

    Reference: Chi et al., NeurIPS 2020, Sec. 3.3, Fig. 2 and 3.
    Deviation: sides that the stride does not divide are pooled over what is left of the last window, so that
    the output has the size of a convolution's; the authors' pooling drops the rest.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        stride: average pooling before the transform, along each axis.
        groups: blocks of the three 1x1 convolutions; divides C_in, C_out and c.
        lfu: whether the Local Fourier Unit takes part.
        geometry: the convolution whose output grid the transform follows; by default that of a 1x1
        convolution of ``stride``.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)), or the geometry's output size.
    Raises:
        ValueError: if groups does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        groups: int = 1,
        lfu: bool = True,
        *,
        geometry: Geometry | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        hidden = max(1, out_channels // 2)
        check_groups(groups, in_channels=in_channels, out_channels=out_channels, hidden_channels=hidden)
        self.geometry = geometry or Geometry((1, 1), (stride, stride), ((0, 0), (0, 0)), (1, 1))
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=groups, bias=False, **factory)
        self.bn1 = nn.BatchNorm2d(hidden, **factory)
        self.fu = FourierUnit(hidden, hidden, groups, **factory)
        self.lfu = LocalFourierUnit(hidden, hidden, groups, **factory) if lfu else None
        self.conv2 = nn.Conv2d(hidden, out_channels, 1, groups=groups, bias=False, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for the convolutions, 1 and 0 for the norms."""
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn1.reset_parameters()
        self.fu.reset_parameters()
        if self.lfu is not None:
            self.lfu.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(aligned_avg_pool(x, self.geometry))))
        mixed = h + self.fu(h)
        if self.lfu is not None:
            mixed = mixed + self.lfu(h)
        return self.conv2(mixed)
