"""Calls of the kernels with tensors.

No GPU has run them yet: they are checked by Triton's interpreter, and nothing is claimed of their speed.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
from torch import Tensor

from ffconv.backends.dft_matmul import dft_matrix
from ffconv.backends.triton import kernels

LARGEST_SIDE = 128
_STEP = 16  # the least that a matrix product takes
# Three products of rounded operands are about as exact as float32; one, the default, has 10 bits.
_PRECISION = {torch.float32: "tf32x3", torch.float16: "ieee", torch.bfloat16: "ieee"}
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # as Triton reads it, when the kernels are made
if _INTERPRETED:
    _PRECISION = dict.fromkeys(_PRECISION, "interpreted")


def unsupported(x: Tensor, height: int, width: int) -> str | None:
    """Return None if the kernels transform planes of a map or spectrum x, or the reason why they do not."""
    if not (x.is_cuda or _INTERPRETED):
        return f"a tensor is on {x.device.type}, not on a CUDA device"
    if x.dtype not in _PRECISION:
        return f"a tensor is {str(x.dtype).removeprefix('torch.')}"
    if max(height, width) > LARGEST_SIDE:
        return f"a side is above {LARGEST_SIDE}"
    return "the map is empty" if x.numel() == 0 else None


def rfft2(
    x: Tensor, *, inner: float = 1.0, compute: torch.dtype = torch.float32, dtype: torch.dtype | None = None
) -> Tensor:
    """Orthonormal half spectrum of each plane, interleaved.

    Args:
        x: map; copied unless the pixels of a row lie side by side.
        inner: factor of the columns between kx = 0 and W / 2.
        compute: type of the operands of matrix products; sums are float32.
        dtype: of the spectrum, by default ``compute``.
    Shape:
        x (N, C, H, W) -> (N, 2C, H, Wf), contiguous; H, W <= 128.
    """
    N, C, H, W = x.shape
    half = W // 2 + 1
    spectrum = x.new_empty(N, 2 * C, H, half, dtype=dtype or compute)
    columns = min(32, _padded(half))
    # Of a map with its channels side by side, programs of many channels would fetch each part of memory anew.
    x = x if x.stride(-1) == 1 else x.contiguous()
    launch: Any = kernels.forward[N * C, triton.cdiv(half, columns)]
    with torch.cuda.device_of(x):
        launch(
            x,
            spectrum,
            dft_matrix(H, x.device, compute),
            dft_matrix(W, x.device, compute),
            C,
            H,
            W,
            *x.stride()[:3],
            inner,
            COLUMNS=columns,
            **_tiles(H),
            **_options(compute),
        )
    return spectrum


def irfft2(
    spectrum: Tensor,
    width: int,
    *,
    inner: float = 1.0,
    norm: tuple[Tensor, Tensor] | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
    compute: torch.dtype = torch.float32,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Inverse of any half spectrum.

    Args:
        spectrum: interleaved.
        width: W of the map.
        inner: factor of the columns between kx = 0 and W / 2.
        norm: scale and shift (2C,), float32, of the spectrum before the ReLU.
        relu: transform the positive part of the spectrum.
        residual: added to the map.
        compute: type of the operands of matrix products; sums are float32.
        dtype: of the map, by default ``compute``.
    Shape:
        spectrum (N, 2C, H, Wf) -> (N, C, H, width), contiguous; H, width <= 128.
    """
    N, C, H, _ = spectrum.shape
    y = spectrum.new_empty(N, C // 2, H, width, dtype=dtype or compute)
    scale, shift = norm or (spectrum, spectrum)  # pointers that nothing reads
    tiles = _tiles(H)
    launch: Any = kernels.inverse[N * C // 2, triton.cdiv(H, tiles["BLOCK"])]
    with torch.cuda.device_of(spectrum):
        launch(
            spectrum.contiguous(),
            y,
            y if residual is None else residual.contiguous(),
            scale,
            shift,
            dft_matrix(H, spectrum.device, compute),
            dft_matrix(width, spectrum.device, compute),
            C // 2,
            H,
            width,
            inner,
            NORM=norm is not None,
            RELU=relu,
            RESIDUAL=residual is not None,
            WIDTH=_padded(width),
            **tiles,
            **_options(compute),
        )
    return y


@torch.library.custom_op("ffconv::fourier_unit", mutates_args=())
def fourier_unit(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """irfft2(relu(scale * (weight @ rfft2(x)) + shift)), without gradients.

    A spectrum is written once and read once on each side of the channel mixing, which itself reads all
    channels of a frequency where a transform reads all pixels of a channel.

    Shape:
        x (N, C_in, H, W), weight (2C_out, 2C_in), scale and shift (2C_out,) float32 -> (N, C_out, H, W) of
        x's type, contiguous. The mixing is computed in the weight's type.
    """
    N, _, H, W = x.shape
    spectrum = rfft2(x, dtype=weight.dtype)
    mixed = torch.matmul(weight, spectrum.flatten(2)).view(N, -1, H, W // 2 + 1)
    return irfft2(mixed, W, norm=(scale, shift), relu=True, dtype=x.dtype)


@fourier_unit.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] // 2, *x.shape[2:])


def _tiles(H: int) -> dict[str, int]:
    """Rows of a tile, those of a block of the result, and warps: more than one to 16 rows of a block would
    compute the same products."""
    rows = _padded(H)
    if rows <= 32:
        return {"ROWS": rows, "BLOCK": rows, "num_warps": rows // 16}
    return {"ROWS": rows, "BLOCK": _STEP, "num_warps": 4}  # larger blocks do not fit into registers


def _options(compute: torch.dtype) -> dict[str, Any]:
    return {
        "STEP": _STEP,
        "PRECISION": _PRECISION[compute],
        "num_stages": kernels.STAGES,
        "enable_fp_fusion": True,
    }


def _padded(n: int) -> int:
    return max(_STEP, triton.next_power_of_2(n))
