"""A Spectral Transform in inference, or a Fourier Unit alone, as one call of the compiled library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffconv.ops.native.transforms import REAL_NAMES, Layout, are_rows_adjacent, compiled, rows_adjacent

_POINTERS = ("weight", "gamma", "beta", "mean", "var")


@functools.cache
def structures(dtype: torch.dtype) -> tuple[Any, Any]:
    """Those of inference.hpp for this type: a normed layer, and the job."""
    real = getattr(ctypes, f"c_{REAL_NAMES[dtype]}")

    class NormedLayer(ctypes.Structure):
        """The structure of the same name."""

        _fields_ = [*((name, ctypes.c_void_p) for name in _POINTERS), ("eps", real)]

    class SpectralTransformJob(ctypes.Structure):
        """The structure of the same name."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in ("x", "y")),
            *((name, Layout) for name in ("x_layout", "y_layout")),
            *((name, ctypes.c_int64) for name in ("N", "H", "W", "C_in", "C", "C_out", "add")),
            *((name, NormedLayer) for name in ("first", "unit", "local")),
            *((name, ctypes.c_void_p) for name in ("last", "around", "packed")),
            ("is_packed", ctypes.c_int64),
            ("maps", ctypes.c_void_p),
        ]

    return NormedLayer, SpectralTransformJob


def spectral_transform(
    x: Tensor, onto: Tensor | None, layers: Sequence[Tensor], eps: Sequence[float], weight: Tensor | None
) -> Tensor:
    """conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), the norms by their statistics.

    Args:
        x: map, in memory best with its channels adjacent.
        onto: map to whose last channels the result is added; it is written to.
        layers: five tensors of conv1, of the Fourier Unit, and of the Local Fourier Unit if there is one:
            weight (C_out, C_in, 1, 1), and the norm's gamma, beta, mean and variance, each (C_out,). Those
            of one alone are a Fourier Unit's, of as many channels out as in: fu(x).
        eps: of each norm.
        weight: conv2's, (C_out, c, 1, 1); None for a Fourier Unit alone.
    Shape:
        x (N, C_in, H, W), onto (N, C, H, W) -> (N, C, H, W); without onto (N, C_out, H, W), channels last in
        memory.
    """
    C_out = x.shape[1] if weight is None else weight.shape[0]
    if onto is None:
        N, _, H, W = x.shape
        y = x.new_empty(N, H, W, C_out).permute(0, 3, 1, 2)
        _run(x, y, layers, eps, weight, add=False)
        return y
    if are_rows_adjacent(onto):
        _run(x, onto[:, onto.shape[1] - C_out :], layers, eps, weight, add=True)
    else:
        onto[:, onto.shape[1] - C_out :] += spectral_transform(x, None, layers, eps, weight)
    return onto


def _run(
    x: Tensor, y: Tensor, layers: Sequence[Tensor], eps: Sequence[float], weight: Tensor | None, *, add: bool
) -> None:
    x = rows_adjacent(x)
    # Kept until the call is over: a weight may be a copy.
    tensors = [tensor.contiguous() for tensor in layers]
    last = None if weight is None else weight.contiguous()
    job = spectral_transform_job(x.dtype, x.shape[1:], tensors, eps, last)
    job.N, job.add = x.shape[0], add
    job.x, job.x_layout = x.data_ptr(), Layout.of(x)
    job.y, job.y_layout = y.data_ptr(), Layout.of(y)
    compiled("spectral_transform", x.dtype)(ctypes.byref(job))


def spectral_transform_job(
    dtype: torch.dtype,
    size: Sequence[int],
    layers: Sequence[Tensor],
    eps: Sequence[float],
    weight: Tensor | None,
) -> Any:
    """All of a job but its maps, which have the size (C_in, H, W); the other tensors must be contiguous.
    Without layers it transforms nothing."""
    C_in, H, W = size
    C_out, C = (C_in, C_in) if weight is None else weight.shape[:2]
    normed_layer, job = structures(dtype)
    addresses = [tensor.data_ptr() for tensor in layers]
    normed = [normed_layer(*addresses[5 * i : 5 * i + 5], value) for i, value in enumerate(eps)]
    if weight is None:
        normed.insert(0, normed_layer())
    first, unit, local = [*normed, normed_layer(), normed_layer()][:3]
    return job(
        H=H,
        W=W,
        C_in=C_in,
        C=C if layers else 0,
        C_out=C_out,
        first=first,
        unit=unit,
        local=local,
        last=None if weight is None else weight.data_ptr(),
    )
