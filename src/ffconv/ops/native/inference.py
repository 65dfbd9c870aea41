"""The whole Spectral Transform in inference, or a Fourier Unit alone, as one call of the compiled library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffconv.ops.native.transforms import REAL_NAMES, Layout, are_rows_adjacent, compiled, rows_adjacent

_POINTERS = ("weight", "gamma", "beta", "mean", "var")


def _structures(real: type) -> tuple[type[ctypes.Structure], type[ctypes.Structure]]:
    class NormedLayer(ctypes.Structure):
        """The structure of the same name in inference.hpp."""

        _fields_ = [*((name, ctypes.c_void_p) for name in _POINTERS), ("eps", real)]

    class SpectralTransformJob(ctypes.Structure):
        """The structure of the same name in inference.hpp."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in ("x", "y")),
            *((name, Layout) for name in ("x_layout", "y_layout")),
            *((name, ctypes.c_int64) for name in ("N", "H", "W", "C_in", "C", "C_out", "add")),
            *((name, NormedLayer) for name in ("first", "unit", "local")),
            ("last", ctypes.c_void_p),
        ]

    return NormedLayer, SpectralTransformJob


@functools.cache
def _calls(dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The structures, and the function that takes them."""
    structures = _structures(getattr(ctypes, f"c_{REAL_NAMES[dtype]}"))
    return *structures, compiled("spectral_transform", dtype)


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
    C_out, C = x.shape[1:2] * 2 if weight is None else weight.shape[:2]
    if onto is not None and not are_rows_adjacent(onto):
        onto[:, onto.shape[1] - C_out :] += spectral_transform(x, None, layers, eps, weight)
        return onto
    x = rows_adjacent(x)
    N, C_in, H, W = x.shape
    y = x.new_empty(N, H, W, C_out).permute(0, 3, 1, 2) if onto is None else onto
    # Kept until the call is over: a weight may be a copy.
    tensors = [tensor.contiguous() for tensor in layers]
    last = None if weight is None else weight.contiguous()
    normed_layer, job, function = _calls(x.dtype)
    addresses = [tensor.data_ptr() for tensor in tensors]
    structures = [normed_layer(*addresses[5 * i : 5 * i + 5], value) for i, value in enumerate(eps)]
    if last is None:
        structures.insert(0, normed_layer())
    if len(structures) == 2:
        structures.append(normed_layer())
    call = job(
        x.data_ptr(),
        y.data_ptr() + (y.shape[1] - C_out) * y.element_size(),
        Layout.of(x),
        Layout.of(y),
        *(N, H, W, C_in, C, C_out, onto is not None),
        *structures,
        None if last is None else last.data_ptr(),
    )
    function(ctypes.byref(call))
    return y
