"""The paper's layers as its Figures 1 to 3 draw them, in terms of torch.fft: the baseline of benchmarks.

Feature maps are pairs (local, global), real and imaginary parts are stacked as [all real, all imaginary], and
every arrow of the figures is an operation of its own. Nothing is fused, reordered or done in place: this is
what the operators of :mod:`ffconv.nn` are measured against and, on even sides, must equal.

Reference: Chi et al., NeurIPS 2020, Fig. 1 (FFC), Fig. 2 (Spectral Transform, Fourier Unit), Fig. 3 (LFU).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ffconv.nn import split_channels

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class FourierUnit(nn.Module):
    """Real FFT, 1x1 convolution on stacked parts, norm, ReLU, inverse FFT.

    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * in_channels, 2 * out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        # Transforms do not take the half precision of autocast.
        exact = torch.promote_types(x.dtype, torch.float32)
        spectrum = torch.fft.rfft2(x.to(exact), norm="ortho")
        stacked = torch.cat([spectrum.real, spectrum.imag], dim=1)
        real, imaginary = self.relu(self.bn(self.conv(stacked))).to(exact).chunk(2, dim=1)
        return torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")


class SpectralTransform(nn.Module):
    """1x1 convolution to half the channels, Fourier Unit and Local Fourier Unit, sum, 1x1 convolution.

    Shape:
        x (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), with even sides where ``lfu`` is on.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, lfu: bool = True) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.fu = FourierUnit(hidden, hidden)
        self.lfu = FourierUnit(4 * -(-hidden // 4), hidden) if lfu else None
        self.conv2 = nn.Conv2d(hidden, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.pool(x))
        y = x + self.fu(x)
        if self.lfu is not None:
            y = y + self._local(x, self.lfu)
        return self.conv2(y)

    @staticmethod
    def _local(x: Tensor, unit: nn.Module) -> Tensor:
        """A Fourier Unit over the quadrants of the first quarter of the channels (rounded up), tiled 2x2."""
        quarter = x[:, : -(-x.shape[1] // 4)]
        left, right = quarter.chunk(2, dim=-1)
        quadrants = torch.cat([*left.chunk(2, dim=-2), *right.chunk(2, dim=-2)], dim=1)
        return unit(quadrants).repeat(1, 1, 2, 2)


class FFC(nn.Module):
    """Four paths between a local and a global map.

    Shape:
        ((N, C_l, H, W), (N, C_g, H, W)) -> ((N, C_l', H', W'), (N, C_g', H', W')).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        padding_mode: PaddingMode = "zeros",
        ratio: float = 0.25,
        lfu: bool = True,
    ) -> None:
        super().__init__()
        (in_local, in_global), (out_local, out_global) = (
            split_channels(channels, ratio) for channels in (in_channels, out_channels)
        )

        def path(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(
                inputs, outputs, kernel_size, stride, padding, bias=False, padding_mode=padding_mode
            )

        self.l2l = path(in_local, out_local)
        self.l2g = path(in_local, out_global)
        self.g2l = path(in_global, out_local)
        self.g2g = SpectralTransform(in_global, out_global, stride=stride, lfu=lfu)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        local, global_ = x
        return self.l2l(local) + self.g2l(global_), self.l2g(local) + self.g2g(global_)
