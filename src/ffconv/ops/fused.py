"""The Spectral Transform, and a Fourier Unit alone, as one function on the CPU, by the compiled library.

It keeps what the norms read, a third of what torch keeps for the same function operation by operation. The
rest is computed again in the backward pass, where a transform costs less than the memory it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, compress
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.profiler import record_function

from ffconv.ops import native
from ffconv.ops.engines import current_engine
from ffconv.ops.fourier import irfftn, rfftn
from ffconv.ops.joining import add_to_global
from ffconv.ops.onlookers import is_watched, need_operations
from ffconv.ops.parts import parts_to_channels, tile

_AXES = (2, 3)


class _Norm(NamedTuple):
    """What of a batch norm is no parameter: its buffers (C,), and its numbers."""

    mean: Tensor | None
    var: Tensor | None
    by_batch: bool
    momentum: float
    eps: float

    @classmethod
    def of(cls, bn: _BatchNorm) -> _Norm:
        """The state of a norm that is about to run. Counts the batch, as the norm would."""
        if bn.training and not bn.track_running_stats:
            return cls(None, None, True, 0.0, bn.eps)
        momentum = bn.momentum or 0.0
        if bn.training and bn.num_batches_tracked is not None:
            bn.num_batches_tracked.add_(1)
            if bn.momentum is None:
                momentum = 1 / float(bn.num_batches_tracked)
        return cls(bn.running_mean, bn.running_var, bn.training or bn.running_mean is None, momentum, bn.eps)

    def remember(self, mean: Tensor, var: Tensor, values: int) -> None:
        """Lets the running statistics follow those of a batch of so many values a channel."""
        if self.by_batch and self.mean is not None and self.var is not None:
            self.mean.lerp_(mean, self.momentum)
            self.var.lerp_(var * (values / (values - 1)), self.momentum)


def suits(x: Tensor, *, local: bool) -> bool:
    """Whether a pooled map such as x can be transformed here; ``local`` if there is a Local Fourier Unit.

    Exporters and tracers, and what runs under autocast, get the single operations.
    """
    if type(x) is not Tensor or x.dim() != 4 or not may_be_used():
        return False
    if torch.compiler.is_compiling():  # the operator looks at the sizes, which a compiled graph leaves open
        return native.available() and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return suits_sizes(x, x.shape[2:], local=local)


def may_be_used() -> bool:
    """Whether no exporter, transform of functions, mode or autocast follows torch's operations now, and no
    other engine is asked for."""
    followed = need_operations() or is_watched() or torch.is_autocast_enabled("cpu")
    return not followed and current_engine() in ("auto", "native")


def suits_sizes(x: Tensor, size: Sequence[int], *, local: bool) -> bool:
    """Whether the library transforms maps such as x, pooled to this size."""
    H, W = size
    sides = [(H, W), ((H + 1) // 2, (W + 1) // 2)] if local else [(H, W)]
    # A norm's own error tells of a batch of one value.
    return len(x) * sides[-1][0] * sides[-1][1] > 1 and all(native.suits(x, *side) for side in sides)


def is_layer(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether these are a 1x1 convolution and a norm such as these functions compute, and nobody looks
    between them."""
    if not (type(norm) is nn.BatchNorm2d or type(norm) is nn.BatchNorm3d):
        return False
    return norm.affine and is_mixing(conv) and not has_hooks(norm)


def is_mixing(conv: nn.Module | None) -> bool:
    """Whether this is a 1x1 convolution without groups and bias."""
    if not (type(conv) is nn.Conv2d or type(conv) is nn.Conv3d) or conv.groups > 1:
        return False
    if max(conv.kernel_size) > 1:
        return False
    return conv._parameters["bias"] is None and not has_hooks(conv)


def has_hooks(module: nn.Module | None) -> bool:
    """Whether someone wants to know of a module's calls."""
    return module is not None and any(hooks_of(module))


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Those who want to know of a module's calls, by kind."""
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )


