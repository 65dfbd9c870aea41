"""The functions of the CPU kernels in plain float64 PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_PAD = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def rfft2(x: Tensor) -> Tensor:
    """Return real and imaginary parts, interleaved along the channels."""
    spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
    return spectrum.movedim(-1, 2).flatten(1, 2)


def irfft2(spectrum: Tensor, width: int) -> Tensor:
    parts = torch.view_as_complex(spectrum.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())
    columns = torch.fft.ifft(parts, dim=2, norm="ortho")
    return torch.fft.irfft(columns, n=width, dim=3, norm="ortho")


def norm_relu(x: Tensor, layer: Sequence[Tensor], eps: float, batch_stats: bool) -> Tensor:
    weight, gamma, beta, mean, var = layer
    y = F.conv2d(x, weight)
    stats = (None, None) if batch_stats else (mean, var)
    return F.relu(F.batch_norm(y, *stats, gamma, beta, batch_stats, 0.0, eps))


def fourier_unit(x: Tensor, layer: Sequence[Tensor], eps: float, batch_stats: bool = False) -> Tensor:
    return irfft2(norm_relu(rfft2(x), layer, eps, batch_stats), x.shape[-1])


def quadrants(x: Tensor) -> Tensor:
    """Return top-left, bottom-left, top-right and bottom-right as channels."""
    H, W = x.shape[2:]
    x = F.pad(x, (0, W % 2, 0, H % 2), mode="replicate")
    left, right = x.chunk(2, 3)
    return torch.cat([*left.chunk(2, 2), *right.chunk(2, 2)], 1)


def spectral_transform(
    x: Tensor,
    layers: Sequence[Tensor],
    eps: Sequence[float],
    conv2: Tensor | None,
    batch_stats: Sequence[bool] = (False, False, False),
) -> Tensor:
    each = [layers[i : i + 5] for i in range(0, len(layers), 5)]
    if conv2 is None:
        return fourier_unit(x, each[0], eps[0], batch_stats[0])
    h = total = norm_relu(x, each[0], eps[0], batch_stats[0])
    total = total + fourier_unit(h, each[1], eps[1], batch_stats[1])
    if len(each) == 3:
        cut = (h.shape[1] + 3) // 4
        local = fourier_unit(quadrants(h[:, :cut]), each[2], eps[2], batch_stats[2])
        total = total + local.tile(1, 1, 2, 2)[:, :, : h.shape[2], : h.shape[3]]
    return F.conv2d(total, conv2)


def pool(x: Tensor, out_size: Sequence[int], stride: Sequence[int], offset: Sequence[int]) -> Tensor:
    """Average the windows i s + o ... i s + o + s - 1, clipped to the map; 0 if empty."""
    rows, columns = (
        [slice(max(0, i * s + o), max(0, min(n, (i + 1) * s + o))) for i in range(m)]
        for n, m, s, o in zip(x.shape[2:], out_size, stride, offset, strict=True)
    )
    windows = [[x[:, :, h, w] for w in columns] for h in rows]
    means = [[w.mean((2, 3)) if w.numel() else w.sum((2, 3)) for w in row] for row in windows]
    return torch.stack([torch.stack(row, -1) for row in means], -2)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    modes: Sequence[str],
    out_size: Sequence[int],
) -> Tensor:
    for axis in range(2):
        n, k = x.shape[2 + axis], weight.shape[2 + axis]
        after = (out_size[axis] - 1) * stride[axis] + dilation[axis] * (k - 1) + 1 - n - padding[axis]
        pads = [0, 0, 0, 0]
        pads[2 - 2 * axis : 4 - 2 * axis] = padding[axis], max(0, after)
        x = F.pad(x, pads, mode=_PAD[modes[axis]])
        if after < 0:
            x = x.narrow(2 + axis, 0, x.shape[2 + axis] + after)
    return F.conv2d(x, weight, bias, tuple(stride), 0, tuple(dilation))


def join(l2l: Tensor | None, g2l: Tensor | None, l2g: Tensor | None, outputs: int, inputs: int) -> Tensor:
    """Return the weights as one, with zeros for those that are missing."""
    some = next(weight for weight in (l2l, g2l, l2g) if weight is not None)
    weight = some.new_zeros(outputs, inputs, *some.shape[2:])
    local_out = next((w.shape[0] for w in (l2l, g2l) if w is not None), 0)
    local_in = next((w.shape[1] for w in (l2l, l2g) if w is not None), 0)
    if l2l is not None:
        weight[:local_out, :local_in] = l2l
    if g2l is not None:
        weight[:local_out, local_in:] = g2l
    if l2g is not None:
        weight[local_out:, :local_in] = l2g
    return weight


def ffc(
    x: Tensor,
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_modes: Sequence[str],
    out_size: Sequence[int],
    layers: Sequence[Tensor],
    eps: Sequence[float],
    conv2: Tensor | None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    local_out = next((w.shape[0] for w in (l2l, g2l) if w is not None), 0)
    to_global = conv2 if layers else l2g
    outputs = local_out + (0 if to_global is None else to_global.shape[0])
    weight = join(l2l, g2l, l2g, outputs, x.shape[1])
    y = conv(x, weight, bias, stride, padding, dilation, padding_modes, out_size)
    if layers:
        local_in = next((w.shape[1] for w in (l2l, l2g) if w is not None), 0)
        spans = zip(dilation, weight.shape[2:], padding, strict=True)
        offset = [d * (k - 1) // 2 - p for d, k, p in spans]
        pooled = pool(x[:, local_in:], out_size, stride, offset)
        y = torch.cat(
            [y[:, :local_out], y[:, local_out:] + spectral_transform(pooled, layers, eps, conv2)], 1
        )
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y
