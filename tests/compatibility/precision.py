"""Rows of the matrix: types of numbers, and results that repeat."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compatibility.families import Family


def float64(family: Family) -> None:
    """In double precision the network computes its function, nearer than in float32."""
    network, x = family.network().eval(), family.input()
    with torch.no_grad():
        expected = network(x)
        y = network.double()(x.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y.float(), expected, rtol=1e-4, atol=1e-4)


def autocast_bfloat16(family: Family) -> None:
    _autocast(family, torch.bfloat16)


def autocast_float16(family: Family) -> None:
    _autocast(family, torch.float16)


def whole_bfloat16(family: Family) -> None:
    _whole(family, torch.bfloat16)


def whole_float16(family: Family) -> None:
    _whole(family, torch.float16)


def scaled_gradients(family: Family) -> None:
    """A step of SGD under float16 autocast by way of GradScaler."""
    network = family.network()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with torch.autocast("cpu", torch.float16):
        loss = network(family.input()).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 1024  # no gradient was infinite or NaN
    assert any(not torch.equal(p, before[name]) for name, p in network.named_parameters())


def deterministic(family: Family) -> None:
    """Under ``torch.use_deterministic_algorithms`` two steps give the same bits."""
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (_output_and_gradients(family) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(tensor.isfinite().all() for tensor in first)


def _autocast(family: Family, dtype: torch.dtype) -> None:
    """A step under autocast: an output near that of float32, a finite gradient for every parameter."""
    network, x = family.network(), family.input()
    expected = copy.deepcopy(network).eval()(x).detach()
    with torch.autocast("cpu", dtype):
        assert_near(network.eval()(x), expected, dtype)
        network.train()(x).float().square().mean().backward()
    _assert_finite_gradients(network, x, dtype)


def _whole(family: Family, dtype: torch.dtype) -> None:
    """Parameters and input in half precision: an output near that of float32, finite gradients."""
    network, x = family.network(), family.input()
    expected = copy.deepcopy(network).eval()(x).detach()
    network = network.to(dtype)
    y = network.eval()(x.to(dtype))
    assert y.dtype == dtype
    assert_near(y, expected, dtype)
    network.train()(x.to(dtype)).float().square().mean().backward()
    _assert_finite_gradients(network, x, dtype)


def _assert_finite_gradients(network: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    assert all(p.grad is not None for p in network.parameters())
    not_finite = [p for p in network.parameters() if p.grad is not None and not p.grad.isfinite().all()]
    if dtype == torch.bfloat16 and not_finite and all(p.dim() == 5 for p in not_finite):
        pytest.skip("torch's own nn.Conv3d gives NaN as weight gradients in bfloat16 on this processor")
    assert not not_finite


def assert_near(y: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Within some hundred roundings of the type, measured by the output's own spread."""
    error = (y.float() - expected).square().mean().sqrt()
    spread = expected.square().mean().sqrt()
    assert error < 100 * torch.finfo(dtype).eps * spread / 8, f"error {error:.2g} of {spread:.2g}"


def _output_and_gradients(family: Family) -> list[Tensor]:
    network: nn.Module = family.network()
    y = network(family.input())
    y.square().mean().backward()
    return [y.detach(), *(p.grad for p in network.parameters() if p.grad is not None), *network.buffers()]
