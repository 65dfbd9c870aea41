"""Fourier transforms as Triton kernels for CUDA that keep a plane on chip."""

from ffconv.ops.triton.transforms import fourier_unit, irfft2, rfft2, suits
from ffconv.ops.triton.unit import run_unit, takes_unit

__all__ = ["fourier_unit", "irfft2", "rfft2", "run_unit", "suits", "takes_unit"]
