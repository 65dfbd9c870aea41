"""FFC1d: sequences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import oracles
from ffconv.nn import FFC1d, FFC2d

GEOMETRIES = [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (5, 3, 1, 1), (3, 1, "same", 2), (2, 2, 0, 1)]
CLOSE = {"rtol": 0, "atol": 1e-11}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("length", [7, 12])
@pytest.mark.parametrize("groups", [1, 2])
def test_definition(geometry, length, groups):
    layer = FFC1d(16, 16, *geometry, groups, ratio=0.5, dtype=torch.float64).eval()
    oracles.randomise_norms(layer)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 16, length, dtype=torch.float64)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


def test_is_ffc2d_on_a_map_of_one_row_without_lfu():
    sequence = FFC1d(8, 8, 3, padding=1, ratio=0.5, lfu=False, dtype=torch.float64).eval()
    image = FFC2d(8, 8, (1, 3), padding=(0, 1), ratio=0.5, lfu=False, dtype=torch.float64).eval()
    state = sequence.state_dict()
    image.load_state_dict({name: v.unsqueeze(2) if v.dim() == 3 else v for name, v in state.items()})
    x = torch.randn(2, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(sequence(x), image(x[:, :, None])[:, :, 0], **CLOSE)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode):
    layer = FFC1d(8, 8, 3, padding=1, padding_mode=mode, ratio=0.5, dtype=torch.float64).eval()
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


def test_gradcheck():
    layer = FFC1d(4, 4, 3, stride=2, padding=1, ratio=0.5, dtype=torch.float64).eval()
    assert torch.autograd.gradcheck(layer, torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True))


def test_ratio_0_is_the_plain_convolution():
    layer, conv = FFC1d(4, 6, 3, 2, 1, ratio=0), nn.Conv1d(4, 6, 3, 2, 1)
    layer.load_dense_weight(conv.weight, conv.bias)
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(layer(x), conv(x))


def test_raises_on_an_axis_of_images():
    with pytest.raises(ValueError, match=r"spectral_dims=\('w',\) must name axes .* among \('l',\)"):
        FFC1d(8, 8, 3, spectral_dims=("w",))
