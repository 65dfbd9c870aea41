"""The form that the transforms have on CUDA, run on the CPU against explicit DFT matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import oracles
from ffconv.nn import cufft, fourier
from ffconv.dispatch import fft_backend

IMAGE = (2, 3)
CASES = [
    *((IMAGE, size) for size in [(1, 1), (1, 6), (7, 1), (2, 2), (4, 6), (7, 5)]),
    ((2,), (9,)),
    *((axes, (4, 3, 6)) for axes in [(3, 4), (2, 3, 4), (2,), (2, 4), (2, 3)]),
]


def as_parts(spectrum: Tensor) -> Tensor:
    return torch.complex(spectrum[:, 0::2], spectrum[:, 1::2])


def any_spectrum(axes: tuple[int, ...], size: tuple[int, ...]) -> tuple[Tensor, int]:
    """A half spectrum that is not Hermitian, and the width of its maps."""
    width = size[axes[-1] - 2]
    halved = [n // 2 + 1 if axis == axes[-1] else n for axis, n in enumerate(size, start=2)]
    return torch.randn(2, 6, *halved, dtype=torch.float64), width


@pytest.mark.parametrize(("axes", "size"), CASES)
def test_forward(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = oracles.rfftn(x, axes)
    torch.testing.assert_close(as_parts(cufft.rfftn(x, axes)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("axes", "size"), CASES)
def test_inverse_of_a_spectrum_that_is_not_hermitian(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    spectrum, width = any_spectrum(axes, size)
    given = spectrum.clone()
    expected = oracles.irfftn(as_parts(spectrum), axes, width)
    torch.testing.assert_close(cufft.irfftn(spectrum, axes, width), expected, rtol=0, atol=1e-12)
    assert torch.equal(spectrum, given)


@pytest.mark.parametrize("width", [1, 2, 5, 6])
def test_inner_columns_are_weighted(width: int) -> None:
    x, (spectrum, _) = torch.randn(2, 3, 4, width), any_spectrum(IMAGE, (4, width))
    weights = fourier._inner_columns(0.25, width, spectrum, 3)
    torch.testing.assert_close(cufft.rfftn(x, IMAGE, inner=0.25), cufft.rfftn(x, IMAGE) * weights.float())
    torch.testing.assert_close(
        cufft.irfftn(spectrum, IMAGE, width, inner=0.25), cufft.irfftn(spectrum * weights, IMAGE, width)
    )


@pytest.mark.parametrize(("axes", "size"), CASES)
def test_channels_come_last_as_a_compiler_is_told(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    x, (spectrum, width) = torch.randn(2, 3, *size), any_spectrum(axes, size)
    assert cufft.rfftn(x, axes).movedim(1, -1).is_contiguous()
    assert cufft.irfftn(spectrum, axes, width).movedim(1, -1).is_contiguous()


class _Seen:
    """What torch's complex-to-real transform is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.columns = torch.empty(0)
        self._irfft = torch.fft.irfft
        monkeypatch.setattr(torch.fft, "irfft", self._look)

    def _look(self, columns: Tensor, **options: object) -> Tensor:
        self.columns = columns.clone()
        return self._irfft(columns, **options)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(("width", "own"), [(5, [0]), (6, [0, 3]), (1, [0]), (2, [0, 1])])
@pytest.mark.parametrize("by_operations", [False, True], ids=["operator", "torch's own operations"])
def test_nothing_undefined_is_asked_of_the_library(
    width: int, own: list[int], by_operations: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it makes of those imaginary parts differs from one GPU library to another."""
    spectrum, _ = any_spectrum(IMAGE, (4, width))
    expected = oracles.irfftn(as_parts(spectrum), IMAGE, width)
    seen = _Seen(monkeypatch)
    if by_operations:
        monkeypatch.setattr(fourier, "_ignores_own_imaginary_parts", lambda device_type: False)
        y = fourier._irfftn(spectrum, IMAGE, width)
        columns = seen.columns.permute(0, 3, 1, 2)
    else:
        y, columns = cufft.irfftn(spectrum, IMAGE, width), seen.columns
    zero = (columns.imag == 0).all(dim=(0, 1, 2)).tolist()
    assert [k for k, is_zero in enumerate(zero) if is_zero] == own
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_on_cuda_half_precision_comes_in_whole_planes() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    whole = fourier._whole_planes(x)
    assert whole.is_contiguous()
    assert torch.equal(whole, x.float())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("axes", "size"), CASES)
def test_on_a_gpu(axes: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype) -> None:
    x, (spectrum, width) = torch.randn(2, 3, *size, dtype=dtype), any_spectrum(axes, size)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    with fft_backend("fft"):
        there = as_parts(fourier.rfftn(x.cuda(), axes)).cpu().to(torch.complex128)
        back = fourier.irfftn(spectrum.cuda().to(dtype), axes, width).cpu().double()
    torch.testing.assert_close(there, oracles.rfftn(x.double(), axes), rtol=0, atol=tolerance)
    expected = oracles.irfftn(as_parts(spectrum), axes, width)
    torch.testing.assert_close(back, expected, rtol=0, atol=tolerance)
