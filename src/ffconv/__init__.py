"""Fast Fourier Convolution (Chi, Jiang, Mu, NeurIPS 2020) as a convolution anyone can use.

Importing the package enters the ``ffc_*`` networks in timm's registry.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ffconv.dispatch import explain, fft_backend, set_fft_backend
from ffconv.errors import InputError
from ffconv.interop.hub import About, from_pretrained, push_to_hub, save_pretrained
from ffconv.interop.weights import load_weights
from ffconv.models import FFCResNet, NonLocalBlock
from ffconv.nn import FFC1d, FFC2d, FFC3d, FourierUnit, LocalFourierUnit, SpectralTransform
from ffconv.surgery import Temporal, conversion_report, convert, fuse, inflate, recalibrate

if TYPE_CHECKING:
    from ffconv.tasks.inpaint import inpaint
    from ffconv.tasks.predictor import Predictor

__version__ = "0.1.0"

__all__ = [
    "About",
    "FFC1d",
    "FFC2d",
    "FFC3d",
    "FFCResNet",
    "FourierUnit",
    "InputError",
    "LocalFourierUnit",
    "NonLocalBlock",
    "Predictor",
    "SpectralTransform",
    "Temporal",
    "conversion_report",
    "convert",
    "explain",
    "fft_backend",
    "from_pretrained",
    "fuse",
    "inflate",
    "inpaint",
    "load_weights",
    "push_to_hub",
    "recalibrate",
    "save_pretrained",
    "set_fft_backend",
]


#: Imported when they are first used: their modules take as long to import as all the others.
_LAZY = {"Predictor": "ffconv.tasks.predictor", "inpaint": "ffconv.tasks.inpaint"}


def __getattr__(name: str) -> Any:
    """Import what `_LAZY` names when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'ffconv' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
