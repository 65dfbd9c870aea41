"""Fourier transforms on the CPU, compiled on first use by the machine's C++ compiler."""

from ffconv.ops.native.transforms import available, channels_adjacent, irfft2, rfft2, suits

__all__ = ["available", "channels_adjacent", "irfft2", "rfft2", "suits"]
