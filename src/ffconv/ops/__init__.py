"""The operator: Fast Fourier Convolution and its parts. Needs torch alone."""

from ffconv.ops.axes import Axes
from ffconv.ops.engines import set_transform_engine, transform_engine
from ffconv.ops.ffc import FFCNd, split_channels
from ffconv.ops.fourier_unit import FourierUnit, LocalFourierUnit
from ffconv.ops.layers import FFC1d, FFC2d, FFC3d
from ffconv.ops.spectral_transform import SpectralTransform

__all__ = [
    "Axes",
    "FFC1d",
    "FFC2d",
    "FFC3d",
    "FFCNd",
    "FourierUnit",
    "LocalFourierUnit",
    "SpectralTransform",
    "set_transform_engine",
    "split_channels",
    "transform_engine",
]
