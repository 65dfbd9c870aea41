"""Fast Fourier Convolution (Chi, Jiang, Mu, NeurIPS 2020) as a convolution anyone can use."""

from ffconv.ops import FFC2d, FourierUnit, LocalFourierUnit, SpectralTransform

__version__ = "0.1.0"

__all__ = ["FFC2d", "FourierUnit", "LocalFourierUnit", "SpectralTransform"]
