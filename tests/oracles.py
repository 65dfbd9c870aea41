"""Slow references, written from the definitions without torch.fft."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.nn import FFCNd, FourierUnit, LocalFourierUnit, SpectralTransform

IMAGE = (2, 3)
AXES = {1: "l", 2: "hw", 3: "thw"}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def dft_matrix(n: int, sign: int) -> Tensor:
    """(n, n) orthonormal DFT in complex128; sign -1 forward, +1 inverse."""
    k = torch.arange(n, dtype=torch.float64)
    return torch.exp(sign * 2j * math.pi * torch.outer(k, k) / n) / math.sqrt(n)


def along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """``matrix`` (m, n) applied along an axis of n entries."""
    return torch.tensordot(matrix, x, dims=([1], [axis])).movedim(0, axis)


def rfftn(x: Tensor, axes: Sequence[int] = IMAGE) -> Tensor:
    """(N, C, H, W) real -> (N, C, H, Wf) complex, or the like along other axes."""
    full = x.to(torch.complex128)
    for axis in axes:
        full = along(full, axis, dft_matrix(x.shape[axis], -1))
    return full.narrow(axes[-1], 0, x.shape[axes[-1]] // 2 + 1)


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Any half spectrum (N, C, H, Wf) -> (N, C, H, W): inverse DFT over H, then the complex-to-real sum over
    W."""
    columns = spectrum
    for axis in axes[:-1]:
        columns = along(columns, axis, dft_matrix(spectrum.shape[axis], 1))
    columns = columns.movedim(axes[-1], -1)
    x = torch.zeros(*columns.shape[:-1], width, dtype=torch.float64)
    position = torch.arange(width, dtype=torch.float64)
    for k in range(columns.shape[-1]):
        self_conjugate = k == 0 or 2 * k == width
        coefficient = columns[..., k, None]
        if self_conjugate:
            coefficient = coefficient.real.to(torch.complex128)
        wave = torch.exp(2j * math.pi * k * position / width)
        x += (1 if self_conjugate else 2) * (coefficient * wave).real
    return (x / math.sqrt(width)).movedim(-1, axes[-1])


def batch_norm(x: Tensor, bn: torch.nn.Module) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return (x - bn.running_mean.reshape(shape)) * scale.reshape(shape) + bn.bias.reshape(shape)


def mixing(x: Tensor, conv: torch.nn.Module) -> Tensor:
    """A convolution with a kernel along the first axis of the map at most, tap by tap, padded to keep the
    size."""
    if max(conv.kernel_size) == 1:
        return CONVOLVE[x.dim() - 2](x, conv.weight, groups=conv.groups)
    assert max(conv.kernel_size[1:]) == 1
    taps, dilation, frames = conv.kernel_size[0], conv.dilation[0], x.shape[2]
    y = torch.zeros(x.shape[0], conv.out_channels, *x.shape[2:], dtype=x.dtype)
    for t in range(frames):
        for tap in range(taps):
            source = t + dilation * tap - dilation * (taps - 1) // 2
            if conv.padding_mode == "replicate":
                source = min(max(source, 0), frames - 1)
            if 0 <= source < frames:
                frame = F.conv2d(x[:, :, source], conv.weight[:, :, tap], groups=conv.groups)
                y[:, :, t] += frame
    return y


def fourier_unit(unit: FourierUnit, x: Tensor, axes: Sequence[int] = IMAGE) -> Tensor:
    """Eval-mode Fourier Unit with the interleaved channel order spelt out."""
    spectrum = rfftn(x, axes)
    parts = [part for c in range(x.shape[1]) for part in (spectrum[:, c].real, spectrum[:, c].imag)]
    mixed = F.relu(batch_norm(mixing(torch.stack(parts, 1), unit.conv), unit.bn))
    return irfftn(torch.complex(mixed[:, 0::2], mixed[:, 1::2]), axes, x.shape[axes[-1]])


