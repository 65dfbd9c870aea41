"""A map cut into halves along its transformed axes, as the Local Fourier Unit does it, and laid out again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def parts_to_channels(x: Tensor, axes: Sequence[int]) -> Tensor:
    """(N, q, H, W) -> (N, 4q, ceil(H / 2), ceil(W / 2)) for the axes (2, 3)."""
    halves = {axis: (x.shape[axis] + 1) // 2 for axis in axes}
    if torch.compiler.is_compiling() or any(x.shape[axis] % 2 for axis in axes):
        # Padding by nothing costs a copy, a branch on the parity would be a guard for dynamic shapes.
        missing = [2 * halves[axis] - x.shape[axis] if axis in halves else 0 for axis in range(2, x.dim())]
        x = F.pad(x, [pad for after in reversed(missing) for pad in (0, after)], mode="replicate")
    parts = [x]
    for axis, half in reversed(halves.items()):
        parts = [part.narrow(axis, start, half) for part in parts for start in (0, half)]
    return torch.cat(parts, dim=1)


def tile(x: Tensor, axes: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Lay the map out twice along each of the axes, up to these sizes."""
    if torch.compiler.is_exporting():  # cropping would be a guard for dynamic shapes
        for axis, size in zip(axes, sizes, strict=True):
            x = x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])
        return x
    # The unit's output has its channels last in memory; repeat would lay it out anew.
    repeats = [2 if axis in axes else 1 for axis in range(2, x.dim())]
    tiled = x.movedim(1, -1).repeat(1, *repeats, 1).movedim(-1, 1)
    for axis, size in zip(axes, sizes, strict=True):
        tiled = tiled.narrow(axis, 0, size)
    return tiled
