"""The whole Spectral Transform in training, forward and backward, as calls of the compiled library."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffconv.ops.native.transforms import REAL_NAMES, Layout, compiled

_LAYER_POINTERS = (
    *("weight", "gamma", "beta", "mean", "var", "read", "grad"),
    *("grad_weight", "grad_gamma", "grad_beta"),
)


class Layer(NamedTuple):
    """A 1x1 convolution's weight (C_out, C_in, 1, 1), and what the norm after it goes by, each (C_out,)."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor
    eps: float
    by_batch: bool


class Gradients(NamedTuple):
    """Of x, of conv2's weight, and of each layer's weight, gamma and beta."""

    x: Tensor
    last: Tensor | None
    layers: list[tuple[Tensor, ...]]


def forward(
    x: Tensor, onto: Tensor | None, layers: Sequence[Layer], last: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))).

    Args:
        x: map of adjacent rows.
        onto: map of adjacent rows to whose last channels the result is added.
        layers: conv1 and bn1, the Fourier Unit's, and the Local Fourier Unit's if there is one; or a Fourier
            Unit's alone, of as many channels out as in. Their means and (biased) variances are written if
            ``by_batch``, or else as they are to be.
        last: conv2's weight, (C_out, c, 1, 1); None for a Fourier Unit alone: fu(x).
    Shape:
        x (N, C_in, H, W), onto (N, C, H, W) -> (N, C, H, W); without onto (N, C_out, H, W), channels last in
        memory.
    Returns:
        The result, and for each layer what its norm has read, in the library's own order.
    """
    N, C, H, W = x.shape
    C_out = C if last is None else last.shape[0]
    y = x.new_empty(N, H, W, C_out).permute(0, 3, 1, 2) if onto is None else onto
    read = _maps_of_norms(x, len(layers), last)
    _run(x, y, layers, read, last, add=onto is not None)
    return y, read


def backward(
    grad: Tensor, x: Tensor, layers: Sequence[Layer], read: Sequence[Tensor], last: Tensor | None
) -> Gradients:
    """Gradients of what :func:`forward` computed, from that of its result.

    Args:
        grad: map of adjacent rows, whose last C_out channels count.
        x: that of the forward pass, as are the others; the layers' statistics are those that it used.
    """
    N, C_in, H, W = x.shape
    of_x = x.new_empty(N, H, W, C_in).permute(0, 3, 1, 2)
    of_layers = [tuple(torch.empty_like(tensor) for tensor in layer[:3]) for layer in layers]
    result = Gradients(of_x, None if last is None else torch.empty_like(last), of_layers)
    _run(x, grad, layers, read, last, results=(result, _maps_of_norms(x, len(layers), last)))
    return result


def _maps_of_norms(x: Tensor, layers: int, last: Tensor | None) -> list[Tensor]:
    N, C, H, W = x.shape
    width = compiled("width", x.dtype)(C if last is None else last.shape[1])
    h, w = (H + 1) // 2, (W + 1) // 2
    shapes = [(H, W, width), (W // 2 + 1, H, 2 * width), (w // 2 + 1, h, 2 * width)]
    return [x.new_empty(N, *shape) for shape in (shapes[1:2] if layers == 1 else shapes[:layers])]


def _run(
    x: Tensor,
    y: Tensor,
    layers: Sequence[Layer],
    read: Sequence[Tensor],
    last: Tensor | None,
    *,
    add: bool = False,
    results: tuple[Gradients, Sequence[Tensor]] | None = None,
) -> None:
    trained_layer, job, function = _calls(x.dtype)
    structures = []
    for number, layer in enumerate(layers):
        tensors = [*layer[:5], read[number]]
        if results is not None:
            gradients, temporary = results
            tensors += [temporary[number], *gradients.layers[number]]
        pointers = [tensor.data_ptr() for tensor in tensors]
        structures.append(trained_layer(*pointers, by_batch=layer.by_batch, eps=layer.eps))
    if last is None:
        structures.insert(0, trained_layer())
    if len(structures) == 2:
        structures.append(trained_layer())
    C_out, C = x.shape[1:2] * 2 if last is None else last.shape[:2]
    of_last = None if results is None else results[0].last
    call = job(
        x.data_ptr(),
        y.data_ptr() + (y.shape[1] - C_out) * y.element_size(),
        Layout.of(x),
        Layout.of(y),
        *(x.shape[0], *x.shape[2:], x.shape[1], C, C_out, add),
        *structures,
        None if last is None else last.data_ptr(),
        None if of_last is None else of_last.data_ptr(),
        None if results is None else results[0].x.data_ptr(),
    )
    function(ctypes.byref(call), int(results is not None))


@functools.cache
def _calls(dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The structures, and the function that takes them."""
    real = getattr(ctypes, f"c_{REAL_NAMES[dtype]}")

    class TrainedLayer(ctypes.Structure):
        """The structure of the same name in training.hpp."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in _LAYER_POINTERS),
            ("by_batch", ctypes.c_int64),
            ("eps", real),
        ]

    class TrainingJob(ctypes.Structure):
        """The structure of the same name in training.hpp."""

        _fields_ = [
            *((name, ctypes.c_void_p) for name in ("x", "y")),
            *((name, Layout) for name in ("x_layout", "y_layout")),
            *((name, ctypes.c_int64) for name in ("N", "H", "W", "C_in", "C", "C_out", "add")),
            *((name, TrainedLayer) for name in ("first", "unit", "local")),
            *((name, ctypes.c_void_p) for name in ("last", "grad_last", "grad_x")),
        ]

    return TrainedLayer, TrainingJob, compiled("train", dtype)
