"""PSNR and SSIM against slow definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ffconv.metrics.similarity import masked_mean, psnr, ssim_map


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.rand(2, 3, 14, 17)
    return first, (first + 0.1 * torch.randn_like(first)).clamp(0, 1)


def test_psnr_of_a_constant_difference():
    image = torch.full((1, 3, 8, 8), 0.25)
    assert psnr(image, image + 0.01).item() == pytest.approx(40, abs=1e-4)


def test_psnr_of_equal_images_is_that_of_rounding():
    image = torch.rand(1, 3, 8, 8)
    assert psnr(image, image).item() == pytest.approx(10 * math.log10(12 * 255**2))


def test_psnr_counts_the_pixels_of_the_mask():
    first, second = pictures()
    mask = (torch.rand(2, 1, 14, 17) < 0.3).float()
    inside = mask[1, 0] > 0
    error = (first - second)[1][:, inside].double().square().mean()
    assert psnr(first, second, mask)[1].item() == pytest.approx(-10 * math.log10(error))


def test_an_empty_mask_has_no_psnr():
    first, second = pictures()
    assert psnr(first, second, torch.zeros(2, 1, 14, 17)).isnan().all()


def slow_ssim(x: np.ndarray, y: np.ndarray, row: int, column: int) -> float:
    """The definition of Wang et al. around one pixel, borders reflected."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2

    def around(image: np.ndarray) -> np.ndarray:
        return np.pad(image, 5, mode="reflect")[row : row + 11, column : column + 11]

    a, b = around(x), around(y)
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
    covariance = (window * (a - mean_a) * (b - mean_b)).sum()
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4)


@pytest.mark.parametrize(("row", "column"), [(7, 8), (0, 0), (13, 5), (3, 16)])
def test_ssim_is_its_definition(row: int, column: int):
    first, second = pictures()
    channels = zip(first[1].double().numpy(), second[1].double().numpy(), strict=True)
    expected = np.mean([slow_ssim(x, y, row, column) for x, y in channels])
    assert ssim_map(first, second)[1, 0, row, column].item() == pytest.approx(expected, abs=1e-10)


def test_ssim_of_equal_images_is_1():
    first, _ = pictures()
    torch.testing.assert_close(ssim_map(first, first), torch.ones(2, 1, 14, 17, dtype=torch.float64))


def test_masked_mean_is_each_images_own():
    values = torch.arange(8.0).reshape(2, 1, 2, 2)
    mask = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1]]).reshape(2, 1, 2, 2)
    assert masked_mean(values, mask).tolist() == [1.5, 6.0]
