"""A whole FFC in inference as one call of the compiled library."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffconv.ops.native.inference import spectral_transform_job
from ffconv.ops.native.paths import Paths
from ffconv.ops.native.transforms import compiled

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")  # as PaddingMode in convolution.hpp


class _Axis(ctypes.Structure):
    """The structure Axis in convolution.hpp."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("size", "outputs", "kernel", "stride", "padding", "dilation", "mode")
    ]


class _Filters(ctypes.Structure):
    """The structure Filters in convolution.hpp."""

    _fields_ = [
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("output", "tap", "input")),
    ]

    @classmethod
    def of(cls, weight: Tensor | None, turned: bool) -> _Filters:
        if weight is None:
            return cls()
        output, channel, row, tap = weight.stride()
        tap = tap if weight.shape[3] > 1 else row
        if not turned:
            return cls(weight.data_ptr(), output, tap, channel)
        last = (weight.shape[2] * weight.shape[3] - 1) * tap
        return cls(weight.data_ptr() + last * weight.element_size(), output, -tap, channel)


class _ConvolutionJob(ctypes.Structure):
    """The structure ConvolutionJob in convolution.hpp."""

    _fields_ = [
        *((name, _Axis) for name in ("height", "width")),
        *((name, ctypes.c_int64) for name in ("local_in", "global_in", "local_out", "global_out")),
        *((name, _Filters) for name in ("l2l", "g2l", "l2g")),
        ("bias", ctypes.c_void_p),
        ("relu", ctypes.c_int64),
    ]


def _map_fields(*names: str) -> list[tuple[str, Any]]:
    """Of structures Map in convolution.hpp."""
    fields = ("values", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("image", "row", "pixel"))
    return [(f"{name}_{field}", kind) for name in names for field, kind in fields]


class _ConvolutionMaps(ctypes.Structure):
    """The structure ConvolutionMaps in convolution.hpp."""

    _fields_ = [
        *_map_fields("x", "pooled", "onto", "y"),
        ("N", ctypes.c_int64),
    ]


class _WeightGradientsJob(ctypes.Structure):
    """The structure WeightGradientsJob in weight_gradients.hpp."""

    _fields_ = [
        ("around", ctypes.c_void_p),
        *_map_fields("x", "grad"),
        ("N", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("l2l", "g2l", "l2g")),
    ]


