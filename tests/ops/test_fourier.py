"""Transforms against explicit DFT matrices."""

from __future__ import annotations

import pytest
import torch

import oracles
from ffconv.ops.fourier import irfft2, rfft2

SIZES = [(1, 1), (1, 6), (7, 1), (2, 2), (4, 6), (7, 5), (5, 8), (8, 8)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_rfft2_is_the_dft_interleaved(size, dtype):
    x = torch.randn(2, 3, *size, dtype=dtype)
    expected = oracles.rfft2(x.double())
    spectrum = rfft2(x)
    assert spectrum.dtype == dtype
    torch.testing.assert_close(spectrum[:, 0::2].double(), expected.real, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(spectrum[:, 1::2].double(), expected.imag, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_irfft2_of_a_spectrum_that_is_not_hermitian(size, dtype):
    height, width = size
    spectrum = torch.randn(2, 6, height, width // 2 + 1, dtype=dtype)
    expected = oracles.irfft2(torch.complex(spectrum[:, 0::2].double(), spectrum[:, 1::2].double()), width)
    torch.testing.assert_close(irfft2(spectrum, width).double(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(irfft2(rfft2(x), size[1]), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "view", [lambda x: x.to(memory_format=torch.channels_last), lambda x: x[:, ::2, :, 1:]]
)
def test_memory_layout_does_not_matter(view):
    x = view(torch.randn(2, 6, 5, 8, dtype=torch.float64))
    torch.testing.assert_close(rfft2(x), rfft2(x.clone(memory_format=torch.contiguous_format)))


def test_channels_last_spectrum_is_channels_last():
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    assert rfft2(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (4, 3)])
def test_gradcheck(size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    spectrum = torch.randn(1, 4, size[0], size[1] // 2 + 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rfft2, x)
    assert torch.autograd.gradcheck(lambda s: irfft2(s, size[1]), spectrum)
