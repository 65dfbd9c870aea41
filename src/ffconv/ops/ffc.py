"""Fast Fourier Convolution as a drop-in for ``torch.nn.Conv1d``, ``Conv2d`` and ``Conv3d``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.ops import tiles
from ffconv.ops.axes import AXIS_NAMES, Axes, spectral_axes
from ffconv.ops.fourier_unit import check_groups
from ffconv.ops.geometry import Geometry, Padding
from ffconv.ops.joining import (
    add_to_local,
    fork_global,
    join_blocks,
    regroup,
    split_sides,
    ungroup,
    zero_block_costs,
)
from ffconv.ops.native import Paths
from ffconv.ops.one_call import OneCall
from ffconv.ops.spectral_transform import SpectralTransform

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

torch.fx.wrap("add_to_local")
torch.fx.wrap("fork_global")
torch.fx.wrap("join_blocks")
torch.fx.wrap("split_sides")


def split_channels(channels: int, ratio: float) -> tuple[int, int]:
    """Numbers of local and global channels: the last ``int(channels * ratio)`` are global.

    Raises:
        ValueError: if ratio is outside [0, 1].
    Example:
        >>> split_channels(64, 0.25)
        (48, 16)
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio={ratio} must lie in [0, 1]")
    global_channels = int(channels * ratio)
    return channels - global_channels, global_channels


