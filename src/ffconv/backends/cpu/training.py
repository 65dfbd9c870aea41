"""One training step of an FFC of images on the CPU, forward and backward.

The Spectral Transform is one kernel. 3x3 convolutions of stride 1 run by Winograd's method where that pays, all
others by torch's convolution: once with the block weight or, where its zero block is large, once for each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ffconv.backends.cpu import kernels
from ffconv.functional.ffc import block_weight, conv
from ffconv.functional.geometry import ConvGeometry

Weights = Sequence[Tensor | None]


def ffc_forward(
    x: Tensor,
    pooled: Tensor | None,
    weights: Weights,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    geometry: ConvGeometry,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Compute an FFC, and what its backward pass needs.

    Args:
        x: Feature map, padded already unless ``geometry`` says so.
        pooled: Input of the Spectral Transform, or None if it is the last channels of x.
        weights: W_l2l, W_l2g, W_g2l.
        bias: (C_out,) or None.
        tensors: As for ``functional.spectral_transform``, or none; so are ``eps`` and ``batch_stats``.
        geometry: Of the convolution.
    Returns:
        The output, mean and variance of each norm that uses the statistics of its batch, and the saved tensors.
    """
    y = _convolve(x, weights, bias, out_channels(weights, tensors), geometry)
    if not tensors:
        return y, [], []
    return spectral_forward(_spectral_input(x, pooled, tensors), tensors, eps, batch_stats, y)


def ffc_backward(
    grad: Tensor,
    x: Tensor,
    pooled: Tensor | None,
    weights: Weights,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    geometry: ConvGeometry,
    saved: Sequence[Tensor],
    needs_x: bool,
) -> tuple[Tensor | None, Tensor | None, list[Tensor | None], Tensor | None, list[Tensor]]:
    """Return the gradients of x, pooled, the weights, the bias and the trainable ones of ``tensors``.

    The other arguments are those and the results of :func:`ffc_forward`, with the statistics that were used in
    ``tensors``.
    """
    grad_x, grad_weights, grad_bias = _convolve_backward(grad, x, weights, bias, geometry, needs_x)
    grad_z, grad_tensors = None, []
    if tensors:
        z = _spectral_input(x, pooled, tensors)
        grad_z, grad_tensors = spectral_backward(grad, z, tensors, eps, batch_stats, saved)
        if pooled is None and grad_x is not None:
            grad_x[:, x.shape[1] - grad_z.shape[1] :] += grad_z
    return grad_x, None if pooled is None else grad_z, grad_weights, grad_bias, grad_tensors


