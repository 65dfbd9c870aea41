"""The modules: Fast Fourier Convolution and its parts."""

from ffconv.nn.ffc import FFC1d, FFC2d, FFC3d, FFCNd, split_channels
from ffconv.nn.fourier_unit import Axes, FourierUnit, LocalFourierUnit, spectral_axes
from ffconv.nn.spectral_transform import SpectralTransform

__all__ = [
    "Axes",
    "FFC1d",
    "FFC2d",
    "FFC3d",
    "FFCNd",
    "FourierUnit",
    "LocalFourierUnit",
    "SpectralTransform",
    "spectral_axes",
    "split_channels",
]
