"""The transforms of :mod:`ffconv.functional.fft` as products of real matrices.

They need no complex type and no operator for Fourier transforms, so that they run wherever matrix products
do, and everything that differentiates, compiles or exports matrix products takes them as they are.

Along an axis of n entries a complex transform is one real matrix, (n, 2) numbers times (n, 2, 2, n) entries:

    W[t, p, q, k] = cos(2 pi t k / n + (q - p) pi / 2) / sqrt(n)        p, q: 0 real, 1 imaginary part

Its rows p = 0 transform real numbers, and since it is orthogonal, its transpose is the inverse. The real and
imaginary parts stay beside the axis that is transformed next, so that for images nothing is copied.

A long side with factors, n = a b, is transformed in two steps of a and b entries (Cooley and Tukey, 1965);
the twiddle factors are part of the second step's matrices, one for each of the first step's frequencies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

# What each of two steps costs besides its products, in multiply-adds an entry, for it moves the map in
# memory: two begin to pay at about 450 entries of pairs and 1700 real ones, roughly, on a busy CPU.
_STEP = 768


class _Kind(NamedTuple):
    """What, besides its sizes, a matrix depends on."""

    device: torch.device
    dtype: torch.dtype


def rfftn(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Orthonormal half spectrum, interleaved.

    Shape:
        x (N, C, *size) -> (N, 2C, *size), with n // 2 + 1 in place of n along the last of the axes.
    """
    *others, last = axes
    width = x.shape[last]
    with _full_precision(x):
        y = _real_forward(x, last, width, _Kind(x.device, x.dtype))
        part = last  # the axis of the parts; that which was transformed comes after it
        for axis in reversed(others):
            pairs = y.movedim(part, axis + 1)
            y, part = _forward(pairs, axis, x.shape[axis], _Kind(x.device, x.dtype)), axis
    return y.movedim(part, 2).flatten(1, 2)


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Inverse of :func:`rfftn` for any interleaved half spectrum.

    Shape:
        spectrum (N, 2C, H, Wf) -> (N, C, H, width).
    """
    *others, last = axes
    kind = _Kind(spectrum.device, spectrum.dtype)
    y, part = spectrum.unflatten(1, (spectrum.shape[1] // 2, 2)), 2
    with _full_precision(spectrum):
        for axis in others:
            y, part = _inverse(y.movedim(part, axis), axis, spectrum.shape[axis], kind), axis + 1
        return _real_inverse(y.movedim(part, last), last, width, kind)


def dft_matrix(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """W, (n, 2, 2, n): entry, part, part, frequency. It is not to be written to."""
    return _kept(_first_step, n, kind=_Kind(device, dtype))


def _real_forward(x: Tensor, axis: int, n: int, kind: _Kind) -> Tensor:
    """(..., n, ...) -> (..., 2, n // 2 + 1, ...)"""
    if _factors(n, real=True) is None:
        return _contract(x, axis, _kept(_real_matrix, n, kind=kind)).unflatten(axis, (2, n // 2 + 1))
    y = _forward_steps(x.movedim(axis, -1).unsqueeze(-2), n, n // 2 + 1, kind)
    return y.movedim((-2, -1), (axis, axis + 1))


def _real_inverse(y: Tensor, axis: int, n: int, kind: _Kind) -> Tensor:
    """(..., 2, n // 2 + 1, ...) -> (..., n, ...), the parts at the axis."""
    if _factors(n, real=True) is None:
        return _contract(_joined(y, axis), axis, _kept(_real_inverse_matrix, n, kind=kind))
    weighted = y.movedim((axis, axis + 1), (-2, -1)) * _kept(_column_weights, n, kind=kind)
    return _inverse_steps(weighted, n, kind, real=True).squeeze(-2).movedim(-1, axis)


def _forward(y: Tensor, axis: int, n: int, kind: _Kind) -> Tensor:
    """(..., n, 2, ...) -> (..., 2, n, ...)"""
    if _factors(n, real=False) is None:
        matrix = _kept(_matrix, n, kind=kind)
        return _contract(y.flatten(axis, axis + 1), axis, matrix).unflatten(axis, (2, n))
    steps = _forward_steps(y.movedim((axis + 1, axis), (-2, -1)), n, n, kind)
    return steps.movedim((-2, -1), (axis, axis + 1))


def _inverse(y: Tensor, axis: int, n: int, kind: _Kind) -> Tensor:
    """(..., 2, n, ...) -> (..., n, 2, ...), the parts at the axis."""
    if _factors(n, real=False) is None:
        matrix = _kept(_inverse_matrix, n, kind=kind)
        return _contract(_joined(y, axis), axis, matrix).unflatten(axis, (n, 2))
    steps = _inverse_steps(y.movedim((axis, axis + 1), (-2, -1)), n, kind, real=False)
    return steps.movedim((-2, -1), (axis + 1, axis))


def _joined(y: Tensor, axis: int) -> Tensor:
    """(..., 2, n, ...) -> (..., 2 n, ...)"""
    if type(y.shape[axis + 1]) is int:
        return y.flatten(axis, axis + 1)
    return torch.cat(y.unbind(axis), axis)  # flatten would have an exporter refuse n = 1


def _contract(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """The matrix (m, n) applied to an axis of n entries."""
    if axis == x.dim() - 1:
        return F.linear(x, matrix)
    return (matrix @ x.movedim(axis, -2)).movedim(-2, axis)


def _forward_steps(y: Tensor, n: int, columns: int, kind: _Kind) -> Tensor:
    """(..., p, n) -> (..., 2, columns), p being 1 for real numbers.

    Entries t = u b + s, frequencies k = l + a m: first from u to l, then from s to m.
    """
    parts = y.shape[-2]
    a, b = _factors(n, real=parts == 1) or (1, n)
    first, second = _steps(a, b, -(-columns // a), kind)
    y = torch.einsum("...pus,upql->...qls", y.unflatten(-1, (a, b)), first[:, :parts])
    y = torch.einsum("...pls,lspqm->...qml", y, second)
    return y.flatten(-2)[..., :columns]


def _inverse_steps(y: Tensor, n: int, kind: _Kind, *, real: bool) -> Tensor:
    """The transposed steps, (..., 2, columns) -> (..., p, n)."""
    columns = y.shape[-1]
    a, b = _factors(n, real=real) or (1, n)
    rows = -(-columns // a)
    first, second = _steps(a, b, rows, kind)
    y = F.pad(y, (0, rows * a - columns)).unflatten(-1, (rows, a))
    y = torch.einsum("...qml,lspqm->...pls", y, second)
    return torch.einsum("...qls,upql->...pus", y, first[:, :1] if real else first).flatten(-2)


def _steps(a: int, b: int, rows: int, kind: _Kind) -> tuple[Tensor, Tensor]:
    """W of the first step, (a, 2, 2, a), and (a, b, 2, 2, rows): for each of its frequencies the second's."""
    return _kept(_first_step, a, kind=kind), _kept(_second_step, a, b, kind=kind)[..., :rows]


def _factors(n: int, *, real: bool) -> tuple[int, int] | None:
    """(a, b) with a b = n where two steps cost less than one.

    None for a size that is not known, and for a compiler, which would take what is decided by a size as a
    reason to compile anew for the next one.
    """
    if torch.compiler.is_dynamo_compiling() or torch.jit.is_tracing() or type(n) is not int:
        return None
    return _cheapest_factors(n, real)


@functools.cache
def _cheapest_factors(n: int, real: bool) -> tuple[int, int] | None:
    parts = 1 if real else 2
    best, cheapest = None, parts * 2 * (n // 2 + 1 if real else n)  # multiply-adds an entry
    for a in range(2, math.isqrt(n) + 1):
        b, remainder = divmod(n, a)
        frequencies = b // 2 + 1 if real else b
        cost = parts * 2 * a + 4 * frequencies + 2 * _STEP
        if remainder == 0 and cost < cheapest:
            best, cheapest = (a, b), cost
    return best


def _kept(build: Callable[..., Tensor], *sizes: int, kind: _Kind) -> Tensor:
    """What the function builds, kept from call to call, and for an exporter a constant.

    Where sizes are not known, or a compiler or a transform of functions looks on, it is built by operations
    that they see.
    """
    if torch.compiler.is_dynamo_compiling() or torch.jit.is_tracing() or _is_transformed():
        return build(*sizes, kind)
    if any(type(n) is not int for n in sizes):
        return build(*sizes, kind)
    matrix = _build_and_keep(build, sizes, kind)
    if _is_recorded(kind.device):
        _of_graphs[build, sizes, kind] = matrix
    return matrix


def _is_transformed() -> bool:
    """Return True if a torch.func transform or forward-mode differentiation is active."""
    if torch.compiler.is_dynamo_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


#: What recorded CUDA graphs read, where it lies, for as long as they are replayed.
_of_graphs: dict[tuple[Any, ...], Tensor] = {}


def _is_recorded(device: torch.device) -> bool:
    """Return True if work on this device is being recorded as a CUDA graph, to be done later."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@functools.lru_cache(maxsize=64)
def _build_and_keep(build: Callable[..., Tensor], sizes: tuple[int, ...], kind: _Kind) -> Tensor:
    if _is_recorded(kind.device):  # what is made now has no values yet
        raise RuntimeError(f"run once with sides of {sizes} before a CUDA graph is recorded")
    if kind.device.type == "cuda":  # what the cache drops for it may still be read by work under way
        torch.cuda.current_stream(kind.device).synchronize()
    # In a thread of its own, for which neither the modes of an exporter nor inference mode hold, and whose
    # memory is not that of a CUDA graph.
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(_build_at_once, build, sizes, kind).result()


def _build_at_once(build: Callable[..., Tensor], sizes: tuple[int, ...], kind: _Kind) -> Tensor:
    matrix = build(*sizes, kind).contiguous()
    if kind.device.type == "cuda":
        torch.cuda.current_stream(kind.device).synchronize()  # other streams may read it
    return matrix


def _matrix(n: int, kind: _Kind) -> Tensor:
    """W as one matrix, (2 n, n 2): from entries and parts, to parts and frequencies."""
    return _inverse_matrix(n, kind).t()


def _inverse_matrix(n: int, kind: _Kind) -> Tensor:
    """Its transpose, (n 2, 2 n)."""
    return _first_step(n, kind).flatten(2).flatten(0, 1)


def _real_matrix(n: int, kind: _Kind) -> Tensor:
    """Of real numbers, to half of the frequencies, (2 (n // 2 + 1), n)."""
    return torch.cat(_half(n, kind), 1).t()


def _real_inverse_matrix(n: int, kind: _Kind) -> Tensor:
    """From half of the frequencies to real numbers, (n, 2 (n // 2 + 1))."""
    real, imaginary = _half(n, kind)
    of_real, of_imaginary = _column_weights(n, kind).unbind()
    return torch.cat([real * of_real, imaginary * of_imaginary], 1)


def _half(n: int, kind: _Kind) -> tuple[Tensor, ...]:
    """W of real numbers and half of the frequencies, for the real and the imaginary part, (n, n // 2 + 1)."""
    t, k = torch.arange(n, device=kind.device), torch.arange(n // 2 + 1, device=kind.device)
    return _waves(t[:, None] * k, n, n, kind)[:, 0].unbind(1)


def _first_step(n: int, kind: _Kind) -> Tensor:
    """W, (n, 2, 2, n)."""
    t = torch.arange(n, device=kind.device)
    return _waves(t[:, None] * t, n, n, kind)


def _second_step(a: int, b: int, kind: _Kind) -> Tensor:
    """(a, b, 2, 2, b): first frequency, entry, part, part, second frequency."""
    first, second = torch.arange(a, device=kind.device), torch.arange(b, device=kind.device)
    frequency = first[:, None, None] + a * second
    return _waves(second[:, None] * frequency, a * b, b, kind)


def _waves(turns: Tensor, n: int, size: int, kind: _Kind) -> Tensor:
    """cos(2 pi turns / n + (q - p) pi / 2) / sqrt(size), p and q before the last axis of the turns.

    The quarters of 1 / n of a turn are whole numbers: an angle of many turns would lose digits.
    """
    part = torch.arange(2, device=kind.device)
    quarters = 4 * turns[..., None, None, :] + n * (part - part[:, None])[..., None]
    precise = torch.float32 if kind.device.type == "mps" else torch.float64  # which has no float64
    angle = (quarters % (4 * n)).to(precise) * (math.pi / 2) / n
    scale = torch.ones((), dtype=precise, device=kind.device).div(size).sqrt()  # of a size that a tracer sees
    return (angle.cos() * scale).to(kind.dtype)


def _column_weights(n: int, kind: _Kind) -> Tensor:
    """How often each part of a column counts in a map, (2, n // 2 + 1): twice, for the half that is left out;
    in the columns 0 and n / 2 once, their imaginary parts never."""
    column = torch.arange(n // 2 + 1, device=kind.device)
    own = ((column == 0) | (2 * column == n)).to(kind.dtype)
    return torch.stack([2 - own, 2 - 2 * own])


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast, which would round the transforms to half precision."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