def local_fourier_unit(unit: LocalFourierUnit, x: Tensor, axes: Sequence[int] = IMAGE) -> Tensor:
    x = x[:, : -(-x.shape[1] // 2 ** len(axes))]
    sizes, halves = [x.shape[axis] for axis in axes], [(x.shape[axis] + 1) // 2 for axis in axes]
    for axis, size in zip(axes, sizes, strict=True):
        if size % 2:
            x = torch.cat([x, x.narrow(axis, size - 1, 1)], axis)
    corners = []
    # Top left, bottom left, top right, bottom right: the first axis changes fastest.
    for corner in itertools.product((0, 1), repeat=len(axes)):
        part = x
        for axis, half, second in zip(axes, halves, reversed(corner), strict=True):
            part = part.narrow(axis, second * half, half)
        corners.append(part)
    y = fourier_unit(unit, torch.cat(corners, 1), axes)
    for axis, size, half in zip(axes, sizes, halves, strict=True):
        y = y.index_select(axis, torch.arange(size) % half)
    return y


def spectral_transform(transform: SpectralTransform, x: Tensor, axes: Sequence[int] = IMAGE) -> Tensor:
    """Eval-mode Spectral Transform of stride 1."""
    h = F.relu(batch_norm(mixing(x, transform.conv1), transform.bn1))
    y = h + fourier_unit(transform.fu, h, axes)
    if transform.lfu is not None:
        y = y + local_fourier_unit(transform.lfu, h, axes)
    return mixing(y, transform.conv2)


def aligned_avg_pool(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """Output i averages inputs i s + o ... i s + o + s - 1, o = d (k - 1) // 2 - p, clipped; an empty window
    gives 0. Numbers hold for all axes, tuples have one entry an axis."""
    dims = x.dim() - 2
    arguments = [(a,) * dims if isinstance(a, int) else a for a in (kernel, stride, padding, dilation)]
    for axis, (k, s, p, d) in enumerate(zip(*arguments, strict=True), start=2):
        offset, n = d * (k - 1) // 2 - p, x.shape[axis]
        outputs = (n + 2 * p - d * (k - 1) - 1) // s + 1
        windows = []
        for i in range(outputs):
            start, stop = max(i * s + offset, 0), min(i * s + offset + s, n)
            empty = torch.zeros_like(x.narrow(axis, 0, 1))
            windows.append(
                x.narrow(axis, start, stop - start).mean(axis, keepdim=True) if stop > start else empty
            )
        x = torch.cat(windows, axis)
    return x


def ffc(layer: FFCNd, x: Tensor) -> Tensor:
    """Eval-mode FFC path by path, each convolution padded axis by axis."""
    x_local, x_global = x[:, : layer.in_local], x[:, layer.in_local :]
    parts = []
    for outputs, weights in (
        (layer.out_local, ((x_local, layer.weight_l2l), (x_global, layer.weight_g2l))),
        (layer.out_global, ((x_local, layer.weight_l2g),)),
    ):
        y = torch.zeros(x.shape[0], outputs, *layer.geometry.output_size(tuple(x.shape[2:])), dtype=x.dtype)
        for part, weight in weights:
            if weight is not None:
                convolve = CONVOLVE[layer.dims]
                padded = padded_by_axis(part, layer)
                y = y + convolve(padded, weight, None, layer.stride, 0, layer.dilation, layer.groups)
        parts.append(y)
    if layer.spectral is not None:
        padding = tuple(before for before, _ in layer.geometry.pads)
        pooled = aligned_avg_pool(x_global, layer.kernel_size, layer.stride, padding, layer.dilation)
        axes = [2 + AXES[layer.dims].index(name) for name in layer.spectral_dims]
        parts[1] = parts[1] + spectral_transform(layer.spectral, pooled, axes)
    y = torch.cat(parts, 1)
    return y if layer.bias is None else y + layer.bias.reshape(-1, *[1] * layer.dims)


def padded_by_axis(x: Tensor, layer: FFCNd) -> Tensor:
    """The map with each of its axes padded by itself, by the frames, rows or columns that the mode names."""
    modes = layer.padding_mode
    modes = (modes,) * layer.dims if isinstance(modes, str) else modes
    for axis, (mode, (before, after)) in enumerate(zip(modes, layer.geometry.pads, strict=True), start=2):
        n = x.shape[axis]
        place = torch.arange(-before, n + after)
        inside = (place >= 0) & (place < n)
        if mode == "reflect":
            place = (n - 1) - ((n - 1) - place.abs()).abs()
        place = place % n if mode == "circular" else place.clamp(0, n - 1)
        x = x.index_select(axis, place)
        if mode == "zeros":
            x = x * inside.to(x.dtype).reshape(-1, *[1] * (x.dim() - axis - 1))
    return x


def randomise_norms(module: torch.nn.Module) -> None:
    """Statistics and affine weights as after some training, so that no norm is the identity."""
    for m in module.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (m.running_var, m.weight):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (m.running_mean, m.bias):
                torch.nn.init.uniform_(tensor, -0.5, 0.5)
