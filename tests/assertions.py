"""Assertions that the tests of layers share. The definition is the same layer in float64, which runs in plain torch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ffconv.dispatch import fft_backend

# Largest difference, relative to the largest value of the definition.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
GRADIENT_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-10}


def definition(layer: nn.Module) -> nn.Module:
    """Return a float64 copy of a layer."""
    for module in layer.modules():  # computed weights, such as pruned ones, cannot be copied with their graph
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                module.__dict__[name] = value.detach()
    return copy.deepcopy(layer).double()


def assert_near(found: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Compare with a reference of higher precision."""
    tolerance = tolerance or TOLERANCE[found.dtype]
    assert found.shape == expected.shape
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


def assert_matches_definition(layer: nn.Module, x: Tensor, *, gradients: bool = True) -> None:
    """Compare outputs, gradients and buffers of a layer with those of its definition.

    A ReLU whose input rounds to the other side of zero gives another gradient in float32: where gradients differ from
    those in float64, they must be those of plain torch in float32.
    """
    exact, twin = definition(layer), copy.deepcopy(layer)
    exact_x = x.detach().double().requires_grad_(gradients)
    x = x.detach().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        y, expected = layer(x), exact(exact_x)
    assert_near(y, expected)
    if gradients:
        direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        names = ["x", *(name for name, p in layer.named_parameters() if p.requires_grad)]
        found = _gradients(y, [x, *layer.parameters()], direction.to(y.dtype))
        known = _gradients(expected, [exact_x, *exact.parameters()], direction)
        try:
            _assert_gradients_near(names, found, known)
        except AssertionError:
            with fft_backend("torch"):
                plain = _gradients(twin(x), [x, *twin.parameters()], direction.to(y.dtype))
            _assert_gradients_near(names, found, plain)
    for (name, one), other in zip(layer.named_buffers(), exact.buffers(), strict=True):
        if "parametrizations" in name:  # power iterations of a spectral norm
            continue
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-5)


def _assert_gradients_near(names: list[str], found: Any, known: Any) -> None:
    for name, one, other in zip(names, found, known, strict=True):
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            assert_near(one, other, GRADIENT_TOLERANCE[one.dtype])


def _gradients(y: Tensor, inputs: list[Any], direction: Tensor) -> tuple[Tensor | None, ...]:
    needed = [tensor for tensor in inputs if tensor.requires_grad]
    return torch.autograd.grad(y, needed, direction, allow_unused=True)


def randomise_norms(module: nn.Module) -> nn.Module:
    """Set statistics and affine weights as after some training, so that no norm is the identity."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            for tensor in (m.running_var, m.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            for tensor in (m.running_mean, m.bias):
                nn.init.uniform_(tensor, -0.5, 0.5)  # pyright: ignore[reportArgumentType]
    return module
