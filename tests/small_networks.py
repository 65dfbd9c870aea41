"""Small networks of the usual shapes, for tests of surgery."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block(in_channels: int, out_channels: int, **arguments: int) -> nn.Sequential:
    """A 3x3 convolution with norm and activation."""
    conv = nn.Conv2d(
        in_channels, out_channels, 3, padding=arguments.get("dilation", 1), bias=False, **arguments
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def double_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*block(in_channels, out_channels), *block(out_channels, out_channels))


class Residual(nn.Module):
    """relu(x + branch(x)), with a 1x1 shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = None
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + shortcut)


class UNet(nn.Module):
    """Two levels down and up; ``bilinear`` resizes where a transposed convolution would."""

    def __init__(self, width: int = 16, *, bilinear: bool) -> None:
        super().__init__()
        self.inc = double_block(3, width)
        self.down1 = double_block(width, 2 * width)
        self.down2 = double_block(2 * width, 4 * width)
        if bilinear:
            self.up1 = self.up2 = nn.Upsample(scale_factor=2, mode="bilinear")
        else:
            self.up1 = nn.ConvTranspose2d(4 * width, 4 * width, 2, 2)
            self.up2 = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)
        self.conv1 = double_block(6 * width, 2 * width)
        self.conv2 = double_block(3 * width, width)
        self.outc = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.inc(x)
        middle = self.down1(F.max_pool2d(high, 2))
        low = self.down2(F.max_pool2d(middle, 2))
        y = self.conv1(torch.cat([middle, self.up1(low)], dim=1))
        return self.outc(self.conv2(torch.cat([high, self.up2(y)], dim=1)))
