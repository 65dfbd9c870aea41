"""Slow references, written from the definitions without torch.fft."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.ops import FourierUnit, LocalFourierUnit, SpectralTransform


def dft_matrix(n: int, sign: int) -> Tensor:
    """(n, n) orthonormal DFT in complex128; sign -1 forward, +1 inverse."""
    k = torch.arange(n, dtype=torch.float64)
    return torch.exp(sign * 2j * math.pi * torch.outer(k, k) / n) / math.sqrt(n)


def rfft2(x: Tensor) -> Tensor:
    """(N, C, H, W) real -> (N, C, H, Wf) complex."""
    H, W = x.shape[-2:]
    full = dft_matrix(H, -1) @ x.to(torch.complex128) @ dft_matrix(W, -1)
    return full[..., : W // 2 + 1]


def irfft2(spectrum: Tensor, width: int) -> Tensor:
    """Any half spectrum (N, C, H, Wf) -> (N, C, H, W): inverse DFT over H, then the complex-to-real sum over
    W."""
    columns = dft_matrix(spectrum.shape[-2], 1) @ spectrum
    x = torch.zeros(*columns.shape[:-1], width, dtype=torch.float64)
    position = torch.arange(width, dtype=torch.float64)
    for k in range(columns.shape[-1]):
        self_conjugate = k == 0 or 2 * k == width
        coefficient = columns[..., k, None]
        if self_conjugate:
            coefficient = coefficient.real.to(torch.complex128)
        wave = torch.exp(2j * math.pi * k * position / width)
        x += (1 if self_conjugate else 2) * (coefficient * wave).real
    return x / math.sqrt(width)


def batch_norm(x: Tensor, bn: torch.nn.Module) -> Tensor:
    shape = (1, -1, 1, 1)
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return (x - bn.running_mean.reshape(shape)) * scale.reshape(shape) + bn.bias.reshape(shape)


def fourier_unit(unit: FourierUnit, x: Tensor) -> Tensor:
    """Eval-mode Fourier Unit with the interleaved channel order spelt out."""
    spectrum = rfft2(x)
    parts = [part for c in range(x.shape[1]) for part in (spectrum[:, c].real, spectrum[:, c].imag)]
    mixed = F.relu(batch_norm(F.conv2d(torch.stack(parts, 1), unit.conv.weight, groups=unit.groups), unit.bn))
    return irfft2(torch.complex(mixed[:, 0::2], mixed[:, 1::2]), x.shape[-1])


def local_fourier_unit(unit: LocalFourierUnit, x: Tensor) -> Tensor:
    H, W = x.shape[-2:]
    x = x[:, : -(-x.shape[1] // 4)]
    x = F.pad(x, (0, W % 2, 0, H % 2), mode="replicate")
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    corners = ((0, 0), (h, 0), (0, w), (h, w))  # top left, bottom left, top right, bottom right
    y = fourier_unit(unit, torch.cat([x[:, :, i : i + h, j : j + w] for i, j in corners], 1))
    rows, columns = torch.arange(H) % h, torch.arange(W) % w
    return y[:, :, rows][..., columns]


def spectral_transform(transform: SpectralTransform, x: Tensor) -> Tensor:
    """Eval-mode Spectral Transform of stride 1."""
    h = F.relu(batch_norm(F.conv2d(x, transform.conv1.weight, groups=transform.conv1.groups), transform.bn1))
    y = h + fourier_unit(transform.fu, h)
    if transform.lfu is not None:
        y = y + local_fourier_unit(transform.lfu, h)
    return F.conv2d(y, transform.conv2.weight, groups=transform.conv2.groups)


def aligned_avg_pool(x: Tensor, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Output i averages inputs i s + o ... i s + o + s - 1, o = d (k - 1) // 2 - p, clipped; an empty window
    gives 0."""
    offset = dilation * (kernel - 1) // 2 - padding
    for axis in (2, 3):
        n = x.shape[axis]
        outputs = (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        windows = []
        for i in range(outputs):
            start, stop = i * stride + offset, i * stride + offset + stride
            start, stop = max(start, 0), min(stop, n)
            empty = torch.zeros_like(x.narrow(axis, 0, 1))
            windows.append(
                x.narrow(axis, start, stop - start).mean(axis, keepdim=True) if stop > start else empty
            )
        x = torch.cat(windows, axis)
    return x


def randomise_norms(module: torch.nn.Module) -> None:
    """Statistics and affine weights as after some training, so that no norm is the identity."""
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            for tensor in (m.running_var, m.weight):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (m.running_mean, m.bias):
                torch.nn.init.uniform_(tensor, -0.5, 0.5)
