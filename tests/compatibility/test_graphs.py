"""A step on a device neither waits for the host nor takes anything from it, so that CUDA can record it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compatibility.families import FAMILIES, Family


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
