"""Fast Fourier Convolution (Chi, Jiang, Mu, NeurIPS 2020) as a convolution anyone can use.

Importing the package enters the ``ffc_*`` networks in timm's registry.
"""

from ffconv.interop.weights import load_weights
from ffconv.models import FFCResNet
from ffconv.ops import FFC2d, FourierUnit, LocalFourierUnit, SpectralTransform
from ffconv.surgery import conversion_report, convert, fuse

__version__ = "0.1.0"

__all__ = [
    "FFC2d",
    "FFCResNet",
    "FourierUnit",
    "LocalFourierUnit",
    "SpectralTransform",
    "conversion_report",
    "convert",
    "fuse",
    "load_weights",
]
