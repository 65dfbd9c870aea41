"""Calls of the CPU kernels with tensors.

All tensors are float32 on the CPU, without the conjugate or negative bit. The functions decide nothing: a
caller has to choose tensors that the kernels support, see ``ffconv.dispatch``. Sizes are checked in C++
before anything runs; sizes that do not go together, and memory that cannot be allocated, raise a RuntimeError.

Arguments go to C++ as one packed block of integers (see ``arguments.hpp``), which costs a few microseconds.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffconv.backends.cpu.library import library

_PADDING_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}  # PaddingMode in convolution.hpp
_NO_TENSOR = (0,) * 9
_NO_SPECTRAL = (0,) * 34
_CPU = torch.device("cpu")
# Above this weight size (bytes) and map size (pixels) oneDNN is faster, because our weights leave the cache.
_LARGE_WEIGHTS, _LARGE_MAP = 3 << 20, 1024

# The structures of arguments.hpp.
_INFERENCE = struct.Struct("105q3d").pack
_TRAINING = struct.Struct("63q3d35q").pack
_TRANSFORM = struct.Struct("12qd").pack
_WEIGHT_GRADIENTS = struct.Struct("47q").pack
_RUN, _COUNT_PACKED, _PACK = 0, 1, 2

_data_ptr, _numel, _is_contiguous = Tensor.data_ptr, Tensor.numel, Tensor.is_contiguous


@torch.compiler.assume_constant_result
def available() -> bool:
    """Return True if the kernels are there and not switched off."""
    return library() is not None


def why_unavailable() -> str:
    """Return the reason why there are no kernels."""
    if os.environ.get("FFCONV_CPU") == "none":
        return "FFCONV_CPU=none leaves the kernels out"
    return "the kernels are not built"


def instruction_set() -> str | None:
    """Return the instruction set of the kernels: "avx512", "avx2" or "default"; None without kernels."""
    loaded = library()
    return None if loaded is None else loaded.instruction_set


@functools.cache
def is_smooth(n: int) -> bool:
    """Return True if the transforms have all prime factors of n."""
    for factor in range(2, _function("largest_factor")() + 1):
        while n > 0 and n % factor == 0:
            n //= factor
    return n == 1


def rfft2(x: Tensor, inner: float = 1.0) -> Tensor:
    """Return the orthonormal half spectrum of each plane, real and imaginary parts interleaved.

    Args:
        x: map of any strides.
        inner: factor of the columns between kx = 0 and W / 2.
    Shape:
        x (N, C, H, W) -> (N, 2C, H, W // 2 + 1), channels last in memory.
    """
    N, C, H, W = x.shape
    spectrum = x.new_empty(N, H, W // 2 + 1, 2 * C)
    _call("transform", _TRANSFORM(1, *_tensor(x), spectrum.data_ptr(), spectrum.numel(), inner))
    return spectrum.permute(0, 3, 1, 2)


def irfft2(spectrum: Tensor, width: int, inner: float = 1.0) -> Tensor:
    """Return the planes of any interleaved half spectrum.

    Args:
        spectrum: as :func:`rfft2` returns it, of any strides.
        width: of the planes.
        inner: factor of the columns between kx = 0 and W / 2.
    Shape:
        spectrum (N, 2C, H, width // 2 + 1) -> (N, C, H, width), channels last in memory.
    """
    memory = spectrum.permute(0, 2, 3, 1).contiguous()  # (N, H, Wf, 2C)
    N, H, _, parts = memory.shape
    y = _empty((N, parts // 2, H, width), last=True)
    _call("transform", _TRANSFORM(0, *_tensor(y), memory.data_ptr(), memory.numel(), inner))
    return y


def ffc(
    x: Tensor,
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_modes: Sequence[str],
    out_size: Sequence[int],
    layers: Sequence[Tensor],
    eps: Sequence[float],
    conv2: Tensor | None,
    residual: Tensor | None = None,
    relu: bool = False,
    packed: Tensor | None = None,
) -> Tensor:
    """Return an FFC in inference: its convolutions and its Spectral Transform.

    Args:
        x: map of any strides; the result has its memory format.
        l2l, g2l, l2g: weights (C_out, C_in, kh, kw) of any strides; at least one is not None.
        bias: (C_out,) of the whole result, or None.
        stride, dilation: (height, width).
        padding: before the map along each axis; what is after it follows from the size of the result.
        padding_modes: "zeros", "reflect", "replicate" or "circular" along each axis.
        out_size: (H_out, W_out).
        layers: weight, gamma, beta, mean and variance of conv1 and bn1, of the Fourier Unit and, if there is
            one, of the Local Fourier Unit; empty without a Spectral Transform. The global channels are
            averaged to the size of the result first.
        eps: of each norm.
        conv2: the last weight of the Spectral Transform, (C_out_g, c, 1, 1).
        residual: map that is added, of the size of the result.
        relu: apply a ReLU at the end.
        packed: weights packed by :func:`pack_ffc` for the same sizes but of the batch; the weights themselves
            are then not read.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H_out, W_out)
    """
    kept, block = _ffc_block(l2l, g2l, l2g, bias, layers, conv2)
    outputs, of_weights, of_spectral = block
    N, _, _, _ = x.shape
    strides = x.stride()
    y = _empty((N, outputs, *out_size), last=strides[1] == 1 and (strides[3] > 1 or x.shape[1] == 1))
    _call(
        "infer",
        _INFERENCE(
            _RUN,
            *(0, 1, relu, 0),
            *stride,
            *padding,
            *dilation,
            *map(_PADDING_MODES.__getitem__, padding_modes),
            *_flat(kept[0]),
            *_flat(packed),
            x.data_ptr(),
            *x.shape,
            *strides,
            *_tensor(y),
            *_tensor(residual),
            *of_weights,
            *of_spectral,
            *_three(eps),
        ),
    )
    return y


def pack_ffc(
    x_shape: Sequence[int],
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    padding_modes: Sequence[str],
    out_size: Sequence[int],
    layers: Sequence[Tensor],
    eps: Sequence[float],
    conv2: Tensor | None,
) -> Tensor:
    """Return the weights of :func:`ffc` (its arguments) as its kernels use them, with the norms folded in.

    Shape:
        x_shape (N, C_in, H, W) -> (bytes,) of uint8
    """
    kept, (outputs, of_weights, of_spectral) = _ffc_block(l2l, g2l, l2g, bias, layers, conv2)
    count = torch.zeros(1, dtype=torch.int64, device=_CPU)

    def run(mode: int, packed: Tensor | None) -> None:
        block = _INFERENCE(
            mode,
            *(count.data_ptr(), 1, 0, 0),
            *stride,
            *padding,
            *dilation,
            *map(_PADDING_MODES.__getitem__, padding_modes),
            *_flat(kept[0]),
            *_flat(packed),
            *(0, *x_shape, 0, 0, 0, 0),
            *(0, x_shape[0], outputs, *out_size, 0, 0, 0, 0),
            *_NO_TENSOR,
            *of_weights,
            *of_spectral,
            *_three(eps),
        )
        _call("infer", block)

    run(_COUNT_PACKED, None)
    packed = torch.empty(int(count), dtype=torch.uint8, device=_CPU)
    run(_PACK, packed)
    return packed


def ffc_prefers_torch(
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    out_size: Sequence[int],
) -> bool:
    """Return True if oneDNN's convolutions are faster than those of :func:`ffc` with these arguments."""
    if out_size[0] * out_size[1] < _LARGE_MAP:
        return False
    weights = [weight for weight in (l2l, g2l, l2g) if weight is not None]
    if sum(weight.numel() * weight.element_size() for weight in weights) <= _LARGE_WEIGHTS:
        return False
    geometry = (weights[0].shape[2:], stride, dilation)
    return not all(tuple(numbers) == (side, side) for numbers, side in zip(geometry, (3, 1, 1), strict=True))


def spectral_transform(
    x: Tensor,
    layers: Sequence[Tensor],
    eps: Sequence[float],
    conv2: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """Return conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), the norms by their running statistics.

    Args:
        x: map of any strides.
        layers, eps, conv2: as for :func:`ffc`; conv2 None and one layer are a Fourier Unit alone.
        out: map to whose last channels the result is added in place; it is returned.
    Shape:
        x (N, C_in, H, W), out (N, C, H, W) -> (N, C, H, W); without out (N, C_out, H, W) in the format of x.
    """
    layers, conv2 = _contiguous(layers, conv2)
    N, C, H, W = x.shape
    y = out
    if y is None:
        y = _empty((N, C if conv2 is None else conv2.size(0), H, W), last=_is_channels_last(x))
    of_y = _tensor(y)
    block = _INFERENCE(
        _RUN,
        *(0,) * 16,
        *_tensor(x),
        *of_y,
        *(_NO_TENSOR if out is None else of_y),
        *(0,) * 27,
        *_spectral(layers, conv2),
        *_three(eps),
    )
    _call("infer", block)
    return y


def spectral_transform_forward(
    x: Tensor,
    layers: Sequence[Tensor],
    batch_stats: Sequence[bool],
    eps: Sequence[float],
    conv2: Tensor | None,
    out: Tensor | None = None,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Return :func:`spectral_transform` in training, and what its backward pass needs.

    Args:
        batch_stats: of each norm, True if it uses the statistics of the batch; its mean and variance in
            ``layers`` are then not read.
    Returns:
        The result; the mean and (biased) variance that each norm used; and what
        :func:`spectral_transform_backward` takes as ``saved``.
    """
    N, C, H, W = x.shape
    y = out
    if y is None:
        y = _empty((N, C if conv2 is None else conv2.size(0), H, W), last=_is_channels_last(x))
    stats, used = [], list(layers)
    for i, by_batch in enumerate(batch_stats):
        if by_batch:
            used[5 * i + 3 : 5 * i + 5] = torch.empty_like(used[5 * i + 1]), torch.empty_like(used[5 * i + 1])
        stats.append((used[5 * i + 3], used[5 * i + 4]))
    saved = _saved_maps(x, len(batch_stats), conv2)
    _train(x, y, used, batch_stats, eps, conv2, saved, adds=out is not None)
    return y, stats, saved


def spectral_transform_backward(
    grad: Tensor,
    x: Tensor,
    layers: Sequence[Tensor],
    batch_stats: Sequence[bool],
    eps: Sequence[float],
    conv2: Tensor | None,
    stats: Sequence[tuple[Tensor, Tensor]],
    saved: Sequence[Tensor],
) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, Tensor, Tensor]]]:
    """Return the gradients of what :func:`spectral_transform_forward` computed.

    Args:
        grad: gradient of the result, or of the map to which it was added: the last C_out channels count.
        x, layers, batch_stats, eps, conv2: those of the forward pass.
        stats, saved: what it returned.
    Returns:
        The gradients of x (in its memory format), of conv2, and of each layer's weight, gamma and beta.
    """
    used = list(layers)
    for i, pair in enumerate(stats):
        used[5 * i + 3 : 5 * i + 5] = pair
    grad_x = _empty(tuple(x.shape), last=_is_channels_last(x))
    grad_conv2 = None if conv2 is None else torch.empty_like(conv2, memory_format=torch.contiguous_format)
    grads = [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for i in range(len(eps))
        for tensor in layers[5 * i : 5 * i + 3]
    ]
    _train(x, grad, used, batch_stats, eps, conv2, saved, results=(grad_x, grad_conv2, grads))
    return grad_x, grad_conv2, [(grads[i], grads[i + 1], grads[i + 2]) for i in range(0, len(grads), 3)]


def winograd_pays(x: Tensor, out_size: Sequence[int], out_channels: int) -> bool:
    """Return True if Winograd's filtering is faster for 3x3 convolutions of stride 1.

    Shape:
        x (N, C_in, H, W) -> (N, out_channels, *out_size)
    """
    return bool(_function("winograd_pays")(*out_size, x.shape[1], out_channels, x.shape[0]))


def winograd_conv(
    x: Tensor,
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    bias: Tensor | None,
    padding: Sequence[int],
    out_size: Sequence[int],
) -> Tensor:
    """Return the convolutions of an FFC of stride 1 with zero padding; arguments as for :func:`ffc`."""
    zeros = ("zeros", "zeros")
    return ffc(x, l2l, g2l, l2g, bias, (1, 1), padding, (1, 1), zeros, out_size, (), (), None)


def winograd_input_grad(
    grad: Tensor,
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    padding: Sequence[int],
    in_size: Sequence[int],
) -> Tensor:
    """Return the gradient of x of :func:`winograd_conv` from that of its result.

    Shape:
        grad (N, C_out, H_out, W_out) -> (N, C_in, *in_size), in the memory format of grad.
    """
    inputs = _first_size(1, l2l, l2g) + _first_size(1, g2l)
    y = _empty((grad.shape[0], inputs, *in_size), last=_is_channels_last(grad))
    kernel = next(weight.shape[2:] for weight in (l2l, g2l, l2g) if weight is not None)
    block = _INFERENCE(
        _RUN,
        *(0, 1, 0, 1),
        *(1, 1),
        *(k - 1 - before for k, before in zip(kernel, padding, strict=True)),
        *(1, 1, 0, 0),
        *(0, 0, 0, 0),
        *_tensor(grad),
        *_tensor(y),
        *_NO_TENSOR,
        *_tensor(l2l),
        *_tensor(g2l),
        *_tensor(l2g),
        *_NO_SPECTRAL,
        *(0.0, 0.0, 0.0),
    )
    _call("infer", block)
    return y


def winograd_weight_grads(
    x: Tensor,
    grad: Tensor,
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    padding: Sequence[int],
) -> list[Tensor | None]:
    """Return the gradients of l2l, g2l and l2g of :func:`winograd_conv`, None for a weight that is None.

    Args:
        x: its input.
        grad: the gradient of its result.
    """
    x, grad = (map_.contiguous(memory_format=torch.channels_last) for map_ in (x, grad))
    grads = [None if weight is None else torch.empty_like(weight) for weight in (l2l, g2l, l2g)]
    maps = (number for tensor in (x, grad, *grads) for number in _tensor(tensor))
    _call("weight_gradients", _WEIGHT_GRADIENTS(*padding, *maps))
    return grads


def _train(
    x: Tensor,
    y: Tensor,
    layers: Sequence[Tensor],
    batch_stats: Sequence[bool],
    eps: Sequence[float],
    conv2: Tensor | None,
    saved: Sequence[Tensor],
    *,
    adds: bool = False,
    results: tuple[Tensor, Tensor | None, list[Tensor]] | None = None,
) -> None:
    layers, conv2 = _contiguous(layers, conv2)
    grad_x, grad_conv2, grads = results or (None, None, [])
    temporary = [] if results is None else [torch.empty_like(tensor) for tensor in saved]
    block = _TRAINING(
        results is not None,
        adds,
        *_tensor(x),
        *_tensor(y),
        *_tensor(grad_x),
        *_spectral(layers, conv2),
        *_three(eps),
        *_three(batch_stats),
        *_flats(saved, 3),
        *_flats(temporary, 3),
        *_flats(grads, 9),
        *_flat(grad_conv2),
    )
    _call("train", block)


def _saved_maps(x: Tensor, layers: int, conv2: Tensor | None) -> list[Tensor]:
    """Return memory for what the norms read, in the order of the kernels."""
    N, C, H, W = x.shape
    width = saved_width(C if conv2 is None else conv2.size(1))
    h, w = (H + 1) // 2, (W + 1) // 2
    sizes = [H * W * width, (W // 2 + 1) * H * 2 * width, (w // 2 + 1) * h * 2 * width]
    return [x.new_empty(N, size) for size in (sizes[1:2] if conv2 is None else sizes[:layers])]


def saved_width(hidden: int) -> int:
    """Return the values a pixel that are saved of ``hidden`` channels for the backward pass."""
    return _function("saved_width")(hidden)


def _ffc_block(
    l2l: Tensor | None,
    g2l: Tensor | None,
    l2g: Tensor | None,
    bias: Tensor | None,
    layers: Sequence[Tensor],
    conv2: Tensor | None,
) -> tuple[list[Any], tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Return tensors to keep until the call is over (bias first), and the numbers that describe weights."""
    if bias is not None and not bias.is_contiguous():
        bias = bias.contiguous()
    of_spectral = _NO_SPECTRAL
    if layers:
        layers, conv2 = _contiguous(layers, conv2)
        of_spectral = _spectral(layers, conv2)
    outputs = _first_size(0, l2l, g2l) + _first_size(0, conv2 if layers else None, l2g)
    return [bias, layers, conv2], (outputs, (*_tensor(l2l), *_tensor(g2l), *_tensor(l2g)), of_spectral)


def _contiguous(layers: Sequence[Tensor], conv2: Tensor | None) -> tuple[Sequence[Tensor], Tensor | None]:
    if not all(map(_is_contiguous, layers)):
        layers = [tensor.contiguous() for tensor in layers]
    if conv2 is not None and not conv2.is_contiguous():
        conv2 = conv2.contiguous()
    return layers, conv2


def _spectral(layers: Sequence[Tensor], conv2: Tensor | None) -> tuple[int, ...]:
    """Return SpectralArguments without its eps."""
    count = len(layers)
    rest = (0,) * (15 - count)
    of_conv2 = (0, 0, 0) if conv2 is None else (conv2.data_ptr(), conv2.numel(), conv2.size(0))
    return count // 5, *map(_data_ptr, layers), *rest, *map(_numel, layers), *rest, *of_conv2


def _tensor(x: Tensor | None) -> tuple[int, ...]:
    """Return a TensorArgument."""
    if x is None:
        return _NO_TENSOR
    a, b, c, d = x.shape  # not of other dimensions
    return x.data_ptr(), a, b, c, d, *x.stride()


def _flat(x: Tensor | None) -> tuple[int, int]:
    """Return a FlatArgument."""
    return (0, 0) if x is None else (x.data_ptr(), x.numel())


def _flats(tensors: Sequence[Tensor], count: int) -> list[int]:
    flat = [number for tensor in tensors for number in (tensor.data_ptr(), tensor.numel())]
    return flat + [0] * (2 * count - len(flat))


def _three(values: Sequence[Any]) -> tuple[Any, ...]:
    return (*values, *(0,) * (3 - len(values)))


def _first_size(axis: int, *weights: Tensor | None) -> int:
    """Return the size of the first weight that is not None, or 0."""
    return next((weight.size(axis) for weight in weights if weight is not None), 0)


def _is_channels_last(x: Tensor) -> bool:
    strides = x.stride()
    return strides[1] == 1 and (strides[3] > 1 or x.size(1) == 1)


def _empty(size: tuple[int, ...], *, last: bool) -> Tensor:
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=torch.float32, device=_CPU, memory_format=memory_format)


def _function(name: str) -> Any:
    loaded = library()
    if loaded is None:
        raise RuntimeError("ffconv's CPU kernels are missing")
    return getattr(loaded.functions, f"ffconv_{name}")


def _call(name: str, block: bytes) -> None:
    message = _function(name)(block)
    if message is not None:
        raise RuntimeError(f"ffconv: {message.decode()}")