def spectral_transform(
    x: Tensor, onto: Tensor | None, layers: Sequence[tuple[_ConvNd, _BatchNorm]], weight: Tensor | None
) -> Tensor | None:
    """conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), or fu(x).

    Args:
        x: global channels, pooled.
        onto: map to whose last channels the result is added; it is written to.
        layers: conv1 and bn1, the Fourier Unit's, and the Local Fourier Unit's if there is one; or a Fourier
            Unit's alone, of as many channels out as in.
        weight: conv2's, (C_out, c, 1, 1); None for a Fourier Unit alone. It and the layers' may have
            another axis of size 1, as those for clips.
    Shape:
        x (N, C_in, H, W), onto (N, C, H, W) -> (N, C, H, W); without onto (N, C_out, H, W).
    Returns:
        None for tensors of several types or devices, or whose sizes do not go together, of which torch's
        operations tell; and for a compiled training step.
    """
    if not sizes_fit(x.shape[1], layers, weight):
        return None
    flat: list[Any] = []
    buffers: list[Tensor | None] = []
    for conv, norm in layers:
        flat += [conv._parameters["weight"], norm._parameters["weight"], norm._parameters["bias"]]
        buffers += [norm._buffers["running_mean"], norm._buffers["running_var"]]
    inputs = [tensor for tensor in (x, onto, weight, *flat) if tensor is not None]
    if not are_alike(x, *inputs, *buffers):
        return None
    tensors = tensors_by_statistics(layers)
    if tensors is not None and not (
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    ):
        eps = [norm.eps for _, norm in layers]
        if not torch.compiler.is_compiling():
            with recorded("ffconv::spectral_transform"):
                return native.spectral_transform(x, onto, tensors, eps, weight)
        y = _inference_operator(x, tensors, eps, weight)
        return y if onto is None else add_to_global(onto, y)
    if torch.compiler.is_compiling():
        return None
    return _SpectralTransform.apply([_Norm.of(norm) for _, norm in layers], x, onto, weight, *flat)


def tensors_by_statistics(layers: Sequence[tuple[_ConvNd, _BatchNorm]]) -> list[Tensor] | None:
    """Five of each layer: its weight, and the norm's gamma, beta, mean and variance. None if a norm does not
    go by its statistics."""
    # By the dictionaries: attributes of modules cost as much as a small transform.
    tensors: list[Any] = []
    for conv, norm in layers:
        of_norm, buffers = norm._parameters, norm._buffers
        mean, var = buffers["running_mean"], buffers["running_var"]
        if norm.training or mean is None or var is None:
            return None
        tensors += [conv._parameters["weight"], of_norm["weight"], of_norm["bias"], mean, var]
    return tensors


