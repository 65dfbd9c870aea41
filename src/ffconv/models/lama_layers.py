"""What LaMa's networks have beyond FFC2d: gates between the paths, and variants of the Fourier Unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import relu

from ffconv.errors import require
from ffconv.dispatch import irfftn, rfftn
from ffconv.functional import pad
from ffconv.functional.ffc import conv
from ffconv.nn import FFC2d, FourierUnit
from ffconv.nn.fourier_unit import scale_spectrum, unscale_spectrum

FftNorm = Literal["ortho", "backward", "forward"]

# Functions that read sizes, dtypes or autocast are one node for torch.fx.
for _name in (
    *("rfftn", "irfftn", "scale_spectrum", "unscale_spectrum", "conv", "pad"),
    *("_spectrum_factor", "_coordinates", "_rescale", "_resize_like"),
):
    torch.fx.wrap(_name)


@dataclass(frozen=True)
class FourierOptions:
    """How LaMa's Fourier Unit differs from the paper's; the defaults do not.

    Args:
        fft_norm: which of the two transforms is divided by the number of pixels: each by its root ("ortho"),
            the inverse one ("backward") or the first ("forward"). It moves the spectrum's scale before the
            norm.
        spectral_pos_encoding: give the unit's convolution the frequencies' coordinates as two more channels.
        spatial_scale_factor: resize the map by this before the unit, and back after it; None does not.
        spatial_scale_mode: how it is resized.

    Raises:
        InputError: for a value outside its range.
    """

    fft_norm: FftNorm = "ortho"
    spectral_pos_encoding: bool = False
    spatial_scale_factor: float | None = None
    spatial_scale_mode: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        norms, modes = ("ortho", "backward", "forward"), ("bilinear", "bicubic")
        require(self.fft_norm in norms, f"fft_norm={self.fft_norm!r} must be one of {', '.join(norms)}")
        require(
            self.spatial_scale_mode in modes,
            f"spatial_scale_mode={self.spatial_scale_mode!r} must be one of {', '.join(modes)}",
        )
        factor = self.spatial_scale_factor
        require(factor is None or factor > 0, f"spatial_scale_factor={factor} must be above 0, or null")


class LamaFourierUnit(FourierUnit):
    """A Fourier Unit with LaMa's options.

        y = irfft2(relu(bn(conv([row, column, rfft2(x)]))))

    Reference: Suvorov et al., Resolution-robust Large Mask Inpainting with Fourier Convolutions, WACV 2022,
    and the authors' code.
    Deviation: the coordinates' part of the convolution is added to the spectrum by the norm, as one map for
    the whole batch (:class:`PositionedNorm`), where the authors' code appends two channels to each spectrum.

    Args:
        channels: C, in and out.
        options: which of them.
    Shape:
        x (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, options: FourierOptions) -> None:
        super().__init__(channels, channels)
        self.options = options
        if options.spectral_pos_encoding:
            self.add_module("bn", PositionedNorm(2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        factor, mode = self.options.spatial_scale_factor, self.options.spatial_scale_mode
        if factor is None:
            return self._transform(x)
        return _resize_like(self._transform(_rescale(x, factor, mode)), x, mode)

    def _transform(self, x: Tensor) -> Tensor:
        axes, width = self.axes.spectral, x.shape[-1]
        spectrum = self.conv(scale_spectrum(rfftn(x, axes), self.conv.weight))
        spectrum = unscale_spectrum(spectrum, self.conv.weight)
        # The transforms are linear: the norm's factor can follow the mixing, which may be in half precision.
        factor = _spectrum_factor(spectrum, width, self.options.fft_norm)
        return irfftn(relu(self.bn(spectrum * factor)) / factor, axes, width).to(x.dtype)


class PositionedNorm(nn.Module):
    """Batch norm of a half spectrum plus a linear function of the frequencies' coordinates.

        y = norm(spectrum + position @ [row, column])

    Rows go from 0 to 1 over H, columns from 0 to 1 over Wf.

    Args:
        channels: those of the spectrum.
    Shape:
        spectrum (N, C, H, Wf) -> (N, C, H, Wf).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(channels, 2))
        self.norm = nn.BatchNorm2d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for the coordinates, as for the spectrum's convolution; 1 and 0 for the
        norm."""
        nn.init.kaiming_normal_(self.position, mode="fan_out", nonlinearity="relu")
        self.norm.reset_parameters()

    def forward(self, spectrum: Tensor) -> Tensor:
        row, column = _coordinates(spectrum)
        weights = self.position.to(spectrum.dtype)[..., None, None]  # (C, 2, 1, 1)
        return self.norm(spectrum + (weights[:, 0] * row + weights[:, 1] * column))


class GatedFFC2d(FFC2d):
    """An FFC whose paths between local and global channels each have a gate, one number a pixel.

        [a, b] = sigmoid(W_gate * x)
        y_l = W_l2l * x_l + a (W_g2l * x_g)
        y_g = b (W_l2g * x_l) + SpectralTransform(x_g)

    Reference: as for :class:`LamaFourierUnit`.

    Args:
        arguments: those of :class:`ffconv.FFC2d`; all four paths must exist, without stride and groups. The
            bias comes behind the gates.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H, W).
    Raises:
        ValueError: if a path is missing, or there is a stride or groups.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        paths = (self.weight_l2l, self.weight_l2g, self.weight_g2l, self.spectral)
        if None in paths or self.groups > 1 or max(self.stride) > 1:
            raise ValueError("a gated FFC needs all four paths, stride 1 and groups 1")
        self.gate = nn.Conv2d(self.in_channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.gate(x))
        geometry = self.geometry
        options = (geometry.stride, geometry.conv_padding, geometry.dilation)
        padded = pad(x, geometry)
        # One convolution for both paths from the local channels.
        from_local = torch.cat([self.weight_l2l, self.weight_l2g])  # pyright: ignore
        y = conv(padded[:, : self.in_local], from_local, None, *options)
        from_global = conv(padded[:, self.in_local :], self.weight_g2l, None, *options)  # pyright: ignore
        z = self.spectral(x[:, self.in_local :], geometry)  # pyright: ignore[reportOptionalCall]
        local = y[:, : self.out_local] + from_global * gates[:, :1]
        y = torch.cat([local, y[:, self.out_local :] * gates[:, 1:] + z], dim=1)
        return y if self.bias is None else y + self.bias[:, None, None]


def _spectrum_factor(spectrum: Tensor, width: int, norm: FftNorm) -> float:
    """Return the factor from the orthonormal spectrum of a map of this width to that of another norm."""
    if norm == "ortho":
        return 1.0
    pixels = spectrum.shape[-2] * width
    # torch.export takes the argument of math.sqrt for fixed.
    return pixels**0.5 if norm == "backward" else pixels**-0.5


def _coordinates(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """0 to 1 along both axes of a spectrum: (H, 1), (1, Wf)."""
    options = {"device": spectrum.device, "dtype": spectrum.dtype}
    # A compiler takes the length of torch.linspace for fixed.
    row, column = [torch.arange(n, **options) / max(n - 1, 1) for n in spectrum.shape[-2:]]
    return row[:, None], column[None]


def _rescale(x: Tensor, factor: float, mode: str) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)


def _resize_like(x: Tensor, like: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=False)
