"""How the parts of a Fast Fourier Convolution are brought together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _AddToGlobal(torch.autograd.Function):
    """y with z added to its last channels in place: one pass, where slicing needs three and two more
    backward."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor) -> Tensor:
        ctx.channels = z.shape[1]
        ctx.dtype = z.dtype
        y.narrow(1, y.shape[1] - ctx.channels, ctx.channels).add_(z)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        return grad, grad.narrow(1, grad.shape[1] - ctx.channels, ctx.channels).to(ctx.dtype)


def add_to_global(y: Tensor, z: Tensor) -> Tensor:
    """Add z to the last channels of y, which is given away: it may be written to.

    Shape:
        y (N, C, *size), z (N, C_g, *size) with C_g <= C -> (N, C, *size).
    """
    if y.shape[1] == z.shape[1]:
        return y + z
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        local = y.shape[1] - z.shape[1]
        return torch.cat([y[:, :local], y[:, local:] + z.to(y.dtype)], dim=1)
    return _AddToGlobal.apply(y, z)  # pyright: ignore[reportReturnType]


def ungroup(weight: Tensor, groups: int) -> Tensor:
    """A grouped convolution's weight as that of an ordinary one, with zeros outside its blocks.

    Shape:
        weight (C_out, C_in / groups, *kernel) -> (C_out, C_in, *kernel).
    """
    if groups == 1:
        return weight
    blocks = weight.unflatten(0, (groups, -1))
    index = torch.arange(groups, device=weight.device)
    dense = weight.new_zeros(groups, blocks.shape[1], groups, *blocks.shape[2:])
    dense[index, :, index] = blocks
    return dense.flatten(2, 3).flatten(0, 1)


def regroup(dense: Tensor, groups: int) -> Tensor:
    """The blocks of :func:`ungroup` out of an ordinary weight.

    Shape:
        dense (C_out, C_in, *kernel) -> (C_out, C_in / groups, *kernel).
    """
    if groups == 1:
        return dense
    index = torch.arange(groups, device=dense.device)
    return dense.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))[index, :, index].flatten(0, 1)
