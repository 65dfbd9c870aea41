"""The pooling that follows a convolution's output grid."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import oracles
from ffconv.functional import ConvGeometry, aligned_avg_pool, conv_geometry

CASES = [
    (kernel, stride, padding, dilation)
    for kernel in (1, 2, 3, 7)
    for stride in (1, 2, 3, 4)
    for padding in (0, 1, 3)
    for dilation in (1, 2)
    if dilation * (kernel - 1) + 1 <= 7 + 2 * padding
]


def _geometry(kernel: int, stride: int, padding: int, dilation: int) -> ConvGeometry:
    return conv_geometry(2, kernel, stride, padding, dilation)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
def test_against_explicit_windows(kernel, stride, padding, dilation):
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    pooled = aligned_avg_pool(x, _geometry(kernel, stride, padding, dilation))
    expected = oracles.aligned_avg_pool(x, kernel, stride, padding, dilation)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
def test_output_size_is_the_convolutions(kernel, stride, padding, dilation):
    x = torch.zeros(1, 1, 7, 10)
    conv = F.conv2d(x, torch.zeros(1, 1, kernel, kernel), None, stride, padding, dilation)
    assert _geometry(kernel, stride, padding, dilation).output_size((7, 10)) == tuple(conv.shape[2:])


def test_a_map_that_keeps_its_grid_is_not_copied():
    x = torch.randn(1, 2, 5, 4)
    assert aligned_avg_pool(x, _geometry(3, 1, 1, 1)) is x


def test_axes_may_differ():
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    geometry = conv_geometry(2, (3, 1), (2, 3), (1, 0))
    expected = torch.tensor([[[[4.0, 7.0], [16.0, 19.0]]]])
    torch.testing.assert_close(aligned_avg_pool(x, geometry), expected)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 1), (2, 1, 1), (2, 3, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 1e-2)])
def test_clips_are_pooled_in_every_precision(stride, dtype, tolerance):
    x = torch.randn(2, 3, 5, 7, 6, dtype=torch.float64).to(dtype)
    pooled = aligned_avg_pool(x, conv_geometry(3, 1, stride))
    expected = F.avg_pool3d(x.double(), stride, stride, ceil_mode=True)
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)
