"""The compiled Spectral Transform against its modules, one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import oracles
from ffconv import SpectralTransform, fft_backend
from ffconv.nn import fused, native

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")

# Channels in and out: fewer than a vector, as many, more, and no multiple; sides even, odd and of one pixel.
CHANNELS = [(2, 2), (3, 16), (16, 24), (64, 32), (5, 40), (33, 96)]
SIZES = [(8, 8), (7, 9), (14, 14), (1, 5), (2, 1), (31, 3), (3, 62), (50, 4)]


def transform(channels: tuple[int, int], *, lfu: bool = True, seed: int = 0) -> SpectralTransform:
    torch.manual_seed(seed)
    model = SpectralTransform(*channels, lfu=lfu).double()
    oracles.randomise_norms(model)
    return model


def maps(channels: tuple[int, int], size: tuple[int, int], batch: int = 2) -> tuple[Tensor, Tensor]:
    """A part of a wider map, and a map that is wider than the result."""
    generator = torch.Generator().manual_seed(1)
    wider = [torch.randn(batch, c + 3, *size, dtype=torch.float64, generator=generator) for c in channels]
    x, onto = (each.contiguous(memory_format=torch.channels_last) for each in wider)
    return x[:, 3:], onto


def by_modules(model: SpectralTransform, x: Tensor, onto: Tensor) -> Tensor:
    """The same with nothing compiled."""
    with fft_backend("fft"):
        return model(x, onto)


@pytest.fixture
def threads():
    """Sets how many threads compute."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", SIZES)
def test_inference(channels: tuple[int, int], size: tuple[int, int], lfu: bool) -> None:
    model = transform(channels, lfu=lfu).eval()
    x, onto = maps(channels, size)
    with torch.no_grad():
        expected = by_modules(model, x, onto.clone())
        ours = model(x, onto.clone())
    torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", SIZES)
def test_training(channels: tuple[int, int], size: tuple[int, int], lfu: bool) -> None:
    model = transform(channels, lfu=lfu)
    reference = copy.deepcopy(model)
    results = []
    for each, run in ((model, nn.Module.__call__), (reference, by_modules)):
        x, onto = maps(channels, size)
        x.requires_grad_()
        y = run(each, x, onto)
        weights = torch.arange(y.numel(), dtype=y.dtype).sin().reshape(y.shape)
        gradients = torch.autograd.grad((y * weights).sum(), [x, *each.parameters()])
        results.append([y, *gradients, *each.buffers()])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_any_number_of_threads(batch: int, count: int, training: bool, threads) -> None:
    channels, size = (16, 24), (9, 14)
    model = transform(channels).train(training)
    x, onto = maps(channels, size, batch)
    x.requires_grad_(training)
    expected = by_modules(copy.deepcopy(model), x, onto.clone())
    threads(count)
    ours = model(x, onto.clone())
    torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-11)
    if training:
        (gradient,) = torch.autograd.grad(ours.square().sum(), x)
        (of_modules,) = torch.autograd.grad(expected.square().sum(), x)
        torch.testing.assert_close(gradient, of_modules, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("still", ["bn1", "fu", "lfu"])
def test_norms_may_differ_in_mode(still: str) -> None:
    channels, size = (6, 12), (8, 6)
    model = transform(channels)
    model.get_submodule(still).eval()
    reference = copy.deepcopy(model)
    results = []
    for each, run in ((model, nn.Module.__call__), (reference, by_modules)):
        x, onto = maps(channels, size)
        y = run(each, x.requires_grad_(), onto)
        results.append([y, *torch.autograd.grad(y.sin().sum(), list(each.parameters())), *each.buffers()])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_maps_whose_channels_lie_apart(training: bool) -> None:
    model = transform((4, 6)).train(training)
    x, onto = (each.contiguous() for each in maps((4, 6), (5, 6)))
    x.requires_grad_(training)
    expected = by_modules(copy.deepcopy(model), x, onto.clone())
    torch.testing.assert_close(model(x, onto.clone()), expected)


@pytest.mark.parametrize("training", [True, False])
def test_float32(training: bool) -> None:
    model = transform((64, 64)).train(training)
    x, onto = maps((64, 64), (14, 14))
    expected = by_modules(copy.deepcopy(model), x, onto.clone())
    ours = model.float()(x.float(), onto.float())
    torch.testing.assert_close(ours.double(), expected, atol=1e-4, rtol=1e-4)


def test_variance_of_values_far_from_zero() -> None:
    model = transform((3, 8))
    x, onto = maps((3, 8), (8, 8))
    far = (x.float() + 300).requires_grad_()
    expected = by_modules(copy.deepcopy(model), far.double(), onto.clone())
    torch.testing.assert_close(model.float()(far, onto.float()).double(), expected, atol=0.05, rtol=0.05)


def test_nan_and_infinity_are_seen() -> None:
    model = transform((3, 8)).eval()
    x, _ = maps((3, 8), (4, 4))
    x = x.clone()
    x[1, 0, 2, 2] = float("nan")
    with torch.no_grad():
        y = model(x)
    assert y[0].isfinite().all()
    assert y[1].isnan().any()


def test_types_that_differ_are_refused_by_torch() -> None:
    model = transform((3, 8)).eval()
    x, _ = maps((3, 8), (4, 4))
    layers = model.layers_as_built()
    assert layers is not None
    assert fused.spectral_transform(x.float(), None, layers, model.conv2.weight) is None
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        model(x.float())


def test_frozen_weights_get_no_gradient_and_the_map_gets_its_own() -> None:
    model = transform((4, 6)).requires_grad_(False)
    x, onto = maps((4, 6), (5, 6))
    x.requires_grad_()
    expected = by_modules(copy.deepcopy(model), x, onto.clone())
    (of_modules,) = torch.autograd.grad(expected.square().sum(), x)
    (gradient,) = torch.autograd.grad(model(x, onto.clone()).square().sum(), x)
    torch.testing.assert_close(gradient, of_modules)
    assert all(parameter.grad is None for parameter in model.parameters())