class FFCNd(nn.Module):
    """Fast Fourier Convolution: a convolution one part of whose channels sees the whole map.

    Of C channels the last ``int(C * ratio)`` are global, the others local:

        y_l = W_l2l * x_l + W_g2l * x_g
        y_g = W_l2g * x_l + SpectralTransform(x_g)

    Takes and returns one tensor and has the arguments and the geometry attributes of ``torch.nn``'s
    convolutions, but no ``weight``: initialisers that write to it would change nothing. :meth:`dense_weight`
    gives the three convolutions as one. Each part is initialised by itself, kaiming normal with fan out; the
    bias, one for all channels, with zeros.

    The class for maps of any number of axes; FFC1d, FFC2d and FFC3d of :mod:`ffconv.ops.layers` are it.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.1, Fig. 1; defaults of the authors' code. For video Sec. 4.2:
    the transform is that of each frame, and the convolutions inside the Spectral Transform are 1 in space and
    have the layer's own kernel and dilation in time.
    Deviation: one tensor instead of a pair; any size, ratio and geometry.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        kernel_size: as for ``nn.Conv2d``; so are stride, padding (a word, too), dilation, bias.
        groups: blocks of each of the three convolutions; the Spectral Transform has ``max(1, groups // 2)``.
        padding_mode: as for ``nn.Conv2d``, or one word an axis of the map.
        ratio: share of global channels on both sides, in [0, 1].
        ratio_in: the same for the input alone.
        ratio_out: the same for the output alone.
        lfu: whether the Spectral Transform has a Local Fourier Unit.
        local_to_global: whether W_l2g exists.
        global_to_local: whether W_g2l exists.
        spectral_dims: axes of the map that are Fourier transformed, among "t", "h", "w" (for a sequence "l");
            by default "h" and "w". Where time is transformed, the Spectral Transform has no kernel in it.
    Shape:
        x (N, C_in, *size) -> (N, C_out, *size_out), sizes as for ``nn.Conv2d``.
    Raises:
        ValueError: if a ratio is outside [0, 1], groups does not divide a part, a switch leaves a part of the
            output without a source or a part of the input without use, an axis is unknown, or the geometry is
            none of a convolution's.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str | tuple[str, ...] = "zeros",
        *,
        ratio: float = 0.25,
        ratio_in: float | None = None,
        ratio_out: float | None = None,
        lfu: bool = True,
        local_to_global: bool = True,
        global_to_local: bool = True,
        spectral_dims: Sequence[str] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._per_axis("kernel_size", kernel_size)
        self.stride = self._per_axis("stride", stride)
        self.padding = padding if isinstance(padding, str) else self._per_axis("padding", padding)
        self.dilation = self._per_axis("dilation", dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.ratio_in = ratio if ratio_in is None else ratio_in
        self.ratio_out = ratio if ratio_out is None else ratio_out
        self.lfu = lfu
        self.local_to_global = local_to_global
        self.global_to_local = global_to_local
        self.in_local, self.in_global = split_channels(in_channels, self.ratio_in)
        self.out_local, self.out_global = split_channels(out_channels, self.ratio_out)
        self.geometry = self._geometry()
        self._check()
        modes = self._per_axis("padding_mode", padding_mode)
        self.pad = Padding.of(self.padding, self.geometry, modes)
        self.axes = self._axes(spectral_axes(self.dims, spectral_dims), modes)
        self.spectral_dims = tuple(AXIS_NAMES[self.dims][axis - 2] for axis in self.axes.spectral)
        self._build(bias, {"device": device, "dtype": dtype})
        self._one_call = OneCall(self) if self.runs_in_one_call else None
        self.reset_parameters()

    def _per_axis(self, name: str, value: Any) -> tuple:
        one = isinstance(value, str) or not isinstance(value, Iterable)
        values = (value,) * self.dims if one else tuple(value)
        if len(values) != self.dims:
            raise ValueError(f"{name}={value} must have one entry for each of the {self.dims} axes")
        return values

    def _geometry(self) -> Geometry:
        spans = tuple(d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True))
        if self.padding == "same":
            pads = tuple((span // 2, span - span // 2) for span in spans)
        elif self.padding == "valid":
            pads = tuple((0, 0) for _ in spans)
        elif isinstance(self.padding, str):
            raise ValueError(f"padding={self.padding!r} must be 'same', 'valid' or numbers")
        else:
            pads = tuple((p, p) for p in self.padding)
        return Geometry(self.kernel_size, self.stride, pads, self.dilation)

    def _axes(self, spectral: tuple[int, ...], modes: tuple[str, ...]) -> Axes:
        """The layer's own kernel in time unless time is transformed, 1 along all other axes."""
        names = AXIS_NAMES[self.dims]
        local = [name == "t" and axis not in spectral for axis, name in enumerate(names, start=2)]
        kernel = tuple(k if own else 1 for k, own in zip(self.kernel_size, local, strict=True))
        dilation = tuple(d if own else 1 for d, own in zip(self.dilation, local, strict=True))
        return Axes(spectral, kernel, dilation, modes[0])

    def _check(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if min(map(min, self.geometry.pads)) < 0:
            raise ValueError(f"padding={self.padding} must not be negative")
        if self.padding == "same" and any(s > 1 for s in self.stride):
            raise ValueError(f"padding='same' needs stride 1, not {self.stride}")
        if not {*self._per_axis("padding_mode", self.padding_mode)} <= {*_PADDING_MODES}:
            raise ValueError(f"padding_mode={self.padding_mode!r} must be one of {_PADDING_MODES}")
        for side, ratio, parts in (
            ("in", self.ratio_in, (self.in_local, self.in_global)),
            ("out", self.ratio_out, (self.out_local, self.out_global)),
        ):
            channels = sum(parts)
            if channels < 1:
                raise ValueError(f"{side}_channels={channels} must be positive")
            for share, count in zip((1 - ratio, ratio), parts, strict=True):
                if self.groups < 1 or count % self.groups:
                    part = f"{side}_channels={channels} x ratio {share:g} = {count}"
                    raise ValueError(f"groups={self.groups} must divide {part}")
        only_path = {
            "local_to_global": (self.in_local and not self.out_local)
            or (self.out_global and not self.in_global),
            "global_to_local": (self.in_global and not self.out_global)
            or (self.out_local and not self.in_local),
        }
        for name, is_only_path in only_path.items():
            if not getattr(self, name) and is_only_path:
                raise ValueError(
                    f"{name}=False would cut off a part: with ratio_in={self.ratio_in} and "
                    f"ratio_out={self.ratio_out} it is the part's only path"
                )

    def _build(self, bias: bool, factory: dict) -> None:
        def part(exists: bool, outputs: int, inputs: int) -> nn.Parameter | None:
            if not (exists and outputs and inputs):
                return None
            return nn.Parameter(torch.empty(outputs, inputs // self.groups, *self.kernel_size, **factory))

        self.weight_l2l = part(True, self.out_local, self.in_local)
        self.weight_l2g = part(self.local_to_global, self.out_global, self.in_local)
        self.weight_g2l = part(self.global_to_local, self.out_local, self.in_global)
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.spectral = None
        if self.in_global and self.out_global:
            self.spectral = SpectralTransform(
                self.in_global,
                self.out_global,
                groups=max(1, self.groups // 2),
                lfu=self.lfu,
                geometry=self.geometry,
                axes=self.axes,
                **factory,
            )

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for each part by itself, as in the paper; zeros for the bias."""
        for weight in (self.weight_l2l, self.weight_l2g, self.weight_g2l):
            if weight is not None:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.spectral is not None:
            self.spectral.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        if self._one_call is not None:
            y = self._one_call(self, x)
            if y is not None:
                return y
        return self._by_parts(x)

    def _by_parts(self, x: Tensor) -> Tensor:
        if self.groups > 1 or self.in_local + self.out_local == 0:
            return self._add_bias(self._convolve_by_path(x))
        if self.spectral is None:
            return self._convolve_all(x)
        x, x_global = fork_global(x, self.in_local)
        return self.spectral(x_global, self._convolve_all(x))

    @property
    def runs_in_one_call(self) -> bool:
        """Whether the layer is such as the compiled library computes as a whole in inference."""
        of_images = self.dims == 2 or self.is_framewise
        return of_images and self.groups == 1 and self.in_local + self.out_local > 0

    @property
    def is_framewise(self) -> bool:
        """Whether the layer computes each frame of a clip by itself."""
        return self.geometry.is_framewise and self.axes.are_of_planes

    def paths(self) -> Paths:
        """The ordinary convolutions of a layer without groups."""
        weights = (self.weight_l2l, self.weight_l2g, self.weight_g2l)
        of = self.geometry
        return Paths(*weights, self.bias, of.stride, of.before, of.dilation, self.pad.modes)

    @property
    def convolves_from_sides(self) -> bool:
        """Whether local and global channels have a convolution each, since the zero block of one for both
        would be large."""
        paths = (self.weight_l2l, self.weight_l2g, self.weight_g2l, self.spectral)
        if self.groups > 1 or any(path is None for path in paths):
            return False
        return zero_block_costs(self.in_global * self.out_global, self.in_channels * self.out_channels)

    def _convolve_all(self, x: Tensor) -> Tensor:
        """The ordinary convolutions together."""
        y = tiles.convolve(self, x)
        if y is not None:
            return y
        x = self._pad(x)
        if self.convolves_from_sides:
            return self._convolve_from_sides(x)
        return self._convolve(x, self.dense_weight(), self.bias)

    def _convolve_from_sides(self, x: Tensor) -> Tensor:
        """One convolution of the local channels, one of the global ones."""
        x_local, x_global = split_sides(x, self.in_local)
        from_local = torch.cat([self.weight_l2l, self.weight_l2g])  # pyright: ignore
        y = self._convolve(x_local, from_local, self.bias)
        return add_to_local(y, self._convolve(x_global, self.weight_g2l))  # pyright: ignore

    def _convolve_by_path(self, x: Tensor) -> Tensor:
        z = None if self.spectral is None else self.spectral(x[:, self.in_local :])
        if z is not None and self.in_local + self.out_local == 0:
            return z
        x = self._pad(x)
        x_local, x_global = x[:, : self.in_local], x[:, self.in_local :]
        to_local = [
            self._convolve(part, weight)
            for part, weight in ((x_local, self.weight_l2l), (x_global, self.weight_g2l))
            if weight is not None
        ]
        to_global = [] if self.weight_l2g is None else [self._convolve(x_local, self.weight_l2g)]
        if z is not None:
            to_global.append(z)
        return torch.cat([sum(terms[1:], terms[0]) for terms in (to_local, to_global) if terms], dim=1)

    def _pad(self, x: Tensor) -> Tensor:
        return self.pad(x)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        convolve = _CONVOLVE[self.dims]
        return convolve(x, weight, bias, self.stride, self.pad.rest, self.dilation, self.groups)

    def _add_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.reshape(-1, *[1] * self.dims)

    def dense_weight(self) -> Tensor:
        """The convolutions as the weight of one ordinary convolution, without groups; zeros where there is no
        path.

        Shape:
            (C_out, C_in, *kernel_size), differentiable in the parts.
        """
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        weights = (self.weight_l2l, self.weight_g2l, self.weight_l2g)
        if all(weight is None for weight in weights):
            return next(self.parameters()).new_zeros(shape)
        blocks = [None if weight is None else ungroup(weight, self.groups) for weight in weights]
        return join_blocks(shape, (self.out_local, self.in_local), *blocks)

    @torch.no_grad()
    def load_dense_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Carry the weights of an ordinary convolution into the parts that correspond.

        What the ordinary convolution has no weight for keeps its value: the Spectral Transform, and, since
        the groups of a part are not those of the whole, some of the blocks of a grouped part.

        Args:
            weight: (C_out, C_in / g, *kernel_size), g the ordinary convolution's groups.
            bias: (C_out,), or None to keep the present one.
        Raises:
            ValueError: if the shapes do not fit.
        """
        groups = max(1, self.in_channels // max(1, weight.shape[1]))
        expected = (self.out_channels, self.in_channels // groups, *self.kernel_size)
        if tuple(weight.shape) != expected:
            raise ValueError(f"weight has shape {tuple(weight.shape)}, must have {expected}")
        check_groups(groups, in_channels=self.in_channels, out_channels=self.out_channels)
        if bias is not None and self.bias is None:
            raise ValueError(f"bias of shape {tuple(bias.shape)} must be None: the layer has bias=False")
        if bias is not None and self.bias is not None and bias.shape != self.bias.shape:
            raise ValueError(f"bias has shape {tuple(bias.shape)}, must have {tuple(self.bias.shape)}")
        dense, known = ungroup(weight, groups), ungroup(torch.ones_like(weight), groups) > 0
        local_in, local_out = slice(None, self.in_local), slice(None, self.out_local)
        global_in, global_out = slice(self.in_local, None), slice(self.out_local, None)
        for part, outputs, inputs in (
            (self.weight_l2l, local_out, local_in),
            (self.weight_l2g, global_out, local_in),
            (self.weight_g2l, local_out, global_in),
        ):
            if part is not None:
                mask = regroup(known[outputs, inputs], self.groups)
                part.copy_(torch.where(mask, regroup(dense[outputs, inputs], self.groups), part))
        if bias is not None and self.bias is not None:
            self.bias.copy_(bias)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ratio_in={self.ratio_in:g}, ratio_out={self.ratio_out:g}, lfu={self.lfu}"
        )
        defaults = {
            "padding": (0,) * self.dims,
            "dilation": (1,) * self.dims,
            "groups": 1,
            "padding_mode": "zeros",
            "local_to_global": True,
            "global_to_local": True,
            "spectral_dims": AXIS_NAMES[self.dims][-2:],
        }
        changed = {
            name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value
        }
        text += "".join(f", {name}={value!r}" for name, value in changed.items())
        return text if self.bias is not None else f"{text}, bias=False"
