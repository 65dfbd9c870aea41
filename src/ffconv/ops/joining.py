"""How the parts of a Fast Fourier Convolution are brought together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ffconv.ops.onlookers import is_exporting, need_operations


class _AddToPart(torch.autograd.Function):
    """y with z added to some of its channels in place: one pass, where slicing needs three and two more
    backward."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, first: int) -> Tensor:
        ctx.part = (1, first, z.shape[1])
        y.narrow(*ctx.part).add_(z)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grad_outputs
        return grad, grad.narrow(*ctx.part), None


def add_to_global(y: Tensor, z: Tensor) -> Tensor:
    """Add z to the last channels of y, which is given away: it may be written to.

    Shape:
        y (N, C, *size), z (N, C_g, *size) with C_g <= C -> (N, C, *size).
    """
    return _add_to_part(y, z, y.shape[1] - z.shape[1])


def add_to_local(y: Tensor, z: Tensor) -> Tensor:
    """As :func:`add_to_global`, to the first channels of y."""
    return _add_to_part(y, z, 0)


def _add_to_part(y: Tensor, z: Tensor, first: int) -> Tensor:
    if y.shape[1] == z.shape[1]:
        return y + z
    if torch.compiler.is_compiling() or need_operations():
        z = z.to(y.dtype)
        if first == 0:
            return torch.cat([y[:, : z.shape[1]] + z, y[:, z.shape[1] :]], dim=1)
        return torch.cat([y[:, :first], y[:, first:] + z], dim=1)
    return _AddToPart.apply(y, z, first)  # pyright: ignore[reportReturnType]


def split_sides(x: Tensor, local: int) -> tuple[Tensor, Tensor]:
    """The first ``local`` channels of x, and the others."""
    if is_exporting():
        return x[:, :local], x[:, local:]  # the operators that exported graphs have anyway
    first, second = x.split([local, x.shape[1] - local], dim=1)  # whose gradients are joined by one copy
    return first, second


def zero_block_costs(part: int, whole: int) -> bool:
    """Whether a convolution runs faster from each side by itself than as one with a zero block, so large a
    part of the whole weight.

    On the CPU it does from a quarter on, a ratio of one half (docs/performance.md).
    """
    return 4 * part >= whole


class _Fork(torch.autograd.Function):
    """x and its global channels, whose gradient is added to that of x in place.

    A slice's gradient is a map of zeros that is filled in, and then added.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, local: int) -> tuple[Tensor, Tensor]:
        ctx.local = local
        return x[...], x[:, local:]  # view_as gives a single image other strides, that padding is slow for

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        grad, of_global = grad_outputs
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            grad = grad.clone()
        grad.narrow(1, ctx.local, of_global.shape[1]).add_(of_global)
        return grad, None


def fork_global(x: Tensor, local: int) -> tuple[Tensor, Tensor]:
    """x and its channels from number ``local`` on.

    The first is for a convolution or a padding alone, which make a gradient of their own: it is written to.
    """
    own_gradient = x.requires_grad and 0 < local < x.shape[1]
    if own_gradient and not (torch.compiler.is_compiling() or need_operations()):
        return _Fork.apply(x, local)  # pyright: ignore[reportReturnType]
    return x, x[:, local:]


class _Join(torch.autograd.Function):
    """One allocation and one copy of each block; joining columns and then rows copies most of them twice."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], split: tuple[int, int], *blocks: Tensor | None) -> Tensor:
        ctx.split = split
        like = next(block for block in blocks if block is not None)
        dense = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_memory_format(like))
        for quarter, block in zip(_quarters(dense, split), (*blocks, None), strict=True):
            quarter.zero_() if block is None else quarter.copy_(block)
        return dense

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        quarters = _quarters(grad_outputs[0], ctx.split)[:3]
        needed = ctx.needs_input_grad[2:]
        return None, None, *(part if need else None for part, need in zip(quarters, needed, strict=True))


def join_blocks(
    shape: tuple[int, ...],
    split: tuple[int, int],
    top_left: Tensor | None,
    top_right: Tensor | None,
    bottom_left: Tensor | None,
) -> Tensor:
    """Convolution weights as blocks of one weight; what is None, and the block at the bottom right, is zero.

    Args:
        shape: of the result, (O, I, *kernel).
        split: (o, i), where the second row and the second column of blocks begin.
        top_left: (o, i, *kernel).
        top_right: (o, I - i, *kernel).
        bottom_left: (O - o, i, *kernel).
    """
    blocks = (top_left, top_right, bottom_left)
    if not (torch.compiler.is_compiling() or need_operations()):
        return _Join.apply(shape, split, *blocks)  # pyright: ignore[reportReturnType]
    like = next(block for block in blocks if block is not None)
    quarters = _quarters(like.new_zeros(shape), split)
    filled = [
        zeros if block is None else block for zeros, block in zip(quarters, (*blocks, None), strict=True)
    ]
    return torch.cat([torch.cat(filled[:2], dim=1), torch.cat(filled[2:], dim=1)])


def _quarters(matrix: Tensor, split: tuple[int, int]) -> list[Tensor]:
    row, column = split
    columns = (slice(column), slice(column, None))
    return [half[:, side] for half in (matrix[:row], matrix[row:]) for side in columns]


def _memory_format(x: Tensor) -> torch.memory_format:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(x.dim())
    # A kernel of one entry is contiguous in both formats: its strides tell which one was meant.
    if last is None or x.stride(-1) == 1 or not x.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


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
