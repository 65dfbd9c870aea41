"""The operator: Fast Fourier Convolution and its parts. Needs torch alone."""

from ffconv.ops.ffc import FFC2d, split_channels
from ffconv.ops.fourier_unit import FourierUnit, LocalFourierUnit
from ffconv.ops.spectral_transform import SpectralTransform

__all__ = ["FFC2d", "FourierUnit", "LocalFourierUnit", "SpectralTransform", "split_channels"]
