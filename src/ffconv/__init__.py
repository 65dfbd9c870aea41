"""Fast Fourier Convolution (Chi, Jiang, Mu, NeurIPS 2020) as a convolution anyone can use.

Importing the package enters the ``ffc_*`` networks in timm's registry.
"""

from ffconv.dispatch import fft_backend, set_fft_backend
from ffconv.interop.hub import About, from_pretrained, push_to_hub, save_pretrained
from ffconv.interop.weights import load_weights
from ffconv.models import FFCResNet, NonLocalBlock
from ffconv.nn import FFC1d, FFC2d, FFC3d, FourierUnit, LocalFourierUnit, SpectralTransform
from ffconv.surgery import Temporal, conversion_report, convert, fuse, inflate

__version__ = "0.1.0"

__all__ = [
    "About",
    "FFC1d",
    "FFC2d",
    "FFC3d",
    "FFCResNet",
    "FourierUnit",
    "LocalFourierUnit",
    "NonLocalBlock",
    "SpectralTransform",
    "Temporal",
    "conversion_report",
    "convert",
    "from_pretrained",
    "fuse",
    "inflate",
    "load_weights",
    "push_to_hub",
    "save_pretrained",
    "set_fft_backend",
    "fft_backend",
]
