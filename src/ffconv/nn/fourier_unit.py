"""The Fourier Unit and its local form: convolutions whose kernel is as large as the map, or as half of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ffconv.dispatch import fused, irfftn, own_type, rfftn
from ffconv.functional import split_quadrants, tile_quadrants
from ffconv.functional.fourier_unit import LOW_PRECISION, scale_spectrum, unscale_spectrum

AXIS_NAMES = {1: ("l",), 2: ("h", "w"), 3: ("t", "h", "w")}

_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

# Functions that read sizes, dtypes or autocast are one node for torch.fx.
for _name in ("rfftn", "irfftn", "scale_spectrum", "unscale_spectrum", "split_quadrants", "tile_quadrants"):
    torch.fx.wrap(_name)


@dataclass(frozen=True)
class Axes:
    """The axes of a feature map: which are Fourier transformed, and how channels are mixed along the others.

    Args:
        spectral: The tensor's axes that are transformed, ascending; the first axis of the map is 2.
        kernel_size: Kernel of the channel mixing, one entry an axis of the map; above 1 in time only.
        dilation: Its dilation.
        padding_mode: Its padding mode; it keeps the size.
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

    def channel_mixing_conv(self, in_channels: int, out_channels: int, groups: int, **factory: Any) -> _ConvNd:
        """Return the convolution without bias that mixes channels and keeps the map's size."""
        reaches = any(size > 1 for size in self.kernel_size)
        return _CONVS[self.dims](
            in_channels,
            out_channels,
            self.kernel_size,
            padding="same" if reaches else 0,
            dilation=self.dilation,
            groups=groups,
            bias=False,
            padding_mode=self.padding_mode if reaches else "zeros",
            **factory,
        )

    def norm(self, channels: int, **factory: Any) -> _BatchNorm:
        """Return the batch norm of such a map."""
        return _NORMS[self.dims](channels, **factory)


IMAGE = Axes(spectral=(2, 3), kernel_size=(1, 1), dilation=(1, 1))


def spectral_axes(dims: int, names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Return the tensor's axes that carry the given names; by default the last two of a map, or its only one.

    Raises:
        ValueError: If a name is unknown or repeated, or there is none.
    Example:
        >>> spectral_axes(3), spectral_axes(3, ("t", "h", "w")), spectral_axes(1)
        ((3, 4), (2, 3, 4), (2,))
    """
    known = AXIS_NAMES[dims]
    names = known[-2:] if names is None else tuple(names)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(f"spectral_dims={names} must name axes of the map, each once, among {known}")
    return tuple(axis for axis, name in enumerate(known, start=2) if name in names)


@own_type
class FourierUnit(nn.Module):
    """Apply a 1x1 convolution to the real half spectrum of a map.

        y = irfftn(relu(bn(conv(rfftn(x)))))        norm="ortho"

    The spectrum has 2C real channels in interleaved order, [re0, im0, re1, im1, ...].

    Precision: transforms and norm run in float32 (float64 for float64 input), whatever the input or autocast; the
    1x1 convolution follows autocast. The parameters stay float32 when the network is cast to half precision, since
    the constant coefficient of a map is sqrt(H W) times its mean and soon leaves float16's range.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.2, Fig. 2.
    Deviation: interleaved instead of stacked parts, as in the authors' code; the same function with permuted
    weights.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        groups: Blocks of the 1x1 convolution; divides both. A group holds both parts of its channels.
        axes: Transformed axes, by default those of an image; of a video, its frames or its time as well, with a
            convolution that may reach over neighbouring frames.
        device: Of the parameters.
        dtype: Of the parameters, at least float32.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W), any H, W >= 1; or as many axes as ``axes`` has.
    Raises:
        ValueError: If groups does not divide the channels.
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
        dtype = dtype or torch.get_default_dtype()
        factory: dict[str, Any] = {"device": device, "dtype": torch.float32 if dtype in LOW_PRECISION else dtype}
        self.conv = axes.channel_mixing_conv(2 * in_channels, 2 * out_channels, groups, **factory)
        self.bn = axes.norm(2 * out_channels, **factory)
        self.register_load_state_dict_post_hook(_keep_float32)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the convolution by kaiming normal (fan out), the norm by 1 and 0."""
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn.reset_parameters()

    @fused("fourier_unit")
    def forward(self, x: Tensor) -> Tensor:
        axes, width = self.axes.spectral, x.shape[self.axes.spectral[-1]]
        spectrum = self.conv(scale_spectrum(rfftn(x, axes), self.conv.weight))
        spectrum = relu(self.bn(unscale_spectrum(spectrum, self.conv.weight)))
        return irfftn(spectrum, axes, width).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, groups={self.groups}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierUnit:
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in LOW_PRECISION else moved

        return super()._apply(keep_float32, recurse)


def _keep_float32(unit: nn.Module, incompatible_keys: Any) -> None:
    """Cast parameters that ``load_state_dict(assign=True)`` put in half precision."""
    for module in unit.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.dtype in LOW_PRECISION:
                    cast = tensor.detach().float()
                    tensors[name] = nn.Parameter(cast, tensor.requires_grad) if tensors is module._parameters else cast


@own_type
class LocalFourierUnit(FourierUnit):
    """Apply one Fourier Unit to the four quadrants of a quarter of the channels.

    The first ceil(C_in / 4) channels are split into 2x2 quadrants, stacked as channels in the order top left, bottom
    left, top right, bottom right; the unit's output is tiled 2x2. Where n axes other than two are transformed, each
    of them is halved: 2^n parts of the first ceil(C_in / 2^n) channels, the first axis changing fastest.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.3, Fig. 3.
    Deviation: an odd side, where the authors' code fails, is padded by its last row or column, and the result
    cropped.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        groups: Blocks of the 1x1 convolution; divides 4 ceil(C_in / 4) and C_out.
        axes: As for :class:`FourierUnit`; so are device and dtype.
        device: Of the parameters.
        dtype: Of the parameters, at least float32.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W), any H, W >= 1; or as many axes as ``axes`` has.
    Raises:
        ValueError: If groups does not divide the channels.
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
        super().__init__(parts * self.cut_channels, out_channels, groups, axes=axes, device=device, dtype=dtype)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        axes = self.axes.spectral
        y = super().forward(split_quadrants(x[:, : self.cut_channels], axes))
        return tile_quadrants(y, axes, [x.shape[axis] for axis in axes])


def check_groups(groups: int, **channels: int) -> None:
    """Raise a ValueError if groups does not divide each of the named numbers of channels."""
    for name, count in channels.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be positive")
        if groups < 1 or count % groups:
            raise ValueError(f"groups={groups} must divide {name}={count}")