def sizes_fit(channels: int, layers: Sequence[tuple[_ConvNd, _BatchNorm]], weight: Tensor | None) -> bool:
    """Whether the tensors of a transform of so many channels, as for :func:`spectral_transform`, go together.

    The library takes their word for it.
    """
    hidden = channels if weight is None else weight.shape[1]
    double, cut = 2 * hidden, 8 * -(-hidden // 4)
    expected = [(hidden, channels), (double, double), (double, cut)]
    if weight is None:
        expected = [(double, double)]
    for (conv, norm), (outputs, inputs) in zip(layers, expected, strict=False):
        of_norm = (norm._parameters["weight"], norm._parameters["bias"], *norm._buffers.values())
        if conv._parameters["weight"].shape[:2] != (outputs, inputs):  # pyright: ignore
            return False
        if any(tensor is not None and tensor.dim() and len(tensor) != outputs for tensor in of_norm):
            return False
    return True


def are_alike(x: Tensor, *others: Tensor | None) -> bool:
    """Whether all tensors have the type of x and are on the CPU."""
    return all(other is None or (other.dtype == x.dtype and other.is_cpu) for other in others)


def recorded(name: str) -> AbstractContextManager:
    """The library's calls are no operators, which a profiler would see by itself."""
    return record_function(name) if torch.autograd.profiler._is_profiler_enabled else nullcontext()


@torch.library.custom_op("ffconv::spectral_transform", mutates_args=())
def _inference_operator(
    x: Tensor, layers: Sequence[Tensor], eps: Sequence[float], weight: Tensor | None
) -> Tensor:
    """Without gradients, the norms by their statistics; ``layers`` as :func:`native.spectral_transform`'s."""
    if suits_sizes(x, x.shape[2:], local=len(eps) == 3):
        return native.spectral_transform(x, None, layers, eps, weight)
    norms = [
        _Norm(layers[5 * i + 3], layers[5 * i + 4], by_batch=False, momentum=0.0, eps=value)
        for i, value in enumerate(eps)
    ]
    flat = [tensor for i in range(len(eps)) for tensor in layers[5 * i : 5 * i + 3]]
    return _by_operations(x, weight, flat, norms).contiguous(memory_format=torch.channels_last)


@_inference_operator.register_fake
def _(x: Tensor, layers: Sequence[Tensor], eps: Sequence[float], weight: Tensor | None) -> Tensor:
    N, C, H, W = x.shape
    return x.new_empty(N, H, W, C if weight is None else weight.shape[0]).permute(0, 3, 1, 2)


class _SpectralTransform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norms: Sequence[_Norm], x: Tensor, onto: Tensor | None, weight: Tensor | None, *flat: Tensor
    ) -> Tensor:
        statistics = [_statistics(norm, flat[3 * i + 1]) for i, norm in enumerate(norms)]
        in_place = onto is not None and native.are_rows_adjacent(onto)
        layers = _layers(flat, statistics, norms)
        rows = native.rows_adjacent(x)
        last = None if weight is None else weight.contiguous()
        y, reads = native.forward(rows, onto if in_place else None, layers, last)
        for norm, (mean, var), read in zip(norms, statistics, reads, strict=True):
            norm.remember(mean, var, values=read.numel() // read.shape[-1])
        ctx.norms = norms
        ctx.save_for_backward(x, weight, *flat, *chain.from_iterable(statistics), *reads)
        if onto is None:
            return y
        ctx.mark_dirty(onto)
        if not in_place:
            onto[:, onto.shape[1] - y.shape[1] :] += y
        return onto

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, weight, *rest = ctx.saved_tensors
        count = len(ctx.norms)
        flat, rest = rest[: 3 * count], rest[3 * count :]
        of_onto = grad if ctx.needs_input_grad[2] else None
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            result = _by_operations(x, weight, flat, ctx.norms)
            own = grad[:, grad.shape[1] - result.shape[1] :]
            inputs = [x, weight, *flat]
            needs = [tensor is not None and tensor.requires_grad for tensor in inputs]
            needed = list(compress(inputs, needs))
            found = iter(torch.autograd.grad(result, needed, own, create_graph=True))
            grads = [next(found) if need else None for need in needs]
            return None, grads[0], of_onto, *grads[1:]
        statistics = list(zip(rest[0 : 2 * count : 2], rest[1 : 2 * count : 2], strict=True))
        layers = _layers(flat, statistics, ctx.norms)
        rows, grad_rows = native.rows_adjacent(x), native.rows_adjacent(grad)
        last = None if weight is None else weight.contiguous()
        result = native.backward(grad_rows, rows, layers, rest[2 * count :], last)
        return None, result.x, of_onto, result.last, *chain.from_iterable(result.layers)


def _statistics(norm: _Norm, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """A norm's mean and variance; memory for them, if it goes by the batch."""
    if norm.by_batch or norm.mean is None or norm.var is None:
        return torch.empty_like(gamma), torch.empty_like(gamma)
    return norm.mean, norm.var


def _layers(
    flat: Sequence[Tensor], statistics: Sequence[tuple[Tensor, Tensor]], norms: Sequence[_Norm]
) -> list[native.Layer]:
    layers = []
    for i, norm in enumerate(norms):
        tensors = [tensor.contiguous() for tensor in (*flat[3 * i : 3 * i + 3], *statistics[i])]
        layers.append(native.Layer(*tensors, eps=norm.eps, by_batch=norm.by_batch))
    return layers


def _by_operations(
    x: Tensor, weight: Tensor | None, flat: Sequence[Tensor], norms: Sequence[_Norm]
) -> Tensor:
    """The same function of torch's operations, which can be differentiated any number of times."""

    def normed_relu(x: Tensor, number: int) -> Tensor:
        conv, gamma, beta = flat[3 * number : 3 * number + 3]
        norm = norms[number]
        statistics = (None, None) if norm.by_batch else (norm.mean, norm.var)
        y = F.batch_norm(F.conv2d(x, conv.flatten(3)), *statistics, gamma, beta, norm.by_batch, 0.0, norm.eps)
        return F.relu(y)

    def unit(x: Tensor, number: int) -> Tensor:
        return irfftn(normed_relu(rfftn(x, _AXES), number), _AXES, x.shape[-1])

    if weight is None:
        return unit(x, 0)
    h = mixed = normed_relu(x, 0)
    for number in range(1, len(norms)):
        part = parts_to_channels(h[:, : flat[3 * number].shape[1] // 8], _AXES) if number == 2 else h
        y = unit(part, number)
        mixed = mixed + (tile(y, _AXES, h.shape[2:]) if number == 2 else y)
    return F.conv2d(mixed, weight.flatten(3))