class Convolution:
    """An FFC made ready for maps of one size: its ordinary convolutions, and its Spectral Transform, if any.

    Args:
        x: a map, not smaller than it can be padded.
        size: (H_out, W_out).
        paths: the convolutions.
        layers: as for :func:`spectral_transform`; so are eps and weight. None without a Spectral Transform.
        keep_packed: whether the weights stay packed from call to call, in as much memory again, or 16/9 of
            it where they are packed for tiles. Otherwise each call reads them anew.
    Shape:
        x (N, C_in, H, W), pooled (N, C_in_g, H_out, W_out), onto (N, C_out, H_out, W_out) -> as onto,
        channels last in memory.
    """

    def __init__(
        self,
        x: Tensor,
        size: Sequence[int],
        paths: Paths,
        layers: Sequence[Tensor] = (),
        eps: Sequence[float] = (),
        weight: Tensor | None = None,
        *,
        keep_packed: bool = False,
    ) -> None:
        given = [*paths[:4], weight, *layers]
        convolutions = [None if path is None else _taps_adjacent(path) for path in paths[:3]]
        rest = [None if tensor is None else tensor.contiguous() for tensor in given[3:]]
        self._kept: list[Any] = [*convolutions, *rest]
        # What had to be copied would not follow the weights.
        self.copies = any(
            kept is not None and kept.data_ptr() != tensor.data_ptr()  # pyright: ignore[reportOptionalMemberAccess]
            for kept, tensor in zip(self._kept, given, strict=True)
        )
        l2l, l2g, g2l = (_Filters.of(weight, paths.turned) for weight in convolutions)
        bias, weight, *layers = rest  # pyright: ignore[reportAssignmentType]
        to_global = paths.l2g if weight is None else weight
        global_in, global_out = x.shape[1] - paths.local_in, 0 if to_global is None else to_global.shape[0]
        modes = [_PADDING_MODES.index(mode) for mode in paths.padding_modes]
        geometry = (x.shape[2:], size, paths.kernel, paths.stride, paths.padding, paths.dilation, modes)
        height, width = (_Axis(*numbers) for numbers in zip(*geometry, strict=True))
        self._around = _ConvolutionJob(
            height=height,
            width=width,
            local_in=paths.local_in,
            global_in=global_in,
            local_out=paths.local_out,
            global_out=global_out,
            l2l=l2l,
            g2l=g2l,
            l2g=l2g,
            bias=None if bias is None else bias.data_ptr(),
            relu=paths.relu,
        )
        self._job = spectral_transform_job(x.dtype, (global_in, *size), layers, eps, weight)
        self._job.around = ctypes.addressof(self._around)
        self._made = ctypes.byref(self._job)
        self._packs, self._packing = keep_packed, threading.Lock()
        self._function = compiled("convolution", x.dtype)
        self.local_in, self.size = paths.local_in, (paths.local_out + global_out, *size)
        if keep_packed:
            count = compiled("packed_bytes", x.dtype)(ctypes.byref(self._job))
            self._packed = torch.empty(count, dtype=torch.uint8)
            self._job.packed = self._packed.data_ptr()

    def weight_gradients(self, x: Tensor, grad: Tensor) -> list[Tensor | None]:
        """Gradients of the weights l2l, l2g and g2l from that of the result, by tiles.

        Shape:
            x (N, C_in, H, W), grad (N, C_out, H_out, W_out), whose rows are adjacent.
        """
        last = torch.channels_last
        made = [None if of is None else torch.empty_like(of, memory_format=last) for of in self._kept[:3]]
        l2l, l2g, g2l = (None if one is None else one.data_ptr() for one in made)
        around = ctypes.addressof(self._around)
        job = _WeightGradientsJob(around, *_place(x), *_place(grad), len(x), l2l, g2l, l2g)
        compiled("weight_gradients", x.dtype)(ctypes.byref(job))
        return made

    def __call__(self, x: Tensor, pooled: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
        """The result for x, with a map of its size added.

        The maps' rows are adjacent, see :func:`are_rows_adjacent`. Without ``pooled`` it is the last channels
        of x, their means in windows of the stride.
        """
        y = torch.empty((len(x), *self.size), dtype=x.dtype, memory_format=torch.channels_last)
        of_pooled = _NOWHERE if pooled is None else _place(pooled)
        of_onto = _NOWHERE if onto is None else _place(onto)
        maps = ctypes.byref(_ConvolutionMaps(*_place(x), *of_pooled, *of_onto, *_place(y), len(x)))
        if not self._packs:
            self._function(self._made, maps)
            return y
        with self._packing:  # nobody may read weights that another thread is packing
            self._function(self._made, maps)
            self._job.is_packed = True
        self._packs = False
        return y


def pays_in_tiles(x: Tensor, size: Sequence[int], channels: int) -> bool:
    """Whether convolutions that suit tiles are faster by them.

    Args:
        x: (N, C_in, H, W).
        size: (H_out, W_out).
        channels: C_out.
    """
    sizes = map(ctypes.c_int64, (*size, x.shape[1], channels, len(x)))
    return bool(compiled("pays_in_tiles", x.dtype)(*sizes))


_NOWHERE = (None, 0, 0, 0)


def _place(x: Tensor) -> tuple[int, int, int, int]:
    image, _, row, pixel = x.stride()
    return x.data_ptr(), image, row, pixel


def _taps_adjacent(weight: Tensor) -> Tensor:
    """The weight itself, also part of another one, if its channels lie side by side for each tap, those of x
    or those of the result, and taps follow each other from row to row, or else a copy."""
    outputs, channels, height, width = weight.shape
    output, channel, row, tap = weight.stride()
    in_rows = height == 1 or width == 1 or row == width * tap
    if in_rows and (channel == 1 or channels == 1 or output == 1 or outputs == 1):
        return weight
    return weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
