"""The Spectral Transform: the global -> global path of a Fast Fourier Convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.ops import fused, native
from ffconv.ops.axes import IMAGE, Axes
from ffconv.ops.fourier_unit import FourierUnit, LocalFourierUnit, check_groups
from ffconv.ops.geometry import Geometry, aligned_avg_pool
from ffconv.ops.joining import add_to_global
from ffconv.ops.onlookers import need_operations

# What branches on sizes is one node for torch.fx.
torch.fx.wrap("aligned_avg_pool")
torch.fx.wrap("add_to_global")


class SpectralTransform(nn.Module):
    """Spectral Transform: a bottleneck around a Fourier Unit and, with ``lfu``, a Local Fourier Unit.

        h = relu(bn1(conv1(pool(x))))        c = max(1, C_out // 2) channels
        y = conv2(h + fu(h) + lfu(h))        C_out channels

    Precision: under autocast on the CPU all of it runs in float32, where the compiled library does it;
    elsewhere the convolutions follow autocast.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.3, Fig. 2 and 3.
    Deviation: sides that the stride does not divide are pooled over what is left of the last window, so that
    the output has the size of a convolution's; the authors' pooling drops the rest.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        stride: average pooling before the transform, along each axis.
        groups: blocks of the three 1x1 convolutions; divides C_in, C_out and c.
        lfu: whether the Local Fourier Unit takes part.
        geometry: the convolution whose output grid the transform follows; by default that of a 1x1
            convolution of ``stride``.
        axes: what is transformed, by default an image.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)), or the geometry's output size.
    Raises:
        ValueError: if groups does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        groups: int = 1,
        lfu: bool = True,
        *,
        geometry: Geometry | None = None,
        axes: Axes = IMAGE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        hidden = max(1, out_channels // 2)
        check_groups(groups, in_channels=in_channels, out_channels=out_channels, hidden_channels=hidden)
        ones = (1,) * axes.dims
        self.axes = axes
        self.geometry = geometry or Geometry(ones, (stride,) * axes.dims, ((0, 0),) * axes.dims, ones)
        self.conv1 = axes.mixing(in_channels, hidden, groups, **factory)
        self.bn1 = axes.norm(hidden, **factory)
        self.fu = FourierUnit(hidden, hidden, groups, axes=axes, **factory)
        self.lfu = LocalFourierUnit(hidden, hidden, groups, axes=axes, **factory) if lfu else None
        self.conv2 = axes.mixing(hidden, out_channels, groups, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for the convolutions, 1 and 0 for the norms."""
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn1.reset_parameters()
        self.fu.reset_parameters()
        if self.lfu is not None:
            self.lfu.reset_parameters()

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The transform of x, or a map with it added to its last channels; that map is given away.

        If it is one of clips that leaves time alone, x and the map may also be their frames, as images.
        """
        if self._leaves_autocast(x):
            with torch.autocast("cpu", enabled=False):
                z = self.forward(x.float()).to(torch.get_autocast_dtype("cpu"))
            return z if onto is None else add_to_global(onto, z)
        x = aligned_avg_pool(x, self.geometry)
        if fused.suits(x, local=self.lfu is not None):
            layers = self.layers_as_built()
            y = None if layers is None else fused.spectral_transform(x, onto, layers, self.conv2.weight)
            if y is not None:
                return y
        if type(x) is Tensor and x.dim() < self.axes.dims + 2:  # frames; the parts are for clips
            z = self._by_parts(x.unsqueeze(2)).squeeze(2)
        else:
            z = self._by_parts(x)
        return z if onto is None else add_to_global(onto, z)

    def _leaves_autocast(self, x: Tensor) -> bool:
        """Whether autocast would have the compiled library's work done by operations, and less exactly."""
        if type(x) is not Tensor or not x.is_cpu or torch.compiler.is_compiling():
            return False
        if not torch.is_autocast_enabled("cpu") or need_operations() or not native.available():
            return False
        layers = self.layers_as_built()
        return layers is not None and layers[0][0].weight.dtype == torch.float32

    def _by_parts(self, x: Tensor) -> Tensor:
        """The transform of a pooled map."""
        h = F.relu(self.bn1(self.conv1(x)))
        mixed = h
        for unit in (self.fu, self.lfu):
            if unit is not None:
                mixed = mixed + unit(h)
        return self.conv2(mixed)

    @property
    def is_as_built(self) -> bool:
        """Whether this is no other transform, nobody looks at it or into it, and it is such as the compiled
        library computes."""
        return type(self) is SpectralTransform and not fused.has_hooks(self) and bool(self.layers_as_built())

    def layers_as_built(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]] | None:
        """conv1 and bn1, and those of the units, if nobody looks between the modules and none is another than
        was built; None also if it is none of planes."""
        # By the dictionaries: attributes of modules cost as much as a small transform.
        own = self._modules
        units = [own["fu"]] if self.lfu is None else [own["fu"], own["lfu"]]
        if [type(unit) for unit in units] != _UNITS[: len(units)] or not self.axes.are_of_planes:
            return None
        layers: list[Any] = [(own["conv1"], own["bn1"])]
        layers += [(unit._modules["conv"], unit._modules["bn"]) for unit in units if unit is not None]
        as_built = fused.is_mixing(own["conv2"]) and all(map(fused.is_layer, *zip(*layers, strict=True)))
        return layers if as_built and not any(map(fused.has_hooks, units)) else None


_UNITS = [FourierUnit, LocalFourierUnit]
