"""The convolutions of an FFC, and how its paths are joined, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.functional.geometry import ConvGeometry, aligned_avg_pool, pad
from ffconv.functional.spectral_transform import FFT, PLAIN_FFT, spectral_transform

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def ffc(
    x: Tensor,
    weights: Sequence[Tensor | None],
    bias: Tensor | None,
    spectral: Sequence[Tensor],
    geometry: ConvGeometry,
    *,
    batch_stats: Sequence[bool] = (),
    eps: Sequence[float] = (),
    fft: FFT = PLAIN_FFT,
) -> Tensor:
    """Apply an FFC of images without groups: conv(x; W), plus the Spectral Transform on the global channels.

    Args:
        x: Feature map, local channels first.
        weights: W_l2l, W_l2g, W_g2l, each None where there is no such path.
        bias: (C_out,) or None.
        spectral: Tensors of :func:`spectral_transform`; none without a Spectral Transform.
        geometry: Of the convolution.
        batch_stats: As for :func:`spectral_transform`; so are ``eps`` and ``fft``.
        eps: Of the norms.
        fft: The transform and its inverse.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H_out, W_out).
    """
    out_channels = next((w.shape[0] for w in (weights[0], weights[2]) if w is not None), 0)
    last = spectral[-1] if spectral else weights[1]
    y = conv_paths(x, weights, bias, geometry, out_channels + (0 if last is None else last.shape[0]))
    if not spectral:
        return y
    pooled = aligned_avg_pool(x[:, x.shape[1] - spectral[0].shape[1] :], geometry)
    return add_global(y, spectral_transform(pooled, spectral, batch_stats=batch_stats, eps=eps, fft=fft))


def conv_paths(
    x: Tensor,
    weights: Sequence[Tensor | None],
    bias: Tensor | None,
    geometry: ConvGeometry,
    out_channels: int,
    groups: int = 1,
) -> Tensor:
    """Apply the convolutions of an FFC: y_l = W_l2l * x_l + W_g2l * x_g and y_g = W_l2g * x_l, plus the bias.

    Args:
        x: Feature map, local channels first.
        weights: W_l2l, W_l2g, W_g2l, each None where there is no such path.
        bias: (C_out,) or None.
        geometry: Of the convolution.
        out_channels: C_out.
        groups: Blocks of each of the three convolutions.
    Shape:
        x (N, C_in, *size) -> (N, C_out, *size_out).
    """
    dims = len(geometry.stride)
    if all(weight is None for weight in weights):
        y = _zeros(x, (x.shape[0], out_channels, *geometry.output_size(x.shape[2:])))
        return y if bias is None else y + bias.reshape(-1, *[1] * dims)
    x = pad(x, geometry)
    options = (geometry.stride, geometry.conv_padding, geometry.dilation, groups)
    if groups == 1:
        weight = block_weight(weights, (out_channels, x.shape[1], *geometry.kernel_size))
        return conv(x, weight, bias, *options)
    l2l, l2g, g2l = weights
    in_local = x.shape[1] - (0 if g2l is None else g2l.shape[1] * groups)
    if l2l is not None or l2g is not None:
        in_local = next(w.shape[1] * groups for w in (l2l, l2g) if w is not None)
    x_local, x_global = x[:, :in_local], x[:, in_local:]
    y_local = [
        conv(part, w, None, *options) for part, w in ((x_local, l2l), (x_global, g2l)) if w is not None
    ]
    parts = [sum(y_local[1:], y_local[0])] if y_local else []
    if l2g is not None:
        parts.append(conv(x_local, l2g, None, *options))
    missing = out_channels - sum(part.shape[1] for part in parts)
    if missing:
        like = parts[0]
        parts.append(like.new_zeros(like.shape[0], missing, *like.shape[2:]))
    y = torch.cat(parts, dim=1)
    return y if bias is None else y + bias.reshape(-1, *[1] * dims)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Apply ``F.conv1d``, ``conv2d`` or ``conv3d``, by the number of axes of the weight."""
    if has_onednn_fault(weight.shape[2:], stride) and not any(padding):
        x = x[(slice(None), slice(None), *(slice(None, None, step) for step in stride))]
        stride = (1,) * len(stride)
    return _CONV[weight.dim() - 2](x, weight, bias, stride, padding, dilation, groups)


def has_onednn_fault(kernel_size: Sequence[int], stride: Sequence[int]) -> bool:
    """Return True for 1x1 kernels with unequal strides.

    Their backward pass in oneDNN, as of torch 2.15, can write outside of its memory; see
    benchmarks/onednn_unequal_strides.py. The same convolution of every second pixel does not.
    """
    return max(kernel_size) == 1 and len(set(stride)) > 1


def block_weight(weights: Sequence[Tensor | None], shape: Sequence[int]) -> Tensor:
    """Return [[W_l2l, W_g2l], [W_l2g, 0]], with zeros for missing paths.

    Args:
        weights: W_l2l, W_l2g, W_g2l, at least one of them a tensor.
        shape: (C_out, C_in, *kernel_size).
    """
    l2l, l2g, g2l = weights
    out_channels, in_channels, *kernel = shape
    out_local = next((w.shape[0] for w in (l2l, g2l) if w is not None), 0)
    in_local = next((w.shape[1] for w in (l2l, l2g) if w is not None), 0)
    like = next(w for w in weights if w is not None)
    rows = []
    for count, blocks in ((out_local, (l2l, g2l)), (out_channels - out_local, (l2g, None))):
        if count:
            sides = zip(blocks, (in_local, in_channels - in_local), strict=True)
            row = [_zeros(like, (count, side, *kernel)) if w is None else w for w, side in sides if side]
            rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _zeros(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return zeros in the memory format of a map or a weight."""
    zeros = like.new_zeros(shape)
    if like.dim() in (4, 5) and like.stride(1) < like.stride(-1):
        return zeros.to(memory_format=torch.channels_last if like.dim() == 4 else torch.channels_last_3d)
    return zeros


def add_global(y: Tensor, z: Tensor) -> Tensor:
    """Add z to the last channels of y.

    Shape:
        y (N, C, *size), z (N, C_g, *size) with C_g <= C -> (N, C, *size).
    """
    z = z.to(y.dtype)
    local = y.shape[1] - z.shape[1]
    if local == 0:
        return y + z
    # Slices: OpenVINO cannot convert a Split of a map with dynamic sizes.
    return torch.cat([y[:, :local], y[:, local:] + z], dim=1)


def ungroup(weight: Tensor, groups: int) -> Tensor:
    """Return a grouped convolution's weight as that of an ordinary one, with zeros outside its blocks.

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
    """Return the blocks of :func:`ungroup` from an ordinary weight.

    Shape:
        dense (C_out, C_in, *kernel) -> (C_out, C_in / groups, *kernel).
    """
    if groups == 1:
        return dense
    index = torch.arange(groups, device=dense.device)
    return dense.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))[index, :, index].flatten(0, 1)
