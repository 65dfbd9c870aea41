"""An FFC's 3x3 convolutions in training on the CPU, by tiles of the compiled library.

Forward and both ways back take 16 products a channel and tile of 2x2 pixels instead of 36.

Reference: Lavin, Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.ops import fused, native
from ffconv.ops.geometry import Geometry, Padding
from ffconv.ops.joining import join_blocks
from ffconv.ops.native import Paths


class _Layer(Protocol):
    """An FFC without groups."""

    out_channels: int
    geometry: Geometry
    pad: Padding

    def paths(self) -> Paths:
        """Its ordinary convolutions."""
        ...


def convolve(layer: _Layer, x: Tensor) -> Tensor | None:
    """A layer's ordinary convolutions.

    Args:
        layer: as described by :class:`_Layer`.
        x: (N, C_in, H, W).
    Returns:
        (N, C_out, H_out, W_out), channels last in memory as x is; None where torch's convolutions are to be
        called.
    """
    if torch.compiler.is_compiling() or not (type(x) is Tensor and x.dim() == 4 and x.is_cpu):
        return None
    paths, size = layer.paths().of_frames(), layer.geometry.along(2).output_size(x.shape[2:])
    if not (paths.suit_tiles and paths.make_all(x.shape[1], layer.out_channels)) or min(size) < 1:
        return None
    if not (native.are_rows_adjacent(x) and native.takes(x) and fused.may_be_used()):
        return None
    if not fused.are_alike(x, *paths[:4]):
        return None
    if not native.pays_in_tiles(x, size, layer.out_channels):
        return None
    pad = layer.pad.along(2)
    padded = native.rows_adjacent(pad(x))
    return _Tiles.apply(padded, size, pad.before, *paths[:4])  # pyright: ignore[reportReturnType]


def _paths(weights: Sequence[Tensor | None], padding: Sequence[int]) -> Paths:
    return Paths(*weights, stride=(1, 1), padding=padding, dilation=(1, 1))


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: Sequence[int], padding: Sequence[int], *weights: Tensor | None
    ) -> Tensor:
        ctx.padding = padding
        ctx.save_for_backward(x, *weights)
        with fused.recorded("ffconv::convolution"):
            return native.Convolution(x, size, _paths(weights, padding))(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, *weights = ctx.saved_tensors
        needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3:]]
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            inputs = [x, *weights]
            result = _by_operations(x, weights, ctx.padding)
            found = iter(torch.autograd.grad(result, list(compress(inputs, needs)), grad, create_graph=True))
            of_x, *of_weights = (next(found) if need else None for need in needs)
            return of_x, None, None, *of_weights
        grad, paths = native.rows_adjacent(grad), _paths(weights, ctx.padding)
        of_x, of_weights, of_bias = None, (None, None, None), None
        with fused.recorded("ffconv::convolution_backward"):
            if needs[0]:
                of_x = native.Convolution(grad, x.shape[2:], paths.back())(grad)
            if any(needs[1:4]):
                of_weights = native.Convolution(x, grad.shape[2:], paths).weight_gradients(x, grad)
            if needs[4]:
                of_bias = grad.sum((0, 2, 3))
        return of_x, None, None, *of_weights, of_bias


def _by_operations(x: Tensor, weights: Sequence[Tensor | None], padding: Sequence[int]) -> Tensor:
    """The same function of torch's operations, which can be differentiated any number of times."""
    *blocks, bias = weights
    l2l, l2g, g2l = blocks
    paths = _paths(weights, padding)
    split = (paths.local_out, paths.local_in)
    shape = (paths.local_out + (0 if l2g is None else len(l2g)), x.shape[1], *paths.kernel)
    return F.conv2d(x, join_blocks(shape, split, l2l, g2l, l2g), bias, padding=tuple(padding))
