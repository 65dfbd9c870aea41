"""LaMa's generator laid out as its authors' is, on pairs of maps: the baseline of benchmarks.

Layers are numbered as in the published network, and each branch has its own norm and ReLU.

Reference: Suvorov et al., Resolution-robust Large Mask Inpainting with Fourier Convolutions, WACV 2022.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ffconv.analysis import reference
from ffconv.nn import split_channels

Pair = tuple[Tensor, Tensor]


class LamaGenerator(nn.Module):
    """Encoder, residual blocks of FFCs without LFU, decoder.

    Args:
        width: channels after the first convolution.
        downsamplings: how often the map is halved.
        blocks: residual blocks.
        ratio: share of global channels in the blocks, strictly between 0 and 1.
    Shape:
        x (N, 4, H, W) -> (N, 3, H, W), sides multiples of 2 ** downsamplings.
    """

    def __init__(
        self, *, width: int = 64, downsamplings: int = 3, blocks: int = 18, ratio: float = 0.75
    ) -> None:
        super().__init__()
        widths = [width * 2**step for step in range(downsamplings + 1)]
        steps = list(pairwise(widths))
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            _Layer(nn.Conv2d(4, width, 7, bias=False)),
            *(_Layer(_halving(*step)) for step in steps[:-1]),
            _Fork(*steps[-1], ratio),
            *(_Block(widths[-1], ratio) for _ in range(blocks)),
            _Join(),
            *(
                layer
                for after, before in reversed(steps)
                for layer in (
                    nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
            ),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False, padding_mode="reflect")


class _Layer(nn.Module):
    """A convolution of local channels with norm and ReLU."""

    def __init__(self, l2l: nn.Conv2d) -> None:
        super().__init__()
        self.l2l = l2l
        self.bn_l = nn.BatchNorm2d(l2l.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn_l(self.l2l(x)))


class _Fork(nn.Module):
    """The layer from which on there are global channels."""

    def __init__(self, in_channels: int, out_channels: int, ratio: float) -> None:
        super().__init__()
        local, everywhere = split_channels(out_channels, ratio)
        self.l2l, self.l2g = _halving(in_channels, local), _halving(in_channels, everywhere)
        self.bn_l, self.bn_g = nn.BatchNorm2d(local), nn.BatchNorm2d(everywhere)

    def forward(self, x: Tensor) -> Pair:
        return torch.relu(self.bn_l(self.l2l(x))), torch.relu(self.bn_g(self.l2g(x)))


class _PairLayer(nn.Module):
    """An FFC with a norm and a ReLU for each branch."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.ffc = reference.FFC(
            channels, channels, 3, padding=1, padding_mode="reflect", ratio=ratio, lfu=False
        )
        self.bn_l, self.bn_g = (nn.BatchNorm2d(part) for part in split_channels(channels, ratio))

    def forward(self, x: Pair) -> Pair:
        local, everywhere = self.ffc(x)
        return torch.relu(self.bn_l(local)), torch.relu(self.bn_g(everywhere))


class _Block(nn.Module):
    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = _PairLayer(channels, ratio), _PairLayer(channels, ratio)

    def forward(self, x: Pair) -> Pair:
        local, everywhere = self.conv2(self.conv1(x))
        return x[0] + local, x[1] + everywhere


class _Join(nn.Module):
    def forward(self, x: Pair) -> Tensor:
        return torch.cat(x, dim=1)
