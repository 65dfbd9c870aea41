"""The axes of a feature map: which are Fourier transformed, and how channels are mixed along the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

AXIS_NAMES = {1: ("l",), 2: ("h", "w"), 3: ("t", "h", "w")}

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True)
class Axes:
    """What a Spectral Transform and its units do along each axis of a map.

    Args:
        spectral: the tensor's axes that are transformed, ascending; the first axis of the map is 2.
        kernel_size: kernel of the channel mixing, one entry an axis of the map; above 1 in time only.
        dilation: its dilation.
        padding_mode: how the mixing is padded to keep the size.
    Example:
        >>> Axes(spectral=(3, 4), kernel_size=(3, 1, 1), dilation=(1, 1, 1))  # of each frame of a video
        Axes(spectral=(3, 4), kernel_size=(3, 1, 1), dilation=(1, 1, 1), padding_mode='zeros')
    """

    spectral: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: str = "zeros"

    @property
    def dims(self) -> int:
        """Number of axes of the map."""
        return len(self.kernel_size)

    @property
    def are_of_planes(self) -> bool:
        """Whether images are transformed, or frames of clips, and channels mixed at each pixel by itself."""
        return self.spectral == (self.dims, self.dims + 1) and max(self.kernel_size) == 1

    def mixing(self, in_channels: int, out_channels: int, groups: int, **factory: Any) -> _ConvNd:
        """The convolution without bias that mixes channels and keeps the map's size."""
        local = any(size > 1 for size in self.kernel_size)
        return _CONVOLUTIONS[self.dims](
            in_channels,
            out_channels,
            self.kernel_size,
            padding="same" if local else 0,
            dilation=self.dilation,
            groups=groups,
            bias=False,
            padding_mode=self.padding_mode if local else "zeros",
            **factory,
        )

    def norm(self, channels: int, **factory: Any) -> _BatchNorm:
        """The batch norm of such a map."""
        return _NORMS[self.dims](channels, **factory)


IMAGE = Axes(spectral=(2, 3), kernel_size=(1, 1), dilation=(1, 1))


def spectral_axes(dims: int, names: Sequence[str] | None = None) -> tuple[int, ...]:
    """The axes of the tensor that the named axes of a map are; by default its last two, or its only one.

    Raises:
        ValueError: if a name is none of the map's axes, comes twice, or there is none.
    Example:
        >>> spectral_axes(3), spectral_axes(3, ("t", "h", "w")), spectral_axes(1)
        ((3, 4), (2, 3, 4), (2,))
    """
    known = AXIS_NAMES[dims]
    names = known[-2:] if names is None else tuple(names)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(f"spectral_dims={names} must name axes of the map, each once, among {known}")
    return tuple(axis for axis, name in enumerate(known, start=2) if name in names)
