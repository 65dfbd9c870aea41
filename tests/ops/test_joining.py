"""Parts that are brought together, whoever calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ffconv.ops.joining import add_to_global, add_to_local

COMPILED = partial(torch.compile, fullgraph=True, backend="aot_eager")


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """One of five channels, and one of two in another precision."""
    torch.manual_seed(0)
    return torch.randn(1, 5, 2, 3, dtype=torch.bfloat16), torch.randn(1, 2, 2, 3)


@pytest.mark.parametrize("prepare", [lambda function: function, COMPILED], ids=["eager", "compiled"])
@pytest.mark.parametrize(("add", "part"), [(add_to_local, slice(2)), (add_to_global, slice(3, None))])
def test_the_sum_has_the_maps_own_precision(
    maps: tuple[Tensor, Tensor], add: Callable, part: slice, prepare: Callable
) -> None:
    y, z = maps
    expected = y.clone()
    expected[:, part] += z
    torch.testing.assert_close(prepare(add)(y.clone(), z), expected, rtol=0.02, atol=0.02)


def test_the_gradient_of_a_part_has_its_own_precision(maps: tuple[Tensor, Tensor]) -> None:
    y, z = maps
    z.requires_grad_()
    add_to_global(y.clone(), z).float().square().sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * (y[:, 3:] + z).bfloat16().float(), rtol=0.02, atol=0.05)
