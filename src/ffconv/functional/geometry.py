"""Geometry of a convolution, and the padding and pooling that follow it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ConvGeometry(NamedTuple):
    """Kernel, stride, padding and dilation of an n-dimensional convolution, one entry an axis.

    Args:
        kernel_size: Positive.
        stride: Positive.
        pads: Pixels before and after the map along each axis, not negative.
        dilation: Positive.
        modes: Padding mode along each axis, one of ``PADDING_MODES``.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    modes: tuple[str, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Distance in pixels between the first and the last tap of the kernel along each axis."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Input pixel under the kernel's centre at output 0 along each axis."""
        return tuple(span // 2 - before for span, (before, _) in zip(self.spans, self.pads, strict=True))

    @property
    def pad_before(self) -> tuple[int, ...]:
        """Pixels that pad each axis before the map."""
        return tuple(before for before, _ in self.pads)

    @property
    def conv_padding(self) -> tuple[int, ...]:
        """Zeros that the convolution itself can add; :func:`pad` adds the rest."""
        return tuple(
            before if mode == "zeros" and before == after else 0
            for mode, (before, after) in zip(self.modes, self.pads, strict=True)
        )

    @property
    def is_framewise(self) -> bool:
        """True if it is three-dimensional and leaves time alone."""
        return len(self.stride) == 3 and (self.kernel_size[0], self.stride[0], self.pads[0]) == (1, 1, (0, 0))

    @property
    def is_strided_grid(self) -> bool:
        """True if output i lies on input ``i * stride`` and there are ``ceil(n / stride)`` outputs."""
        return not any(self.offsets) and all(
            span == before + after for span, (before, after) in zip(self.spans, self.pads, strict=True)
        )

    @property
    def is_same_grid(self) -> bool:
        """True if output i lies on input i and there are as many of them."""
        return self.is_strided_grid and max(self.stride) == 1

    def after_padding(self) -> ConvGeometry:
        """Return the geometry of the convolution of a map that :func:`pad` has padded."""
        if self.modes == ("zeros",) * len(self.modes) and all(before == after for before, after in self.pads):
            return self
        pads = tuple((p, p) for p in self.conv_padding)
        return self._replace(pads=pads, modes=("zeros",) * len(self.modes))

    def last_axes(self, count: int) -> ConvGeometry:
        """Return the geometry of the last ``count`` axes."""
        return self if count == len(self.stride) else ConvGeometry(*(field[-count:] for field in self))

    def output_size(self, size: Iterable[int]) -> tuple[int, ...]:
        """Return the size of the convolution's output for a map of ``size``."""
        return tuple(
            (n + before + after - span - 1) // s + 1
            for n, (before, after), span, s in zip(size, self.pads, self.spans, self.stride, strict=True)
        )


def conv_geometry(
    dims: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, padding_mode: Any = "zeros"
) -> ConvGeometry:
    """Return the geometry for the arguments of ``nn.Conv1d/2d/3d``.

    Args:
        dims: Number of axes of the map.
        kernel_size: An integer or one an axis; so are stride and dilation.
        padding: An integer, one an axis, "same" or "valid".
        padding_mode: A mode of ``nn.Conv2d``, or one an axis.
    Raises:
        ValueError: If a value is out of range or has another number of axes.
    Example:
        >>> conv_geometry(2, 3, stride=2, padding=1).output_size((15, 9))
        (8, 5)
    """
    arguments = (dims, kernel_size, stride, padding, dilation, padding_mode)
    if torch.compiler.is_compiling():
        return _conv_geometry(*arguments)
    try:
        return _cached_geometry(*arguments)
    except TypeError:  # lists cannot be hashed
        return _cached_geometry(*(tuple(a) if isinstance(a, list) else a for a in arguments))


def _conv_geometry(
    dims: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, padding_mode: Any
) -> ConvGeometry:
    kernel_size = per_axis("kernel_size", kernel_size, dims)
    stride = per_axis("stride", stride, dims)
    dilation = per_axis("dilation", dilation, dims)
    modes = per_axis("padding_mode", padding_mode, dims)
    for name, values in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ValueError(f"{name}={values} must be positive")
    spans = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    if padding == "same":
        if max(stride) > 1:
            raise ValueError(f"padding='same' needs stride 1, not {stride}")
        pads = tuple((span // 2, span - span // 2) for span in spans)
    elif padding == "valid":
        pads = ((0, 0),) * dims
    elif isinstance(padding, str):
        raise ValueError(f"padding={padding!r} must be 'same', 'valid' or numbers")
    else:
        pads = tuple((p, p) for p in per_axis("padding", padding, dims))
        if min(p for p, _ in pads) < 0:
            raise ValueError(f"padding={padding} must not be negative")
    for mode in modes:
        if mode not in PADDING_MODES:
            raise ValueError(f"padding_mode={padding_mode!r} must be one of {PADDING_MODES}")
    return ConvGeometry(kernel_size, stride, pads, dilation, modes)


_cached_geometry = functools.lru_cache(maxsize=1024)(_conv_geometry)


def per_axis(name: str, value: Any, dims: int) -> tuple:
    """Return a value for each axis: the given ones, or the given one repeated.

    Raises:
        ValueError: If there are values, but not ``dims``.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (value,) * dims
    values = tuple(value)
    if len(values) != dims:
        raise ValueError(f"{name}={value} must have one entry for each of the {dims} axes")
    return values


def pad(x: Tensor, geometry: ConvGeometry) -> Tensor:
    """Pad a map by what ``geometry.conv_padding`` leaves over.

    Shape:
        x (N, C, *size) -> (N, C, *padded).
    """
    rest = geometry.conv_padding
    for mode in dict.fromkeys(geometry.modes):
        pads = [
            pair if own == mode and not by_conv else (0, 0)
            for pair, own, by_conv in zip(geometry.pads, geometry.modes, rest, strict=True)
        ]
        if any(map(any, pads)):
            # F.pad counts axes from the last one.
            flat = [pixels for pair in reversed(pads) for pixels in pair]
            x = F.pad(x, flat, mode="constant" if mode == "zeros" else mode)
    return x


def aligned_avg_pool(x: Tensor, geometry: ConvGeometry) -> Tensor:
    """Apply average pooling with the output grid of a convolution.

    Along each axis output i is the mean of the inputs ``i * s + o ... i * s + o + s - 1``, with s the stride
    and o the geometry's offset, clipped to the map; an empty window gives 0.

    Shape:
        x (N, C, *size) -> (N, C, *geometry.output_size(size)).
    """
    stride, offsets = geometry.stride, geometry.offsets
    is_pooled = any(s > 1 for s in stride)
    # Compiled, ceil_mode would be a guard on the size, and torch 2.15's inductor gives it a wrong gradient.
    if geometry.is_strided_grid and not (is_pooled and torch.compiler.is_compiling()):
        return _avg_pool(x, stride, ceil_mode=True) if is_pooled else x
    size = tuple(x.shape[2:])
    output_size = geometry.output_size(size)
    pads: list[int] = []
    for n, m, s, o in zip(size, output_size, stride, offsets, strict=True):
        pads = [-o, m * s + o - n, *pads]  # F.pad counts axes from the last one
    y = F.pad(x, pads)
    if not is_pooled:
        return y
    y = _avg_pool(y, stride)
    for axis, (n, m, s, o) in enumerate(zip(size, output_size, stride, offsets, strict=True), start=2):
        if s == 1:
            continue
        start = torch.arange(m, device=x.device) * s + o
        inside = (start + s).clamp(max=n) - start.clamp(min=0)
        # The zeros around the map took part in the mean; an empty window stays 0.
        factor = s / inside.clamp(min=1).to(y.dtype)
        y = y * factor.reshape(-1, *[1] * (y.dim() - axis - 1))
    return y


def _avg_pool(x: Tensor, stride: tuple[int, ...], *, ceil_mode: bool = False) -> Tensor:
    if len(stride) == 1:
        return F.avg_pool1d(x, stride, stride, ceil_mode=ceil_mode)
    if len(stride) == 2:
        return F.avg_pool2d(x, stride, stride, ceil_mode=ceil_mode)
    # avg_pool3d has no half precision on the CPU and is not deterministic on CUDA.
    time_stride, *spatial_stride = stride
    frames = F.avg_pool2d(x.transpose(1, 2).flatten(0, 1), spatial_stride, spatial_stride, ceil_mode=ceil_mode)
    y = frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    if time_stride == 1:
        return y
    window = (time_stride, 1)
    return F.avg_pool2d(y.flatten(3), window, window, ceil_mode=ceil_mode).unflatten(3, y.shape[3:])