def spectral_forward(
    x: Tensor,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    out: Tensor | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Compute a Spectral Transform, added to the last channels of ``out`` if that is given."""
    layers, conv2 = _split(tensors)
    y, stats, saved = kernels.spectral_transform_forward(x, layers, batch_stats, eps, conv2, out)
    return y, [t for pair, is_batch in zip(stats, batch_stats, strict=True) if is_batch for t in pair], saved


def spectral_backward(
    grad: Tensor,
    x: Tensor,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    saved: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of x and of the trainable ones of ``tensors``, which hold the statistics that were used."""
    layers, conv2 = _split(tensors)
    pairs = [(layers[5 * i + 3], layers[5 * i + 4]) for i in range(len(eps))]
    grad_x, grad_conv2, grad_layers = kernels.spectral_transform_backward(
        grad, x, layers, batch_stats, eps, conv2, pairs, saved
    )
    return grad_x, [*chain.from_iterable(grad_layers), *([] if grad_conv2 is None else [grad_conv2])]


def out_channels(weights: Weights, tensors: Sequence[Tensor]) -> int:
    """Return C_out."""
    l2l, l2g, g2l = weights
    to_global = tensors[-1] if tensors else l2g
    local = next((w.shape[0] for w in (l2l, g2l) if w is not None), 0)
    return local + (0 if to_global is None else to_global.shape[0])


def saved_shapes(
    x_shape: Sequence[Any], size: Sequence[Any], tensors: Sequence[Tensor], layers: int
) -> list[tuple[Any, Any]]:
    """Return the shapes of the saved tensors of a Spectral Transform of maps of ``size``."""
    count, channels, _, _ = x_shape
    is_unit = len(tensors) == 5
    width = kernels.saved_width(channels if is_unit else tensors[-1].shape[1])
    height, columns = size[0], size[1] // 2 + 1
    half, half_columns = (size[0] + 1) // 2, (size[1] + 1) // 2 // 2 + 1
    sizes = [size[0] * size[1] * width, columns * height * 2 * width, half_columns * half * 2 * width]
    return [(count, numbers) for numbers in (sizes[1:2] if is_unit else sizes[:layers])]


def _split(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor | None]:
    return (tensors, None) if len(tensors) == 5 else (tensors[:-1], tensors[-1])


def _spectral_input(x: Tensor, pooled: Tensor | None, tensors: Sequence[Tensor]) -> Tensor:
    return x[:, x.shape[1] - tensors[0].shape[1] :] if pooled is None else pooled


def _uses_winograd(x: Tensor, weights: Weights, outputs: int, geometry: ConvGeometry) -> bool:
    if (geometry.kernel_size, geometry.stride, geometry.dilation) != ((3, 3), (1, 1), (1, 1)):
        return False
    l2l, l2g, g2l = weights
    # It writes all channels of the output, and of the gradient, only if they have a path.
    if (g2l is None and l2l is not None and l2l.shape[1] < x.shape[1]) or (l2g is None and _local(weights) < outputs):
        return False
    return kernels.winograd_pays(x, geometry.output_size(x.shape[2:]), outputs)


def _local(weights: Weights) -> int:
    return next((w.shape[0] for w in (weights[0], weights[2]) if w is not None), 0)


def _runs_by_side(weights: Weights) -> bool:
    """Return True if two convolutions are faster than one with a zero block: from a quarter of the weight on."""
    l2l, l2g, g2l = weights
    if l2l is None or l2g is None or g2l is None:
        return False
    inputs, outputs = l2l.shape[1] + g2l.shape[1], l2l.shape[0] + l2g.shape[0]
    return 4 * g2l.shape[1] * l2g.shape[0] >= inputs * outputs


def _convolve(x: Tensor, weights: Weights, bias: Tensor | None, outputs: int, geometry: ConvGeometry) -> Tensor:
    l2l, l2g, g2l = weights
    padding = geometry.conv_padding
    if _uses_winograd(x, weights, outputs, geometry):
        return kernels.winograd_conv(x, l2l, g2l, l2g, bias, padding, geometry.output_size(x.shape[2:]))
    options = (geometry.stride, padding, geometry.dilation)
    if l2l is not None and l2g is not None and g2l is not None and _runs_by_side(weights):
        local = l2l.shape[1]
        y = conv(x[:, :local], torch.cat([l2l, l2g]), bias, *options)
        y[:, : l2l.shape[0]] += conv(x[:, local:], g2l, None, *options)
        return y
    return conv(x, block_weight(weights, (outputs, x.shape[1], *geometry.kernel_size)), bias, *options)


def _convolve_backward(
    grad: Tensor, x: Tensor, weights: Weights, bias: Tensor | None, geometry: ConvGeometry, needs_x: bool
) -> tuple[Tensor | None, list[Tensor | None], Tensor | None]:
    l2l, l2g, g2l = weights
    padding, outputs = geometry.conv_padding, grad.shape[1]
    if _uses_winograd(x, weights, outputs, geometry):
        size = tuple(x.shape[2:])
        grad_x = kernels.winograd_input_grad(grad, l2l, g2l, l2g, padding, size) if needs_x else None
        of_l2l, of_g2l, of_l2g = kernels.winograd_weight_grads(x, grad, l2l, g2l, l2g, padding)
        return grad_x, [of_l2l, of_l2g, of_g2l], None if bias is None else grad.sum((0, 2, 3))
    has_bias = bias is not None
    if l2l is not None and l2g is not None and g2l is not None and _runs_by_side(weights):
        local, local_out = l2l.shape[1], l2l.shape[0]
        left, from_local, grad_bias = _conv_backward(
            grad, x[:, :local], torch.cat([l2l, l2g]), geometry, has_bias, needs_x
        )
        right, from_global, _ = _conv_backward(grad[:, :local_out], x[:, local:], g2l, geometry, False, needs_x)
        grad_x = torch.cat([left, right], 1) if left is not None and right is not None else None
        return grad_x, [from_local[:local_out], from_local[local_out:], from_global], grad_bias
    weight = block_weight(weights, (outputs, x.shape[1], *geometry.kernel_size))
    grad_x, grad_weight, grad_bias = _conv_backward(grad, x, weight, geometry, has_bias, needs_x)
    local_out = _local(weights)
    local_in = next((w.shape[1] for w in (l2l, l2g) if w is not None), 0)
    rows, columns = (slice(local_out), slice(local_out, None)), (slice(local_in), slice(local_in, None))
    places = ((rows[0], columns[0]), (rows[1], columns[0]), (rows[0], columns[1]))
    grads = [None if w is None else grad_weight[place] for w, place in zip(weights, places, strict=True)]
    return grad_x, grads, grad_bias


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: ConvGeometry, has_bias: bool, needs_x: bool
) -> tuple[Any, Any, Any]:
    stride, padding = geometry.stride, geometry.conv_padding
    sizes = [weight.shape[0]] if has_bias else None
    mask = [needs_x, True, has_bias]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, sizes, stride, padding, geometry.dilation, False, [0, 0], 1, mask
    )
