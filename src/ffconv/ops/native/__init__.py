"""Fourier transforms and Spectral Transforms on the CPU, compiled on first use by the machine's compiler."""

from ffconv.ops.native.convolution import Convolution, pays_in_tiles
from ffconv.ops.native.inference import spectral_transform
from ffconv.ops.native.paths import Paths
from ffconv.ops.native.training import Gradients, Layer, backward, forward
from ffconv.ops.native.transforms import (
    are_rows_adjacent,
    available,
    irfft2,
    rfft2,
    rows_adjacent,
    suits,
    takes,
)

__all__ = [
    "Convolution",
    "Gradients",
    "Layer",
    "Paths",
    "are_rows_adjacent",
    "available",
    "backward",
    "forward",
    "irfft2",
    "pays_in_tiles",
    "rfft2",
    "rows_adjacent",
    "spectral_transform",
    "suits",
    "takes",
]
