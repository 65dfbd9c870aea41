"""Nothing overflows in float16 for maps of 512 x 512 pixels with values up to 10 000."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ffconv.models.lama_layers import FourierOptions, LamaFourierUnit
from ffconv.ops import FFC2d, FourierUnit, LocalFourierUnit, SpectralTransform

SIDE, LARGEST = 512, 1e4
MAPS = ("nearly constant", "random", "checkerboard")


def image(kind: str, channels: int) -> Tensor:
    """Maps whose energy lies in the constant coefficient, in all of them, and in the highest one."""
    if kind == "nearly constant":
        return torch.empty(1, channels, SIDE, SIDE).uniform_(0.9 * LARGEST, LARGEST)
    if kind == "random":
        return torch.empty(1, channels, SIDE, SIDE).uniform_(-LARGEST, LARGEST)
    row = torch.arange(SIDE)
    signs = 1.0 - 2.0 * ((row[:, None] + row) % 2)
    return LARGEST * signs.expand(1, channels, -1, -1).contiguous()


def network(channels: int) -> nn.Module:
    """The FFC layers of a block, with a norm after each."""
    return nn.Sequential(
        FFC2d(channels, 8, 3, padding=1, bias=False, ratio=0.5),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        FFC2d(8, 8, 3, stride=2, padding=1, bias=False, ratio=0.5),
        nn.BatchNorm2d(8),
    )


LAYERS = {
    "FourierUnit": lambda: FourierUnit(4, 4),
    "LocalFourierUnit": lambda: LocalFourierUnit(4, 4),
    "SpectralTransform": lambda: SpectralTransform(4, 4),
    "FFC2d": lambda: FFC2d(4, 8, 3, padding=1, ratio=0.5),
    "network": lambda: network(4),
    "LaMa's unit, fft_norm=backward": lambda: LamaFourierUnit(4, FourierOptions(fft_norm="backward")),
}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str, kind: str) -> None:
    layer, x = LAYERS[name](), image(kind, 4)
    expected = copy.deepcopy(layer)(x)
    with torch.autocast("cpu", torch.float16):
        y = layer(x)
    _assert_near(y, expected)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", LAYERS)
def test_whole_network(name: str, kind: str) -> None:
    layer, x = LAYERS[name](), image(kind, 4)
    expected = copy.deepcopy(layer)(x)
    _assert_near(layer.half()(x.half()), expected)


def _assert_near(y: Tensor, expected: Tensor) -> None:
    assert y.isfinite().all()
    error = (y.float() - expected).square().mean().sqrt()
    assert error < 0.02 * expected.square().mean().sqrt()
