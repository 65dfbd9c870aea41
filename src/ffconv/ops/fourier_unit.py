"""The Fourier Unit and its local form: convolutions whose kernel is as large as the map, or as half of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.ops import fused
from ffconv.ops.axes import IMAGE, Axes
from ffconv.ops.engines import current_engine
from ffconv.ops.fourier import LOW_PRECISION, irfftn, restore_scale, rfftn, triton_kernels
from ffconv.ops.parts import parts_to_channels, tile

# What branches on sizes, types or autocast is one node for torch.fx.
torch.fx.wrap("rfftn")
torch.fx.wrap("restore_scale")
torch.fx.wrap("irfftn")
torch.fx.wrap("parts_to_channels")
torch.fx.wrap("tile")


class FourierUnit(nn.Module):
    """Fourier Unit: a 1x1 convolution on the real half spectrum of the map.

        y = irfftn(relu(bn(conv(rfftn(x)))))        norm="ortho"

    The spectrum has 2C real channels in interleaved order, [re0, im0, re1, im1, ...].

    Precision: transforms and norm run in float32 (float64 for float64 input), whatever the input or autocast;
    the 1x1 convolution follows autocast. The unit keeps float32 parameters when the network is cast to half
    precision, for the constant coefficient of a map is sqrt(H W) times its mean and soon leaves float16's
    range.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.2, Fig. 2.
    Deviation: interleaved instead of stacked parts, as in the authors' code; the same function with permuted
    weights.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        groups: blocks of the 1x1 convolution; divides both. A group holds both parts of its channels.
        axes: what is transformed, by default an image; of a video, its frames or its time as well, with a
            convolution that may reach over neighbouring frames.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W), any H, W >= 1; or as many axes as ``axes`` has.
    Raises:
        ValueError: if groups does not divide the channels.
    Example:
        >>> FourierUnit(8, 8)(torch.zeros(1, 8, 7, 6)).shape
        torch.Size([1, 8, 7, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        *,
        axes: Axes = IMAGE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.axes = axes
        at_least_float32 = {"device": device, "dtype": torch.float32 if dtype in LOW_PRECISION else dtype}
        self.conv = axes.mixing(2 * in_channels, 2 * out_channels, groups, **at_least_float32)
        self.bn = axes.norm(2 * out_channels, **at_least_float32)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for the convolution, 1 and 0 for the norm."""
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        if current_engine() == "triton" and triton_kernels().takes_unit(self, x):
            return triton_kernels().run_unit(self, x)
        axes = self.axes.spectral
        if axes == IMAGE.spectral and self._is_as_built() and fused.suits(x, local=False):
            y = fused.spectral_transform(x, None, [(self.conv, self.bn)], None)
            if y is not None:
                return y
        width = x.shape[axes[-1]]
        spectrum = restore_scale(self.conv(rfftn(x, axes)), axes, width)  # (N, 2C_out, H, Wf)
        return irfftn(self._activated(spectrum, width), axes, width).to(x.dtype)

    def _is_as_built(self) -> bool:
        if type(self) not in (FourierUnit, LocalFourierUnit) or not fused.is_layer(self.conv, self.bn):
            return False
        return self.conv.in_channels == self.conv.out_channels

    def _activated(self, spectrum: Tensor, width: int) -> Tensor:
        """What the inverse reads, of the mixed spectrum of a map so wide."""
        return F.relu(self.bn(spectrum))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, groups={self.groups}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierUnit:
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in LOW_PRECISION else moved

        return super()._apply(keep_float32, recurse)


class LocalFourierUnit(FourierUnit):
    """Local Fourier Unit: one Fourier Unit over the four quadrants of a quarter of the channels.

    The first ceil(C_in / 4) channels are cut into 2x2 quadrants, which become channels in the order top left,
    bottom left, top right, bottom right; the unit's output is laid out 2x2 over the map. Where n axes other
    than two are transformed, each of them is halved: 2^n parts of the first ceil(C_in / 2^n) channels, the
    first axis changing fastest.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.3, Fig. 3.
    Deviation: an odd side, where the authors' code fails, is padded by its last row or column, and the result
    cropped.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        groups: blocks of the 1x1 convolution; divides 4 ceil(C_in / 4) and C_out.
        axes: as for :class:`FourierUnit`.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W), any H, W >= 1; or as many axes as ``axes`` has.
    Raises:
        ValueError: if groups does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        *,
        axes: Axes = IMAGE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        parts = 2 ** len(axes.spectral)
        self.cut_channels = -(-in_channels // parts)
        factory = {"device": device, "dtype": dtype}
        super().__init__(parts * self.cut_channels, out_channels, groups, axes=axes, **factory)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        axes = self.axes.spectral
        parts = parts_to_channels(x[:, : self.cut_channels], axes)
        return tile(super().forward(parts), axes, [x.shape[axis] for axis in axes])


def check_groups(groups: int, **channels: int) -> None:
    """Refuse a number of groups that does not divide each of the named numbers of channels."""
    for name, count in channels.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be positive")
        if groups < 1 or count % groups:
            raise ValueError(f"groups={groups} must divide {name}={count}")
