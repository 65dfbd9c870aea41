"""The seam between the modules and the implementations: operators, the table that chooses, the fallback."""

from ffconv.dispatch.fft_backend import FFT_BACKENDS, FFTBackend, current_fft_backend, fft_backend, set_fft_backend
from ffconv.dispatch.layers import fused, irfftn, own_type, rfftn

__all__ = [
    "FFT_BACKENDS",
    "FFTBackend",
    "current_fft_backend",
    "fft_backend",
    "fused",
    "irfftn",
    "own_type",
    "rfftn",
    "set_fft_backend",
]
