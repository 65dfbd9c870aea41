"""A whole FFC in inference as one call of the compiled library."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffconv.ops.native.inference import spectral_transform_job
from ffconv.ops.native.transforms import compiled


class Paths(NamedTuple):
    """The ordinary convolutions of an FFC without groups, and what comes behind.

    Shape:
        l2l (C_out_l, C_in_l, *kernel), l2g (C_out_g, C_in_l, *kernel), g2l (C_out_l, C_in_g, *kernel), each
        None where there is none, but not all three; bias (C_out,) or None.
    """

    l2l: Tensor | None
    l2g: Tensor | None
    g2l: Tensor | None
    bias: Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]  # zeros above and to the left
    dilation: Sequence[int]
    relu: bool = False

    def of_frames(self) -> Paths:
        """Those of the frames of clips, if kernels are 1 in time; of images they themselves."""
        if len(self.stride) == 2:
            return self
        l2l, l2g, g2l = (None if weight is None else weight.squeeze(2) for weight in self[:3])
        stride, padding, dilation = self.stride[1:], self.padding[1:], self.dilation[1:]
        return Paths(l2l, l2g, g2l, self.bias, stride, padding, dilation, self.relu)

    @property
    def kernel(self) -> Sequence[int]:
        """Height and width."""
        return next(weight.shape[2:] for weight in self[:3] if weight is not None)

    def fit(self, global_in: int, last: Tensor | None) -> bool:
        """Whether the sizes of all go together, and with a Spectral Transform's last weight."""
        local_in, local_out = self.local_in, self.local_out
        to_global = self.l2g if last is None else last
        global_out = 0 if to_global is None else to_global.shape[0]
        sizes = ((local_out, local_in), (global_out, local_in), (local_out, global_in))
        paths = zip(self[:3], sizes, strict=True)
        fit = all(path is None or path.shape == (*size, *self.kernel) for path, size in paths)
        return fit and (self.bias is None or len(self.bias) == local_out + global_out)

    @property
    def suit_tiles(self) -> bool:
        """Whether they are of the kind that the library makes by tiles where maps are large enough."""
        geometry = (self.kernel, self.stride, self.dilation)
        return all(tuple(numbers) == (side, side) for numbers, side in zip(geometry, (3, 1, 1), strict=True))

    @property
    def local_in(self) -> int:
        """Local channels of the map."""
        return next((weight.shape[1] for weight in (self.l2l, self.l2g) if weight is not None), 0)

    @property
    def local_out(self) -> int:
        """Local channels of the result."""
        return next((weight.shape[0] for weight in (self.l2l, self.g2l) if weight is not None), 0)


class _Axis(ctypes.Structure):
    """The structure Axis in convolution.hpp."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("size", "outputs", "kernel", "stride", "padding", "dilation")
    ]


class _Filters(ctypes.Structure):
    """The structure Filters in convolution.hpp."""

    _fields_ = [("values", ctypes.c_void_p), ("output", ctypes.c_int64), ("tap", ctypes.c_int64)]

    @classmethod
    def of(cls, weight: Tensor | None) -> _Filters:
        if weight is None:
            return cls()
        output, _, row, tap = weight.stride()
        return cls(weight.data_ptr(), output, tap if weight.shape[3] > 1 else row)


class _ConvolutionJob(ctypes.Structure):
    """The structure ConvolutionJob in convolution.hpp."""

    _fields_ = [
        *((name, _Axis) for name in ("height", "width")),
        *((name, ctypes.c_int64) for name in ("local_in", "global_in", "local_out", "global_out")),
        *((name, _Filters) for name in ("l2l", "g2l", "l2g")),
        ("bias", ctypes.c_void_p),
        ("relu", ctypes.c_int64),
    ]


class _ConvolutionMaps(ctypes.Structure):
    """The structure ConvolutionMaps in convolution.hpp."""

    _fields_ = [
        *(
            (f"{name}_{field}", ctypes.c_void_p if field == "values" else ctypes.c_int64)
            for name in ("x", "pooled", "onto", "y")
            for field in ("values", "image", "row", "pixel")
        ),
        ("N", ctypes.c_int64),
    ]


class Convolution:
    """An FFC made ready for maps of one size: its ordinary convolutions, and its Spectral Transform, if any.

    Args:
        x: a map, padded as far as that is not by zeros.
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
        l2l, l2g, g2l = map(_Filters.of, convolutions)
        bias, weight, *layers = rest  # pyright: ignore[reportAssignmentType]
        to_global = paths.l2g if weight is None else weight
        global_in, global_out = x.shape[1] - paths.local_in, 0 if to_global is None else to_global.shape[0]
        geometry = (x.shape[2:], size, paths.kernel, paths.stride, paths.padding, paths.dilation)
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


_NOWHERE = (None, 0, 0, 0)


def _place(x: Tensor) -> tuple[int, int, int, int]:
    image, _, row, pixel = x.stride()
    return x.data_ptr(), image, row, pixel


def _taps_adjacent(weight: Tensor) -> Tensor:
    """The weight itself, also part of another one, if its channels lie side by side for each tap, and taps
    follow each other from row to row, or else a copy."""
    _, channels, height, width = weight.shape
    _, channel, row, tap = weight.stride()
    in_rows = height == 1 or width == 1 or row == width * tap
    if in_rows and (channel == 1 or channels == 1):
        return weight
    return weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
