"""The global -> global path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import golden
import oracles
from ffconv.backends.cpu import kernels
from ffconv.nn import FourierUnit, SpectralTransform


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 6), (8, 8)])
@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_oracle(groups, lfu, size):
    transform = SpectralTransform(8, 12, groups=groups, lfu=lfu, dtype=torch.float64).eval()
    oracles.randomise_norms(transform)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    expected = oracles.spectral_transform(transform, x)
    torch.testing.assert_close(transform(x), expected, rtol=0, atol=1e-12)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.SPECTRAL_CASES)
def test_golden(name, reference):
    arguments, weights, tensors = golden.load_case(reference, name)
    transform = SpectralTransform(**arguments, dtype=torch.float64)
    golden.assert_reproduces(transform, weights, tensors)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_stride_pools_what_is_left_of_the_last_window(stride):
    transform = SpectralTransform(4, 4, stride, dtype=torch.float64).eval()
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    pooled = oracles.aligned_avg_pool(x, 1, stride, 0, 1)
    expected = oracles.spectral_transform(transform, pooled)
    torch.testing.assert_close(transform(x), expected, rtol=0, atol=1e-12)


def test_hidden_channels_are_half_of_the_output_and_at_least_one():
    assert SpectralTransform(4, 6).conv1.out_channels == 3
    assert SpectralTransform(1, 1).conv1.out_channels == 1


def test_gradcheck():
    transform = SpectralTransform(3, 4, 2, dtype=torch.float64).eval()
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform, x)


def test_raises_where_groups_do_not_divide_the_hidden_channels():
    with pytest.raises(ValueError, match="groups=4 must divide hidden_channels=2"):
        SpectralTransform(4, 4, groups=4)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("channels", [4, 6, 10, 30])
@pytest.mark.parametrize("module", [SpectralTransform(8, 16), FourierUnit(8, 8)])
def test_a_map_of_other_channels_is_refused(module, channels, train):
    x = torch.zeros(2, channels, 8, 8, requires_grad=train)
    with pytest.raises(RuntimeError, match="channels"):
        module.train(train)(x)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("part", ["conv1", "bn1", "fu.conv", "fu.bn", "lfu.conv", "conv2"])
def test_parts_that_do_not_go_together_are_refused(part, train):
    transform = SpectralTransform(8, 16).train(train)
    old = transform.get_submodule(part)
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels + 2, old.out_channels, 1, bias=False)
    else:
        new = nn.BatchNorm2d(old.num_features + 2)
    transform.set_submodule(part, new.train(train))
    with pytest.raises((RuntimeError, ValueError)):
        transform(torch.zeros(2, 8, 8, 8))


@pytest.mark.skipif(not kernels.available(), reason="the kernels are not built")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_runs_in_float32(dtype, training):
    spectral = SpectralTransform(8, 12).train(training)
    x = torch.randn(2, 8, 6, 4).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = spectral(x)
    expected = spectral(x.float())
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype), rtol=0, atol=0)
    found, known = (
        torch.autograd.grad(result.float().square().sum(), [x, *spectral.parameters()])
        for result in (y, expected.to(dtype))
    )
    torch.testing.assert_close(found, known)


@pytest.mark.skipif(not kernels.available(), reason="the kernels are not built")
def test_under_autocast_a_float32_map_gives_what_a_convolution_gives():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert SpectralTransform(8, 12).eval()(torch.randn(2, 8, 6, 4)).dtype == torch.bfloat16
