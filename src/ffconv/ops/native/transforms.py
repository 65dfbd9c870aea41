"""Calls of the compiled transforms with tensors."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from ffconv.ops.native.building import library

_TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


class _Layout(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("image", "row", "pixel")]


def _job(real: type) -> type[ctypes.Structure]:
    class Job(ctypes.Structure):
        """The structure of the same name in transforms.cpp."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in ("map", "residual", "spectrum", "gate", "scale", "shift")),
            *((name, _Layout) for name in ("map_layout", "residual_layout")),
            *((name, ctypes.c_int64) for name in ("N", "C", "H", "W", "parts", "tiles", "map_H", "map_W")),
            ("relu", ctypes.c_int64),
            ("inner", real),
        ]

    return Job


_JOBS = {dtype: _job(real) for dtype, real in _TYPES.items()}


def available() -> bool:
    """Whether the library could be built or loaded on this machine."""
    return library() is not None


def suits(x: Tensor, H: int, W: int) -> bool:
    """Whether these transforms take planes of H x W pixels of a map or spectrum such as x."""
    return (
        x.device.type == "cpu"
        and x.dtype in _TYPES
        and _has_small_factors(H)
        and _has_small_factors(W)
        and x.numel() > 0
    )


def rfft2(
    x: Tensor,
    *,
    quarters: bool = False,
    tiles: bool = False,
    inner: float = 1.0,
    gate: Tensor | None = None,
    norm: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Orthonormal half spectrum of each plane, interleaved.

    Args:
        x: map.
        quarters: transform the map's four quadrants, as channels.
        tiles: transform the sum of its four quadrants.
        inner: factor of the columns between kx = 0 and W / 2.
        gate: keeps a value of the spectrum where this one of the same shape is positive; others become 0.
        norm: scale and shift (2C,) of the gate.
    Shape:
        x (N, C, H, W), channels adjacent or else copied -> (N, 2C, H, Wf), channels last in memory; with
        ``quarters`` (N, 8C, H / 2, W / 4 + 1) of even sides, with ``tiles`` of ceil(H / 2) x ceil(W / 2).
    """
    x = channels_adjacent(x)
    N, C, H, W = x.shape
    parts = 4 if quarters else 1
    if quarters or tiles:
        H, W = (H + 1) // 2, (W + 1) // 2
    spectrum = x.new_empty(N, H, W // 2 + 1, 2 * parts * C)
    if gate is not None:
        gate = _spectrum_memory(gate)
    _run(x, spectrum, (C, H, W), forward=True, parts=parts, tiles=tiles, inner=inner, gate=gate, norm=norm)
    return spectrum.permute(0, 3, 1, 2)


def irfft2(
    spectrum: Tensor,
    size: tuple[int, int],
    *,
    quarters: bool = False,
    tiles: bool = False,
    inner: float = 1.0,
    relu: bool = False,
    norm: tuple[Tensor, Tensor] | None = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Inverse of any half spectrum.

    Args:
        spectrum: interleaved.
        size: (H, W) of the map.
        quarters: the spectrum's channels are those of the map's four quadrants.
        tiles: the spectrum is of one quadrant, which is laid on the map 2 x 2 times.
        inner: factor of the columns between kx = 0 and W / 2.
        relu: transform the positive part of the spectrum.
        norm: scale and shift (2C,) of the spectrum before the ReLU.
        residual: added to the map.
        out: where the map is written to; may be the residual.
    Shape:
        spectrum (N, 2C, h, wf) -> (N, C, H, W), channels last in memory; with ``quarters`` (N, C / 4, H, W).
    """
    H, W = size
    memory = _spectrum_memory(spectrum)
    parts = 4 if quarters else 1
    C = memory.shape[-1] // (2 * parts)
    if out is None:
        out = memory.new_empty(memory.shape[0], H, W, C).permute(0, 3, 1, 2)
    if residual is not None:
        residual = channels_adjacent(residual)
    if quarters or tiles:
        H, W = (H + 1) // 2, (W + 1) // 2
    options = {"parts": parts, "tiles": tiles, "inner": inner, "relu": relu, "norm": norm}
    _run(out, memory, (C, H, W), forward=False, residual=residual, **options)
    return out


def channels_adjacent(x: Tensor) -> Tensor:
    """The map itself, also part of a wider one, if a pixel's channels lie side by side, or else a copy."""
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)


def _spectrum_memory(spectrum: Tensor) -> Tensor:
    return spectrum.permute(0, 2, 3, 1).contiguous()  # (N, H, Wf, 2C)


def _run(
    x: Tensor,
    spectrum: Tensor,
    plane: tuple[int, int, int],
    *,
    forward: bool,
    parts: int,
    tiles: bool,
    inner: float,
    relu: bool = False,
    gate: Tensor | None = None,
    norm: tuple[Tensor, Tensor] | None = None,
    residual: Tensor | None = None,
) -> None:
    scale, shift = norm or (None, None)
    job = _JOBS[x.dtype](
        map=x.data_ptr(),
        residual=_address(residual, x),
        spectrum=_address(spectrum, x),
        gate=_address(gate, x),
        scale=_address(scale, x),
        shift=_address(shift, x),
        map_layout=_layout(x),
        residual_layout=_layout(x if residual is None else residual),
        N=x.shape[0],
        C=plane[0],
        H=plane[1],
        W=plane[2],
        parts=parts,
        tiles=4 if tiles else 1,
        map_H=x.shape[2],
        map_W=x.shape[3],
        relu=relu,
        inner=inner,
    )
    name = "ffconv_transform_float" if x.dtype == torch.float32 else "ffconv_transform_double"
    getattr(library(), name)(ctypes.byref(job), int(forward))


def _layout(x: Tensor) -> _Layout:
    image, _, row, pixel = x.stride()
    return _Layout(image, row, pixel)


def _address(tensor: Tensor | None, x: Tensor) -> int | None:
    if tensor is None:
        return None
    if tensor.dtype != x.dtype:
        raise ValueError(f"a tensor of {tensor.dtype} beside a map of {x.dtype}: both must be of one type")
    return tensor.data_ptr()


@functools.cache
def _has_small_factors(n: int) -> bool:
    """Whether there is a library, and the prime factors of n are such as it has."""
    transforms = library()
    if transforms is None:
        return False
    for factor in range(2, transforms.ffconv_largest_factor() + 1):
        while n % factor == 0:
            n //= factor
    return n == 1
