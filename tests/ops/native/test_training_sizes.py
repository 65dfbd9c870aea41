"""The compiled training step where its sums of outer products go by parts: wide layers and long rows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import oracles
from ffconv import SpectralTransform, fft_backend
from ffconv.nn import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


def gradients(model: SpectralTransform, x: torch.Tensor) -> list[torch.Tensor]:
    y = model(x)
    weights = torch.arange(y.numel(), dtype=y.dtype).sin().reshape(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), list(model.parameters())))


@pytest.mark.parametrize(
    ("channels", "size"),
    [
        pytest.param((8, 300), (4, 3), id="spectra of pixels far apart"),
        pytest.param((8, 512), (4, 3), id="spectra of pixels a multiple of 2 KiB apart"),
        pytest.param((270, 20), (4, 3), id="a map of pixels far apart"),
        pytest.param((5, 12), (3, 100), id="rows of many pixels"),
        pytest.param((5, 12), (200, 3), id="columns of many pixels"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_weights(channels: tuple[int, int], size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = SpectralTransform(*channels).to(dtype)
    oracles.randomise_norms(model)
    x = torch.randn(3, channels[0], *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    reference: nn.Module = copy.deepcopy(model)
    with fft_backend("fft"):
        expected = gradients(reference.double(), x.double())
    tolerance = {torch.float32: 2e-3, torch.float64: 1e-9}[dtype]
    for ours, exact in zip(gradients(model, x), expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, atol=tolerance, rtol=tolerance)
