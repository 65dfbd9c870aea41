"""A step on a device neither waits for the host nor takes anything from it, so that CUDA can record it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ffconv
from compatibility.families import FAMILIES, Family
from ffconv.dispatch import FFTBackend


class _Devices(TorchDispatchMode):
    """Writes down the operations that see a tensor of another device than the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.elsewhere.append(str(func))
        return out


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_step_stays_on_its_device(family: Family, train: bool) -> None:
    """Reading a value, as ``.item()`` does, is an error on the meta device."""
    with torch.device("meta"):
        network, x = family.build().train(train), torch.empty(2, *family.size)
    with _Devices() as devices:
        network(x).square().mean().backward()
    assert devices.elsewhere == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_cuda_graphs(family: Family, dtype: torch.dtype) -> None:
    network, x = family.network().eval().cuda(), family.input().cuda()
    torch.compiler.reset()
    recorded = torch.compile(network, fullgraph=True, mode="reduce-overhead")
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        expected = network(x)
        for _ in range(3):  # warm up, record, replay
            torch.compiler.cudagraph_mark_step_begin()
            y = recorded(x).clone()
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["dft_matmul", "triton"])
def test_cuda_graphs_of_other_backends(backend: FFTBackend) -> None:
    """Their matrices are made in the first step, and must lie outside the graph's memory."""
    family = next(family for family in FAMILIES if family.name == "FFC2d")
    network, x = family.network().eval().cuda(), family.input().cuda()
    torch.compiler.reset()
    recorded = torch.compile(network, fullgraph=True, mode="reduce-overhead")
    with torch.no_grad(), ffconv.fft_backend(backend):
        for _ in range(3):
            torch.compiler.cudagraph_mark_step_begin()
            y = recorded(x).clone()
        torch.testing.assert_close(y, network(x), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_cuda_graphs_of_training_steps(family: Family) -> None:
    network, twin, x = family.network().cuda(), family.network().cuda(), family.input().cuda()
    torch.compiler.reset()
    recorded = torch.compile(network, mode="reduce-overhead")
    for _ in range(3):
        for step, model in ((recorded, network), (twin, twin)):
            model.zero_grad()
            torch.compiler.cudagraph_mark_step_begin()
            step(x).square().mean().backward()
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        ours, expected = cast(Tensor, p.grad), cast(Tensor, q.grad)
        assert (ours - expected).norm() < 1e-2 * expected.norm().clamp(min=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_autocast_on_cuda(family: Family, dtype: torch.dtype) -> None:
    network, x = family.network().cuda(), family.input().cuda()
    with torch.no_grad():
        expected = network.eval()(x)
    with torch.autocast("cuda", dtype):
        y = network(x)
        network.train()(x).float().square().mean().backward()
    error = (y.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < 12 * torch.finfo(dtype).eps
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
