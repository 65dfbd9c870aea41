"""A map cut into halves along its transformed axes, as the Local Fourier Unit does it, and laid out again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def parts_to_channels(x: Tensor, axes: Sequence[int]) -> Tensor:
    """(N, q, H, W) -> (N, 4q, ceil(H / 2), ceil(W / 2)) for the axes (2, 3)."""
    halves = {axis: (x.shape[axis] + 1) // 2 for axis in axes}
    sizes = [x.shape[axis] for axis in axes]
    if not _parities_are_known(sizes) or any(size % 2 for size in sizes):
        missing = [2 * halves[axis] - x.shape[axis] if axis in halves else 0 for axis in range(2, x.dim())]
        x = F.pad(x, [pad for after in reversed(missing) for pad in (0, after)], mode="replicate")
    parts = [x]
    for axis, half in reversed(halves.items()):
        parts = [part.narrow(axis, start, half) for part in parts for start in (0, half)]
    return torch.cat(parts, dim=1)


def tile(x: Tensor, axes: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Lay the map out twice along each of the axes, up to these sizes."""
    if not _parities_are_known(sizes):
        for axis, size in zip(axes, sizes, strict=True):
            half, index = x.shape[axis], torch.arange(size, device=x.device)
            x = x.index_select(axis, torch.where(index < half, index, index - half))
        return x
    # The unit's output has its channels last in memory; repeat would lay it out anew.
    repeats = [2 if axis in axes else 1 for axis in range(2, x.dim())]
    tiled = x.movedim(1, -1).repeat(1, *repeats, 1).movedim(-1, 1)
    for axis, size in zip(axes, sizes, strict=True):
        tiled = tiled.narrow(axis, 0, size)
    return tiled


def _parities_are_known(sizes: Sequence[int]) -> bool:
    """Whether padding odd sizes and cropping to them needs no guard; dynamic sizes take a way without."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(any(statically_known_true(size % 2 == parity) for parity in (0, 1)) for size in sizes)
