"""Fourier transforms as Triton kernels for CUDA that keep a plane on chip."""

from ffconv.backends.triton.transforms import fourier_unit, irfft2, rfft2, unsupported

__all__ = ["fourier_unit", "irfft2", "rfft2", "unsupported"]
