"""Calls of the compiled transforms with tensors."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from ffconv.ops.engines import current_engine
from ffconv.ops.native.building import library

REAL_NAMES = {torch.float32: "float", torch.float64: "double"}


class Layout(ctypes.Structure):
    """The structure of the same name in planes.hpp: strides of a map, in values."""

    _fields_ = [(name, ctypes.c_int64) for name in ("image", "row", "pixel")]

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """Of a map (N, C, H, W) whose channels are adjacent."""
        image, _, row, pixel = x.stride()
        return cls(image, row, pixel)


@torch.compiler.assume_constant_result
def available() -> bool:
    """Whether the library could be built or loaded on this machine."""
    return library() is not None


def suits(x: Tensor, H: int, W: int) -> bool:
    """Whether these transforms take planes of H x W pixels of a map or spectrum such as x, and no other
    engine is asked for."""
    asked_for = current_engine() in ("auto", "native")
    return asked_for and takes(x) and _has_small_factors(H) and _has_small_factors(W)


def takes(x: Tensor) -> bool:
    """Whether the library, if there is one, computes with tensors such as x."""
    return x.device.type == "cpu" and x.dtype in REAL_NAMES and x.numel() > 0 and available()


def rfft2(x: Tensor, *, inner: float = 1.0) -> Tensor:
    """Orthonormal half spectrum of each plane, interleaved; ``inner`` is a factor of the columns between
    kx = 0 and W / 2.

    Shape:
        x (N, C, H, W), channels adjacent or else copied -> (N, 2C, H, Wf), channels last in memory.
    """
    x = x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)
    N, C, H, W = x.shape
    spectrum = x.new_empty(N, H, W // 2 + 1, 2 * C)
    _run(x, spectrum, inner, forward=True)
    return spectrum.permute(0, 3, 1, 2)


def irfft2(spectrum: Tensor, size: tuple[int, int], *, inner: float = 1.0) -> Tensor:
    """Inverse of any interleaved half spectrum, for maps of ``size`` (H, W); ``inner`` as in :func:`rfft2`.

    Shape:
        spectrum (N, 2C, H, Wf) -> (N, C, H, W), channels last in memory.
    """
    memory = spectrum.permute(0, 2, 3, 1).contiguous()  # (N, H, Wf, 2C)
    y = memory.new_empty(memory.shape[0], *size, memory.shape[-1] // 2).permute(0, 3, 1, 2)
    _run(y, memory, inner, forward=False)
    return y


def rows_adjacent(x: Tensor) -> Tensor:
    """The map itself, also part of a wider one, if the channels of a pixel lie side by side and pixels follow
    each other from row to row, or else a copy."""
    return x if are_rows_adjacent(x) else x.contiguous(memory_format=torch.channels_last)


def are_rows_adjacent(x: Tensor) -> bool:
    """Whether :func:`rows_adjacent` gives the map itself."""
    _, channel, row, pixel = x.stride()
    return (channel == 1 or x.shape[1] == 1) and row == x.shape[3] * pixel


def compiled(name: str, dtype: torch.dtype) -> Any:
    """A function of the library for this type."""
    return getattr(library(REAL_NAMES[dtype]), f"ffconv_{name}")


def _run(x: Tensor, spectrum: Tensor, inner: float, *, forward: bool) -> None:
    transform_job, function = _calls(x.dtype)
    job = transform_job(x.data_ptr(), spectrum.data_ptr(), Layout.of(x), *x.shape, inner)
    function(ctypes.byref(job), int(forward))


@functools.cache
def _calls(dtype: torch.dtype) -> tuple[Any, Any]:
    """The structure, and the function that takes it."""

    class TransformJob(ctypes.Structure):
        """The structure of the same name in transforms.hpp."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in ("map", "spectrum")),
            ("map_layout", Layout),
            *((name, ctypes.c_int64) for name in ("N", "C", "H", "W")),
            ("inner", getattr(ctypes, f"c_{REAL_NAMES[dtype]}")),
        ]

    return TransformJob, compiled("transform", dtype)


@functools.cache
def _has_small_factors(n: int) -> bool:
    """Whether the prime factors of n are such as the library has."""
    transforms: Any = library()
    for factor in range(2, transforms.ffconv_largest_factor() + 1):
        while n % factor == 0:
            n //= factor
    return n == 1
