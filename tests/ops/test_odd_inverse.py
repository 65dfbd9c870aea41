"""The inverse for devices whose complex-to-real transform gives rows of odd width in reverse."""

from __future__ import annotations

import pytest
import torch

from ffconv.ops import fourier
from ffconv.ops.engines import transform_engine


def test_only_mps_is_known_to() -> None:
    assert fourier._reverses_odd_widths("mps")
    assert not fourier._reverses_odd_widths("cpu")
    assert not fourier._reverses_odd_widths("cuda")


@pytest.mark.parametrize("size", [(5, 7), (6, 5), (4, 1), (4, 6)])
def test_by_complex_numbers_it_is_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = torch.randn(2, 6, size[0], size[1] // 2 + 1, dtype=torch.float64)
    with transform_engine("fft"):
        expected = fourier.irfftn(spectrum, (2, 3), size[1])
        monkeypatch.setattr(fourier, "_reverses_odd_widths", lambda device_type: True)
        torch.testing.assert_close(fourier.irfftn(spectrum, (2, 3), size[1]), expected, rtol=0, atol=1e-12)
