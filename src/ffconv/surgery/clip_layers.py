"""Layers of clips (N, C, T, H, W) that torch and timm have for images, with the same names of their parts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d, SEModule
from timm.layers.adaptive_avgmax_pool import adaptive_pool_feat_mult
from torch import Tensor, nn

from ffconv.functional import conv_geometry, pad

_OVER_CLIP = (2, 3, 4)


class PaddedConv3d(nn.Conv3d):
    """``nn.Conv3d`` with a padding mode of its own along each axis.

    Args:
        modes: padding modes along time, height and width.
        arguments: those of ``nn.Conv3d``, padding in numbers, without ``padding_mode``.
    """

    def __init__(self, *arguments: Any, modes: tuple[str, str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modes = modes

    def forward(self, input: Tensor) -> Tensor:
        geometry = conv_geometry(3, self.kernel_size, self.stride, self.padding, self.dilation, self.modes)
        options = (self.stride, geometry.conv_padding, self.dilation, self.groups)
        return F.conv3d(pad(input, geometry), self.weight, self.bias, *options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, modes={self.modes}"


class BatchNormAct3d(nn.BatchNorm3d):
    """timm's batch norm with dropout and activation, of clips.

    Args:
        norm: the image layer, a ``timm.layers.BatchNormAct2d``; its dropout and activation are used.
        factory: device and dtype.
    """

    def __init__(self, norm: Any, **factory: Any) -> None:
        arguments = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        super().__init__(*arguments, **factory)
        self.drop = norm.drop
        self.act = norm.act

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


class GlobalPool3d(nn.Module):
    """timm's global pooling, over time as well.

    Args:
        pool_type: "avg", "max", "avgmax", "catavgmax", or "" for none; "fast" before them is timm's and the
            same here.
        flatten: whether (N, C) is wanted instead of (N, C, 1, 1, 1).
    Shape:
        x (N, C, T, H, W) -> (N, C), 2C channels for "catavgmax"; x itself for "".
    """

    def __init__(self, pool_type: str = "avg", flatten: bool = False) -> None:
        super().__init__()
        self.pool_type = pool_type
        self.flatten = flatten
        self._kind = "avg" if pool_type == "fast" else pool_type.removeprefix("fast")

    @classmethod
    def of(cls, pool: SelectAdaptivePool2d) -> GlobalPool3d:
        """The pooling of clips that corresponds to one of images (N, C, H, W) to a single value."""
        flatten = isinstance(pool.flatten, nn.Flatten) or bool(getattr(pool.pool, "flatten", False))
        return cls(pool.pool_type, flatten)

    def is_identity(self) -> bool:
        """Return True if nothing is pooled, as timm asks."""
        return not self.pool_type

    def feat_mult(self) -> int:
        """Features out for each channel in, as timm asks."""
        return adaptive_pool_feat_mult(self.pool_type)

    def forward(self, x: Tensor) -> Tensor:
        if not self._kind:
            return x
        keep = not self.flatten
        mean = None if self._kind == "max" else x.mean(_OVER_CLIP, keepdim=keep)
        if mean is None or self._kind == "avg":
            return x.amax(_OVER_CLIP, keepdim=keep) if mean is None else mean
        largest = x.amax(_OVER_CLIP, keepdim=keep)
        return (mean + largest) / 2 if self._kind == "avgmax" else torch.cat([mean, largest], dim=1)

    def extra_repr(self) -> str:
        return f"pool_type={self.pool_type!r}, flatten={self.flatten}"


class SqueezeExcite3d(nn.Module):
    """timm's squeeze-and-excitation, which squeezes a whole clip.

    Args:
        se: the image module, whose layers are used.
    Shape:
        x (N, C, T, H, W) -> the same.
    """

    def __init__(self, se: SEModule) -> None:
        super().__init__()
        self.add_maxpool = se.add_maxpool
        parts: Any = se
        self.fc1, self.bn, self.act = parts.fc1, parts.bn, parts.act
        self.fc2, self.gate = parts.fc2, parts.gate

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean(_OVER_CLIP, keepdim=True)
        if self.add_maxpool:
            squeezed = (squeezed + x.amax(_OVER_CLIP, keepdim=True)) / 2
        return x * self.gate(self.fc2(self.act(self.bn(self.fc1(squeezed)))))
