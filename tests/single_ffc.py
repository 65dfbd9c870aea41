"""One FFC, a map for it, and what its parts make of it one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffconv.nn import FFC2d, FFC3d, fft_backend

CHANNELS = (24, 40)


def layer(*geometry: Any, channels: tuple[int, int] = CHANNELS, **options: Any) -> FFC2d:
    torch.manual_seed(0)
    ffc = FFC2d(*channels, *geometry, **options).double().eval()
    for name, tensor in [*ffc.named_buffers(), *ffc.named_parameters()]:
        if "bn" in name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    if ffc.bias is not None:
        nn.init.normal_(ffc.bias)
    return ffc


def layer_that_stays_ready(**options: Any) -> FFC2d:
    """Weights that lie otherwise are copied, and nothing is kept from call to call."""
    return layer(3, 1, 1, **options).to(memory_format=torch.channels_last)


def image(*size: int, number: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, CHANNELS[0], *size, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def by_parts(ffc: FFC2d, x: Tensor) -> Tensor:
    """By torch's operations."""
    with torch.no_grad(), fft_backend("fft"):
        return ffc(x)


class Sum(nn.Module):
    """ffc(x) + other."""

    def __init__(self, ffc: FFC2d | FFC3d) -> None:
        super().__init__()
        self.ffc = ffc

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.ffc(x) + other


class Shortcut(nn.Module):
    """relu(ffc(x) + other), as in a residual block."""

    def __init__(self, ffc: FFC2d | FFC3d) -> None:
        super().__init__()
        self.ffc, self.relu = ffc, nn.ReLU(inplace=True)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        y = self.ffc(x)
        y += other
        return self.relu(y)
