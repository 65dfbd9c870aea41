"""The definition of every operator in plain torch.

Readable, differentiable by torch alone, exportable, right on every device: the reference of all tests and the
fallback of all backends.
"""

from ffconv.functional.ffc import add_global, block_weight, conv_paths, ffc
from ffconv.functional.fft import irfftn, rfftn
from ffconv.functional.fourier_unit import fourier_unit, split_quadrants, tile_quadrants
from ffconv.functional.geometry import ConvGeometry, aligned_avg_pool, conv_geometry, pad
from ffconv.functional.spectral_transform import spectral_transform

__all__ = [
    "ConvGeometry",
    "add_global",
    "aligned_avg_pool",
    "block_weight",
    "conv_geometry",
    "conv_paths",
    "ffc",
    "fourier_unit",
    "irfftn",
    "pad",
    "rfftn",
    "spectral_transform",
    "split_quadrants",
    "tile_quadrants",
]
