"""The compiled transforms against torch.fft."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ffconv.nn import native

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")

SIZES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (3, 3),
    (7, 7),
    (14, 14),
    (5, 8),
    (9, 15),
    (22, 26),
    (31, 29),
    (56, 28),
    (64, 12),
]
CHANNELS = [1, 3, 8, 11, 16, 20, 37]


def image(channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, dtype=dtype, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def spectrum_of(x: Tensor) -> Tensor:
    spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))  # (N, C, H, Wf, 2)
    return spectrum.permute(0, 1, 4, 2, 3).flatten(1, 2)


def map_of(spectrum: Tensor, width: int) -> Tensor:
    pairs = spectrum.unflatten(1, (-1, 2)).movedim(2, -1).contiguous()
    columns = torch.fft.ifft(torch.view_as_complex(pairs), dim=-2, norm="ortho")
    return torch.fft.irfft(columns, n=width, dim=-1, norm="ortho")


def any_spectrum(channels: int, size: tuple[int, int]) -> Tensor:
    """Not that of a real map."""
    return image(2 * channels, (size[0], size[1] // 2 + 1))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_forward(size: tuple[int, int], channels: int) -> None:
    x = image(channels, size)
    torch.testing.assert_close(native.rfft2(x), spectrum_of(x), atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_inverse_of_any_spectrum(size: tuple[int, int], channels: int) -> None:
    spectrum = any_spectrum(channels, size)
    torch.testing.assert_close(native.irfft2(spectrum, size), map_of(spectrum, size[1]), atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_float32(size: tuple[int, int]) -> None:
    x = image(20, size)
    there = native.rfft2(x.float())
    torch.testing.assert_close(there.double(), spectrum_of(x), atol=4e-6, rtol=0)
    torch.testing.assert_close(native.irfft2(there, size).double(), x, atol=4e-6, rtol=0)


@pytest.mark.parametrize(
    "x",
    [image(9, (6, 10))[:, 4:], image(9, (6, 10)).contiguous(), image(9, (12, 20))[:, :, ::2, ::2]],
    ids=["slice of channels", "channels apart", "every other pixel"],
)
def test_any_strides(x: Tensor) -> None:
    torch.testing.assert_close(native.rfft2(x), spectrum_of(x))


@pytest.mark.parametrize("width", [6, 7])
def test_inner_columns(width: int) -> None:
    spectrum = any_spectrum(3, (5, width))
    factor = torch.full((width // 2 + 1,), 0.5, dtype=spectrum.dtype)
    factor[0] = 1
    if width % 2 == 0:
        factor[-1] = 1
    torch.testing.assert_close(
        native.irfft2(spectrum, (5, width), inner=0.5), map_of(spectrum * factor, width)
    )
    x = image(3, (5, width))
    torch.testing.assert_close(native.rfft2(x, inner=0.5), spectrum_of(x) * factor)


@pytest.mark.parametrize(("n", "fits"), [(1, True), (62, True), (961, True), (37, False), (74, False)])
def test_sizes_with_a_large_prime_factor_do_not_suit(n: int, fits: bool) -> None:
    x = torch.ones(1, 1, n, 4)
    assert native.suits(x, n, 4) == native.suits(x, 4, n) == fits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_other_types_do_not_suit(dtype: torch.dtype) -> None:
    assert not native.suits(torch.ones(1, 1, 4, 4, dtype=dtype), 4, 4)


def test_other_devices_do_not_suit() -> None:
    assert not native.suits(torch.ones(1, 1, 4, 4, device="meta"), 4, 4)


def test_no_images_do_not_suit() -> None:
    assert not native.suits(torch.ones(0, 1, 4, 4), 4, 4)
