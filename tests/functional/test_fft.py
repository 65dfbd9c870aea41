"""Transforms against explicit DFT matrices."""

from __future__ import annotations

import pytest
import torch

import oracles
from ffconv.dispatch import irfftn, rfftn

IMAGE = (2, 3)
SIZES = [(1, 1), (1, 6), (7, 1), (2, 2), (4, 6), (7, 5), (5, 8), (8, 8)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_rfftn_is_the_dft_interleaved(size, dtype):
    x = torch.randn(2, 3, *size, dtype=dtype)
    expected = oracles.rfftn(x.double())
    spectrum = rfftn(x, IMAGE)
    assert spectrum.dtype == dtype
    torch.testing.assert_close(spectrum[:, 0::2].double(), expected.real, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(spectrum[:, 1::2].double(), expected.imag, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
def test_irfftn_of_a_spectrum_that_is_not_hermitian(size, dtype):
    height, width = size
    spectrum = torch.randn(2, 6, height, width // 2 + 1, dtype=dtype)
    expected = oracles.irfftn(
        torch.complex(spectrum[:, 0::2].double(), spectrum[:, 1::2].double()), IMAGE, width
    )
    torch.testing.assert_close(
        irfftn(spectrum, IMAGE, width).double(), expected, rtol=0, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(irfftn(rfftn(x, IMAGE), IMAGE, size[1]), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "view", [lambda x: x.to(memory_format=torch.channels_last), lambda x: x[:, ::2, :, 1:]]
)
def test_memory_layout_does_not_matter(view):
    x = view(torch.randn(2, 6, 5, 8, dtype=torch.float64))
    contiguous = x.clone(memory_format=torch.contiguous_format)
    torch.testing.assert_close(rfftn(x, IMAGE), rfftn(contiguous, IMAGE))


def test_channels_last_spectrum_is_channels_last():
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    assert rfftn(x, IMAGE).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (4, 3)])
def test_gradcheck(size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    spectrum = torch.randn(1, 4, size[0], size[1] // 2 + 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rfftn(x, IMAGE), x)
    assert torch.autograd.gradcheck(lambda s: irfftn(s, IMAGE, size[1]), spectrum)


# Of a video (N, C, T, H, W): each frame, the whole, its time, its rows over time.
VIDEO_AXES = [(3, 4), (2, 3, 4), (2,), (2, 4)]
VIDEO_SIZES = [(1, 1, 1), (2, 3, 4), (5, 4, 3)]


@pytest.mark.parametrize("axes", VIDEO_AXES)
@pytest.mark.parametrize("size", VIDEO_SIZES)
def test_rfftn_of_a_video_is_the_dft_along_the_axes(size, axes):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected, spectrum = oracles.rfftn(x, axes), rfftn(x, axes)
    parts = torch.complex(spectrum[:, 0::2], spectrum[:, 1::2])
    torch.testing.assert_close(parts, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", VIDEO_AXES)
@pytest.mark.parametrize("size", VIDEO_SIZES)
def test_irfftn_of_a_video_spectrum_that_is_not_hermitian(size, axes):
    width = size[axes[-1] - 2]
    spectrum = torch.randn_like(rfftn(torch.zeros(2, 3, *size, dtype=torch.float64), axes))
    expected = oracles.irfftn(torch.complex(spectrum[:, 0::2], spectrum[:, 1::2]), axes, width)
    torch.testing.assert_close(irfftn(spectrum, axes, width), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", VIDEO_AXES)
def test_gradcheck_of_a_video(axes):
    x = torch.randn(1, 2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rfftn(x, axes), x)
    spectrum = torch.randn_like(rfftn(x.detach(), axes)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: irfftn(s, axes, x.shape[axes[-1]]), spectrum)


@pytest.mark.parametrize("axes", VIDEO_AXES)
def test_a_compiler_is_told_the_layout_that_comes(axes):
    x = torch.randn(2, 3, 4, 5, 6)
    spectrum = torch.randn_like(rfftn(x, axes))
    width = x.shape[axes[-1]]
    torch.library.opcheck(torch.ops.ffconv.rfftn, (x, axes, "auto", 1.0))
    torch.library.opcheck(torch.ops.ffconv.irfftn, (spectrum, axes, width, "auto", 1.0))
