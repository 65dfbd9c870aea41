"""Where a convolution looks: sizes, pads, and the pooling that keeps a global path on the same grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, pads and dilation of an n-dimensional convolution, one entry an axis.

    Args:
        kernel_size: positive.
        stride: positive.
        pads: zeros before and after the map along each axis.
        dilation: positive.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """Distance in pixels between the first and the last tap of the kernel along each axis."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Input pixel under the kernel's centre at output 0, along each axis."""
        return tuple(span // 2 - before for span, (before, _) in zip(self.spans, self.pads, strict=True))

    @property
    def is_framewise(self) -> bool:
        """Whether it is one of clips that leaves time alone."""
        if len(self.kernel_size) < 3:
            return False
        return (self.kernel_size[0], self.stride[0], self.pads[0]) == (1, 1, (0, 0))

    @property
    def before(self) -> tuple[int, ...]:
        """Pixels that each axis is padded by before the map."""
        return tuple(before for before, _ in self.pads)

    def along(self, axes: int) -> Geometry:
        """What it is along so many last axes."""
        if axes == len(self.kernel_size):
            return self
        return Geometry(
            self.kernel_size[-axes:], self.stride[-axes:], self.pads[-axes:], self.dilation[-axes:]
        )

    @property
    def covers_map(self) -> bool:
        """Whether output i sits on input i * stride and there are ceil(n / stride) of them."""
        return not any(self.offsets) and all(
            span == before + after for span, (before, after) in zip(self.spans, self.pads, strict=True)
        )

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the convolution's output for a map of ``size``."""
        return tuple(
            (n + before + after - span - 1) // s + 1
            for n, (before, after), span, s in zip(size, self.pads, self.spans, self.stride, strict=True)
        )


@dataclass(frozen=True)
class Padding:
    """How a map is padded before a convolution, and what is left to the convolution itself.

    Args:
        steps: (mode, pads as ``F.pad`` takes them), one after the other.
        rest: the convolution's ``padding``.
        before: zeros before the map along each axis that are left to the convolution.
        modes: one an axis.
    """

    steps: tuple[tuple[str, tuple[int, ...]], ...]
    rest: str | tuple[int, ...]
    before: tuple[int, ...]
    modes: tuple[str, ...]

    @classmethod
    def of(cls, padding: str | tuple[int, ...], geometry: Geometry, modes: tuple[str, ...]) -> Padding:
        """The padding of a convolution with one padding mode an axis.

        Args:
            padding: the convolution's argument; zeros alone are left to it as they are.
            geometry: its pads.
            modes: "zeros" or a mode of ``F.pad``.
        """
        if set(modes) == {"zeros"}:
            return cls((), padding, geometry.before, modes)
        rest = tuple(
            before if mode == "zeros" and before == after else 0
            for mode, (before, after) in zip(modes, geometry.pads, strict=True)
        )
        steps = []
        for mode in dict.fromkeys(modes):
            pads = [
                pair if own == mode and not own_rest else (0, 0)
                for pair, own, own_rest in zip(geometry.pads, modes, rest, strict=True)
            ]
            if any(map(any, pads)):
                # F.pad counts axes from the last one.
                flat = tuple(pad for pair in reversed(pads) for pad in pair)
                steps.append(("constant" if mode == "zeros" else mode, flat))
        return cls(tuple(steps), rest, rest, modes)

    def __call__(self, x: Tensor) -> Tensor:
        """The map as the convolution is to read it."""
        for mode, pads in self.steps:
            x = F.pad(x, pads, mode=mode)
        return x

    def along(self, axes: int) -> Padding:
        """What it is along so many last axes, if the others are not padded."""
        if axes == len(self.modes):
            return self
        steps = tuple((mode, pads[: 2 * axes]) for mode, pads in self.steps)
        rest = self.rest if isinstance(self.rest, str) else self.rest[-axes:]
        return Padding(steps, rest, self.before[-axes:], self.modes[-axes:])


def aligned_avg_pool(x: Tensor, geometry: Geometry) -> Tensor:
    """Average pooling with the output grid of a convolution.

    Along each axis output i is the mean of the inputs ``i * s + o ... i * s + o + s - 1``, with s the stride
    and o the geometry's offset, clipped to the map; an empty window gives 0.

    Shape:
        x (N, C, *size) -> (N, C, *geometry.output_size(size)); frames of a clip by its geometry in space.
    """
    geometry = geometry.along(x.dim() - 2)
    stride, offsets = geometry.stride, geometry.offsets
    pooled_axes = any(s > 1 for s in stride)
    # Compiled, ceil_mode would be a guard on the size, and torch 2.15's inductor gives it a wrong gradient.
    if geometry.covers_map and not (pooled_axes and torch.compiler.is_compiling()):
        return _avg_pool(x, stride, ceil_mode=True) if pooled_axes else x
    size = tuple(x.shape[2:])
    output_size = geometry.output_size(size)
    pads: list[int] = []
    for n, m, s, o in zip(size, output_size, stride, offsets, strict=True):
        pads = [-o, m * s + o - n, *pads]  # F.pad counts axes from the last one
    y = F.pad(x, pads)
    if not pooled_axes:
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
    """Means of windows side by side; of a window that reaches beyond the map, of what lies on it."""
    if len(stride) == 1:
        return F.avg_pool1d(x, stride, stride, ceil_mode=ceil_mode)
    if len(stride) == 2:
        return F.avg_pool2d(x, stride, stride, ceil_mode=ceil_mode)
    # torch's pooling of clips knows no half precision on the CPU and is not deterministic on CUDA.
    in_time, *in_space = stride
    frames = F.avg_pool2d(x.transpose(1, 2).flatten(0, 1), in_space, in_space, ceil_mode=ceil_mode)
    y = frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    if in_time == 1:
        return y
    window = (in_time, 1)
    courses = F.avg_pool2d(y.flatten(3), window, window, ceil_mode=ceil_mode)  # (N, C, T, H W)
    return courses.unflatten(3, y.shape[3:])
