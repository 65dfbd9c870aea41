"""Fast Fourier Convolution as a drop-in for ``torch.nn.Conv1d``, ``Conv2d`` and ``Conv3d``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ffconv.dispatch import fused
from ffconv.functional import ConvGeometry, add_global, block_weight, conv_geometry, conv_paths
from ffconv.functional.ffc import regroup, ungroup
from ffconv.functional.geometry import per_axis
from ffconv.nn.fourier_unit import AXIS_NAMES, Axes, check_groups, spectral_axes
from ffconv.nn.spectral_transform import SpectralTransform

# Functions that read sizes are one node for torch.fx.
torch.fx.wrap("conv_paths")
torch.fx.wrap("add_global")


def split_channels(channels: int, ratio: float) -> tuple[int, int]:
    """Split channels into local and global ones: the last ``int(channels * ratio)`` are global.

    Raises:
        ValueError: If ratio is outside [0, 1].
    Example:
        >>> split_channels(64, 0.25)
        (48, 16)
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio={ratio} must lie in [0, 1]")
    global_channels = int(channels * ratio)
    return channels - global_channels, global_channels


class FFCNd(nn.Module):
    """Fast Fourier Convolution of maps with any number of axes; use :class:`FFC1d`, ``FFC2d`` or ``FFC3d``.

    Of C channels the last ``int(C * ratio)`` are global, the others local:

        y   = conv(x; W),   W = [[W_l2l, W_g2l], [W_l2g, 0]]
        y_g = y_g + SpectralTransform(x_g)

    Takes and returns one tensor and has the arguments and the geometry attributes of ``torch.nn``'s convolutions,
    but no ``weight``: initialisers that write to it would change nothing. :meth:`dense_weight` returns a copy of W.
    Each part is initialised by itself, kaiming normal with fan out; the bias, one for all channels, with zeros.
    ``stride``, ``padding``, ``dilation`` and ``padding_mode`` may be changed later and hold from the next call on.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.1, Fig. 1; defaults of the authors' code. For video Sec. 4.2: the
    transform is that of each frame, and the convolutions inside the Spectral Transform are 1 in space and have the
    layer's own kernel and dilation in time.
    Deviation: one tensor instead of a pair; any size, ratio and geometry.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        kernel_size: As for ``nn.Conv2d``; so are stride, padding ("same" and "valid" too), dilation and bias.
        stride: Of the convolution; the global path is average pooled to the same grid.
        padding: On both sides of each axis.
        dilation: Of the convolution.
        groups: Blocks of each of the three convolutions; the Spectral Transform has ``max(1, groups // 2)``.
        bias: Add a bias of C_out entries.
        padding_mode: As for ``nn.Conv2d``, or one an axis of the map.
        ratio: Share of global channels on both sides, in [0, 1].
        ratio_in: The same for the input alone.
        ratio_out: The same for the output alone.
        lfu: Give the Spectral Transform a Local Fourier Unit.
        local_to_global: Keep W_l2g.
        global_to_local: Keep W_g2l.
        spectral_dims: Axes of the map that are Fourier transformed, among "t", "h", "w" (for a sequence "l"); by
            default "h" and "w". Where time is transformed, the Spectral Transform has no kernel in it.
        device: Of the parameters.
        dtype: Of the parameters; Fourier Units keep at least float32.
    Shape:
        x (N, C_in, *size) or (C_in, *size) -> (N, C_out, *size_out) or (C_out, *size_out), sizes as for
        ``nn.Conv2d``.
    Raises:
        ValueError: If a ratio is outside [0, 1], groups does not divide a part, a switch leaves a part of the output
            without a source or a part of the input without use, an axis is unknown, or the geometry is invalid.
    """

    dims: ClassVar[int]
    is_ffc: ClassVar[bool] = True

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
        self.kernel_size = per_axis("kernel_size", kernel_size, self.dims)
        self.stride = per_axis("stride", stride, self.dims)
        self.padding = padding if isinstance(padding, str) else per_axis("padding", padding, self.dims)
        self.dilation = per_axis("dilation", dilation, self.dims)
        self.groups = groups
        self.padding_mode = padding_mode
        self.ratio_in = ratio if ratio_in is None else ratio_in
        self.ratio_out = ratio if ratio_out is None else ratio_out
        self.lfu = lfu
        self.local_to_global = local_to_global
        self.global_to_local = global_to_local
        self.in_local, self.in_global = split_channels(in_channels, self.ratio_in)
        self.out_local, self.out_global = split_channels(out_channels, self.ratio_out)
        self.axes = self._axes(spectral_axes(self.dims, spectral_dims), self.geometry)
        self.spectral_dims = tuple(AXIS_NAMES[self.dims][axis - 2] for axis in self.axes.spectral)
        self._check()

        factory: dict[str, Any] = {"device": device, "dtype": dtype}

        def block(exists: bool, outputs: int, inputs: int) -> nn.Parameter | None:
            if not (exists and outputs and inputs):
                return None
            return nn.Parameter(torch.empty(outputs, inputs // groups, *self.kernel_size, **factory))

        self.weight_l2l = block(True, self.out_local, self.in_local)
        self.weight_l2g = block(local_to_global, self.out_global, self.in_local)
        self.weight_g2l = block(global_to_local, self.out_local, self.in_global)
        self.bias = nn.Parameter(torch.empty(out_channels, **factory)) if bias else None
        self.spectral = None
        if self.in_global and self.out_global:
            channels = (self.in_global, self.out_global)
            self.spectral = SpectralTransform(
                *channels, 1, max(1, groups // 2), lfu, axes=self.axes, **factory
            )
        self.reset_parameters()

    @property
    def geometry(self) -> ConvGeometry:
        """Kernel, stride, padding and dilation as they are now."""
        return conv_geometry(
            self.dims, self.kernel_size, self.stride, self.padding, self.dilation, self.padding_mode
        )

    def _axes(self, spectral: tuple[int, ...], geometry: ConvGeometry) -> Axes:
        """Return the layer's own kernel in time unless time is transformed, 1 along all other axes."""
        reaches = [
            name == "t" and axis not in spectral for axis, name in enumerate(AXIS_NAMES[self.dims], start=2)
        ]
        kernel = tuple(k if own else 1 for k, own in zip(geometry.kernel_size, reaches, strict=True))
        dilation = tuple(d if own else 1 for d, own in zip(geometry.dilation, reaches, strict=True))
        return Axes(spectral, kernel, dilation, geometry.modes[0])

    def _check(self) -> None:
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

    def reset_parameters(self) -> None:
        """Initialise each part by kaiming normal (fan out), as in the paper; the bias by zeros."""
        for weight in (self.weight_l2l, self.weight_l2g, self.weight_g2l):
            if weight is not None:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.spectral is not None:
            self.spectral.reset_parameters()

    @fused("ffc")
    def forward(self, x: Tensor) -> Tensor:
        geometry, weights = self.geometry, (self.weight_l2l, self.weight_l2g, self.weight_g2l)
        y = conv_paths(x, weights, self.bias, geometry, self.out_channels, self.groups)
        if self.spectral is not None:
            y = add_global(y, self.spectral(x[:, self.in_local :], geometry))
        return y

    def dense_weight(self) -> Tensor:
        """Return W, the weight of one ordinary convolution without groups, with zeros where there is no path.

        Shape:
            (C_out, C_in, *kernel_size), differentiable in the parts.
        """
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        weights = (self.weight_l2l, self.weight_l2g, self.weight_g2l)
        if all(weight is None for weight in weights):
            return next(self.parameters()).new_zeros(shape)
        blocks = [None if weight is None else ungroup(weight, self.groups) for weight in weights]
        return block_weight(blocks, shape)

    @torch.no_grad()
    def load_dense_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Copy the weights of an ordinary convolution into the parts that correspond.

        Parts without a corresponding weight keep their values: the Spectral Transform, and, since the groups of a part
        are not those of the whole, some of the blocks of a grouped part.

        Args:
            weight: (C_out, C_in / g, *kernel_size), g the ordinary convolution's groups.
            bias: (C_out,), or None to keep the present one.
        Raises:
            ValueError: If the shapes do not fit.
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


class FFC1d(FFCNd):
    """Fast Fourier Convolution of sequences, a drop-in for ``nn.Conv1d``; see :class:`FFCNd`.

    Shape:
        x (N, C_in, L) -> (N, C_out, L_out), sizes as for ``nn.Conv1d``.
    Example:
        >>> FFC1d(64, 128, 3, stride=2, padding=1)(torch.zeros(1, 64, 15)).shape
        torch.Size([1, 128, 8])
    """

    dims = 1


class FFC2d(FFCNd):
    """Fast Fourier Convolution of images, a drop-in for ``nn.Conv2d``; see :class:`FFCNd`.

    Shape:
        x (N, C_in, H, W) -> (N, C_out, H_out, W_out), sizes as for ``nn.Conv2d``.
    Example:
        >>> FFC2d(64, 128, 3, stride=2, padding=1)(torch.zeros(1, 64, 15, 9)).shape
        torch.Size([1, 128, 8, 5])
    """

    dims = 2


class FFC3d(FFCNd):
    """Fast Fourier Convolution of videos, a drop-in for ``nn.Conv3d``; see :class:`FFCNd`.

    By default each frame is transformed by itself.

    Shape:
        x (N, C_in, T, H, W) -> (N, C_out, T_out, H_out, W_out), sizes as for ``nn.Conv3d``.
    Example:
        >>> FFC3d(16, 32, (3, 1, 1), (1, 2, 2), (1, 0, 0))(torch.zeros(1, 16, 4, 15, 9)).shape
        torch.Size([1, 32, 4, 8, 5])
    """

    dims = 3
