"""A two-dimensional transform of a plane as products of real matrices, without a pass through memory between
its two steps.

A transform along an axis is a product with cosines and one with sines. ``waves`` are those of
:func:`ffconv.backends.dft_matmul.dft_matrix`, (n, 2, 2, n) in memory, of which the first half of each row is read: cos
and -sin of 2 pi t k / n, symmetric in t and k. Sums are in float32, operands in the type of the waves.

That a DFT of such sides suits the units for matrix products, and that a transform, the channel mixing and the
inverse gain by sharing kernels, is from FlashFFTConv (Fu et al., 2023) and TurboFNO (Wu et al., 2025).
"""

from __future__ import annotations

import triton
import triton.language as tl

STAGES = 2  # of loads under way; with three a plane of 128 px does not fit into every GPU's shared memory


@triton.jit
def _waves(waves, n, row, column, rows, columns):
    """cos and -sin of a block, zero where its rows or columns are not among those there are."""
    at = waves + row[:, None] * 4 * n + column[None, :]
    there = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(at, mask=there, other=0.0), tl.load(at + n, mask=there, other=0.0)


@triton.jit
def _product(a, b, sum, PRECISION: tl.constexpr):
    """sum + a b; "interpreted" is for the interpreter, which takes bfloat16 numbers for whole ones."""
    if PRECISION == "interpreted":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sum)
    return tl.dot(a, b, sum, input_precision=PRECISION)


@triton.jit
def _inner_columns(k, W, inner):
    """``inner`` for the columns that are not their own conjugates, 1 for kx = 0 and W / 2."""
    return tl.where((k == 0) | (2 * k == W), 1.0, inner)


@triton.jit
def forward(
    x,
    spectrum,
    waves_h,
    waves_w,
    C,
    H,
    W,
    stride_n,
    stride_c,
    stride_h,
    inner,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Some columns of the half spectrum of one plane.

    x (N, C, H, W), the pixels of a row side by side -> spectrum (N, 2C, H, Wf), contiguous; ROWS >= H.
    Grid: planes, blocks of COLUMNS columns; BLOCK rows are written at a time.
    """
    plane = tl.program_id(0)
    k = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    h = tl.arange(0, ROWS)
    half = W // 2 + 1
    at = x + (plane // C).to(tl.int64) * stride_n + (plane % C).to(tl.int64) * stride_c
    at += h[:, None] * stride_h
    real = tl.zeros((ROWS, COLUMNS), tl.float32)
    imaginary = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, W, STEP):
        w = start + tl.arange(0, STEP)
        cosine, sine = _waves(waves_w, W, w, k, W, half)
        there = (h < H)[:, None] & (w < W)[None, :]
        tile = tl.load(at + w[None, :], mask=there, other=0.0).to(cosine.dtype)
        real = _product(tile, cosine, real, PRECISION)
        imaginary = _product(tile, sine, imaginary, PRECISION)
    weight = _inner_columns(k, W, inner)[None, :]
    real = (real * weight).to(waves_h.dtype.element_ty)
    imaginary = (imaginary * weight).to(waves_h.dtype.element_ty)
    for start in range(0, H, BLOCK):
        row = start + tl.arange(0, BLOCK)
        cosine, sine = _waves(waves_h, H, row, h, H, H)
        out_real = _product(cosine, real, None, PRECISION)
        out_real -= _product(sine, imaginary, None, PRECISION)
        out_imaginary = _product(sine, real, None, PRECISION)
        out_imaginary += _product(cosine, imaginary, None, PRECISION)
        to = spectrum + plane.to(tl.int64) * 2 * H * half + row[:, None] * half + k[None, :]
        there = (row < H)[:, None] & (k < half)[None, :]
        tl.store(to, out_real.to(spectrum.dtype.element_ty), mask=there)
        tl.store(to + H * half, out_imaginary.to(spectrum.dtype.element_ty), mask=there)


@triton.jit
def _normed(tile, scale, shift, channel, NORM: tl.constexpr, RELU: tl.constexpr):
    if NORM:
        tile = tile.to(tl.float32) * tl.load(scale + channel) + tl.load(shift + channel)
    if RELU:
        tile = tl.maximum(tile, 0.0)
    return tile


@triton.jit
def inverse(
    spectrum,
    y,
    residual,
    scale,
    shift,
    waves_h,
    waves_w,
    C,
    H,
    W,
    inner,
    NORM: tl.constexpr,
    RELU: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Some rows of the map of any half spectrum.

    spectrum (N, 2C, H, Wf) -> y (N, C, H, W), all contiguous. NORM: the spectrum's channels times scale plus
    shift (2C,); RELU: their positive part; RESIDUAL: the map plus this one. ROWS >= H, WIDTH >= W.
    Grid: planes, blocks of BLOCK rows.
    """
    plane = tl.program_id(0)
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    h = tl.arange(0, ROWS)
    w = tl.arange(0, WIDTH)
    half = W // 2 + 1
    channel = 2 * (plane % C)
    at = spectrum + plane.to(tl.int64) * 2 * H * half + h[:, None] * half
    cosine_h, sine_h = _waves(waves_h, H, row, h, H, H)
    result = tl.zeros((BLOCK, WIDTH), tl.float32)
    for start in range(0, half, STEP):
        k = start + tl.arange(0, STEP)
        there = (h < H)[:, None] & (k < half)[None, :]
        # Each inner column stands for its conjugate as well, which is left out.
        weight = tl.where(there, _inner_columns(k, W, 2.0 * inner)[None, :], 0.0)
        real = tl.load(at + k[None, :], mask=there, other=0.0)
        imaginary = tl.load(at + H * half + k[None, :], mask=there, other=0.0)
        real = (_normed(real, scale, shift, channel, NORM, RELU) * weight).to(cosine_h.dtype)
        imaginary = (_normed(imaginary, scale, shift, channel + 1, NORM, RELU) * weight).to(cosine_h.dtype)
        column_real = _product(cosine_h, real, None, PRECISION)
        column_real += _product(sine_h, imaginary, None, PRECISION)
        column_imaginary = _product(cosine_h, imaginary, None, PRECISION)
        column_imaginary -= _product(sine_h, real, None, PRECISION)
        cosine, sine = _waves(waves_w, W, k, w, half, W)
        own = (k == 0) | (2 * k == W)
        sine = tl.where(own[:, None], 0.0, sine).to(cosine.dtype)
        result = _product(column_real.to(cosine.dtype), cosine, result, PRECISION)
        result = _product(column_imaginary.to(cosine.dtype), sine, result, PRECISION)
    to = plane.to(tl.int64) * H * W + row[:, None] * W + w[None, :]
    there = (row < H)[:, None] & (w < W)[None, :]
    if RESIDUAL:
        result += tl.load(residual + to, mask=there, other=0.0).to(tl.float32)
    tl.store(y + to, result.to(y.dtype.element_ty), mask=there)
