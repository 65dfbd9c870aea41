"""The Spectral Transform as one function on the CPU, with a hand-written backward pass.

It saves what the norms read, a third of what torch keeps for the same function operation by operation. The
rest is computed again in the backward pass, where a transform costs less than the memory it saves. Norms and
ReLUs of a spectrum, the quadrants of the Local Fourier Unit and the sums around the units are part of the
compiled transforms' loads and stores. The 1x1 convolutions are matrix products, which read and write a part
of a wider map in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ffconv.ops import native
from ffconv.ops.fourier import irfftn, rfftn
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


class _Layer(NamedTuple):
    """Weights of a 1x1 convolution (C_out, C_in, 1, 1), and of the norm after it, both (C_out,)."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor


class _Normed(NamedTuple):
    """The input of a norm that has run, and what it does to each channel: scale * x + shift."""

    x: Tensor
    mean: Tensor
    invstd: Tensor
    scale: Tensor
    shift: Tensor


def suits(x: Tensor, *, local: bool) -> bool:
    """Whether a pooled map such as x can be transformed here; ``local`` if there is a Local Fourier Unit.

    Compilers and tracers, and what runs under autocast, get the single operations.
    """
    if type(x) is not Tensor or x.dim() != 4 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    N, _, H, W = x.shape
    sides = [(H, W), ((H + 1) // 2, (W + 1) // 2)] if local else [(H, W)]
    # A norm's own error tells of a batch of one value.
    return N * sides[-1][0] * sides[-1][1] > 1 and all(native.suits(x, *side) for side in sides)


def spectral_transform(
    x: Tensor, onto: Tensor | None, layers: Sequence[tuple[_ConvNd, _BatchNorm]], weight: Tensor
) -> Tensor:
    """conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))).

    Args:
        x: global channels, pooled.
        onto: map to whose last channels the result is added; it is written to.
        layers: conv1 and bn1, the Fourier Unit's, and the Local Fourier Unit's if there is one.
        weight: conv2's, (C_out, c, 1, 1).
    Shape:
        x (N, C_in, H, W), onto (N, C, H, W) -> (N, C, H, W); without onto (N, C_out, H, W).
    """
    norms = [_Norm.of(norm) for _, norm in layers]
    flat = [tensor for conv, norm in layers for tensor in (conv.weight, norm.weight, norm.bias)]
    return _SpectralTransform.apply(norms, x, onto, weight, *flat)


class _SpectralTransform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norms: Sequence[_Norm], x: Tensor, onto: Tensor | None, weight: Tensor, *flat: Tensor
    ) -> Tensor:
        layers = [_Layer(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
        normed = [_normed(_mix(x, layers[0].weight), layers[0], norms[0])]
        h = _activated(normed[0])
        for number, (unit, norm) in enumerate(zip(layers[1:], norms[1:], strict=True)):
            spectrum = _spectrum(h, unit.weight, local=number == 1)
            normed.append(_normed(_mix(spectrum, unit.weight), unit, norm))
        mixed = _sum_of_units(h, normed[1:])
        ctx.norms = norms
        ctx.layers = len(layers)
        ctx.save_for_backward(x, weight, *flat, *(tensor for each in normed for tensor in each))
        if onto is None:
            return _mix(mixed, weight)
        ctx.mark_dirty(onto)
        _add_product(onto[:, onto.shape[1] - weight.shape[0] :], mixed, weight)
        return onto

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, weight, *flat = ctx.saved_tensors
        layers = [_Layer(*flat[i : i + 3]) for i in range(0, 3 * ctx.layers, 3)]
        states = flat[3 * ctx.layers :]
        normed = [_Normed(*states[i : i + 5]) for i in range(0, len(states), 5)]
        own = grad[:, grad.shape[1] - weight.shape[0] :]
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            inputs = [x, weight, *flat[: 3 * ctx.layers]]
            result = _by_operations(x, weight, layers, ctx.norms)
            grads = torch.autograd.grad(result, inputs, own, create_graph=True)
        else:
            grads = _gradients(own, x, weight, layers, normed, ctx.norms)
        return None, grads[0], grad if ctx.needs_input_grad[2] else None, *grads[1:]


def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    layers: Sequence[_Layer],
    normed: Sequence[_Normed],
    norms: Sequence[_Norm],
) -> list[Tensor]:
    """Of x, weight and the layers' tensors."""
    h = _activated(normed[0])
    grad_weight = _weight_gradient(grad, _sum_of_units(h, normed[1:]), weight)
    grad_mixed = _mix_back(grad, weight)
    # Both units read the gradient of their sum before it becomes that of h.
    opened = [
        native.rfft2(grad_mixed, tiles=number == 1, inner=2.0, gate=each.x, norm=(each.scale, each.shift))
        for number, each in enumerate(normed[1:])
    ]
    grad_h, of_units = grad_mixed, []
    for number, (unit, each, norm, gated) in enumerate(
        zip(layers[1:], normed[1:], norms[1:], opened, strict=True)
    ):
        local = number == 1
        grad_unit, *of_norm = _norm_gradients(gated, each, unit, norm)
        spectrum = _spectrum(h, unit.weight, local=local)
        of_units += [_weight_gradient(grad_unit, spectrum, unit.weight), *of_norm]
        _add_inverse(grad_h, _mix_back(grad_unit, unit.weight), local=local)
    grad_first, *of_norm = _norm_gradients(grad_h * (h > 0), normed[0], layers[0], norms[0])
    of_first = [_weight_gradient(grad_first, x, layers[0].weight), *of_norm]
    return [_mix_back(grad_first, layers[0].weight), grad_weight, *of_first, *of_units]


def _by_operations(x: Tensor, weight: Tensor, layers: Sequence[_Layer], norms: Sequence[_Norm]) -> Tensor:
    """The same function of torch's operations, which can be differentiated any number of times."""

    def normed_relu(x: Tensor, layer: _Layer, norm: _Norm) -> Tensor:
        statistics = (None, None) if norm.by_batch else (norm.mean, norm.var)
        y = F.batch_norm(x, *statistics, layer.gamma, layer.beta, norm.by_batch, 0.0, norm.eps)
        return F.relu(y)

    h = mixed = normed_relu(_mix(x, layers[0].weight), layers[0], norms[0])
    for number, (unit, norm) in enumerate(zip(layers[1:], norms[1:], strict=True)):
        part = parts_to_channels(h[:, : unit.weight.shape[1] // 8], _AXES) if number else h
        spectrum = normed_relu(_mix(rfftn(part, _AXES), unit.weight), unit, norm)
        y = irfftn(spectrum, _AXES, part.shape[-1])
        mixed = mixed + (tile(y, _AXES, h.shape[2:]) if number else y)
    return _mix(mixed, weight)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C), a view where a pixel's channels are adjacent."""
    return native.channels_adjacent(x).permute(0, 2, 3, 1).flatten(0, 2)


def _mix(x: Tensor, weight: Tensor) -> Tensor:
    """The 1x1 convolution."""
    N, _, H, W = x.shape
    return (_rows(x) @ weight.flatten(1).t()).view(N, H, W, -1).permute(0, 3, 1, 2)


def _mix_back(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of a 1x1 convolution's input."""
    N, _, H, W = grad.shape
    return (_rows(grad) @ weight.flatten(1)).view(N, H, W, -1).permute(0, 3, 1, 2)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return (_rows(grad).t() @ _rows(x)).view_as(weight)


def _add_product(y: Tensor, x: Tensor, weight: Tensor) -> None:
    """y += the 1x1 convolution of x."""
    if y.stride(1) == 1:
        y.permute(0, 2, 3, 1).flatten(0, 2).addmm_(_rows(x), weight.flatten(1).t())
    else:
        y += _mix(x, weight)


def _normed(x: Tensor, layer: _Layer, norm: _Norm) -> _Normed:
    """Runs a norm but for its last step, which is left to whoever reads x next."""
    if norm.mean is not None and norm.var is not None and not norm.by_batch:
        mean, invstd = norm.mean, torch.rsqrt(norm.var + norm.eps)
    else:
        arguments = (layer.gamma, layer.beta, norm.mean, norm.var, True, norm.momentum, norm.eps)
        _, mean, invstd = torch.native_batch_norm(x, *arguments)
    scale = layer.gamma * invstd
    return _Normed(x, mean, invstd, scale, torch.addcmul(layer.beta, mean, scale, value=-1))


def _norm_gradients(grad: Tensor, normed: _Normed, layer: _Layer, norm: _Norm) -> tuple[Tensor, ...]:
    """Of the norm's input, weight and bias."""
    return torch.ops.aten.native_batch_norm_backward(
        grad,
        normed.x,
        layer.gamma,
        norm.mean,
        norm.var,
        normed.mean,
        normed.invstd,
        norm.by_batch,
        norm.eps,
        [True, True, True],
    )


def _activated(normed: _Normed) -> Tensor:
    rows = torch.addcmul(normed.shift, _rows(normed.x), normed.scale).relu_()
    N, _, H, W = normed.x.shape
    return rows.view(N, H, W, -1).permute(0, 3, 1, 2)


def _spectrum(h: Tensor, weight: Tensor, *, local: bool) -> Tensor:
    """What a unit's mixing reads, of the map or of the quadrants of its first channels."""
    if not local:
        return native.rfft2(h)
    cut = h[:, : weight.shape[1] // 8]
    bottom, right = h.shape[2] % 2, h.shape[3] % 2
    if bottom or right:
        cut = F.pad(cut, (0, right, 0, bottom), mode="replicate")
    return native.rfft2(cut, quarters=True)


def _add_inverse(h: Tensor, spectrum: Tensor, *, local: bool) -> None:
    """Adds to a gradient of h what comes from that of the spectrum."""
    H, W = h.shape[2:]
    # The transform counts each inner column twice, for the half plane left out; a gradient counts once.
    if not local:
        native.irfft2(spectrum, (H, W), inner=0.5, residual=h, out=h)
        return
    cut = h[:, : spectrum.shape[1] // 8]
    if H % 2 == 0 and W % 2 == 0:
        native.irfft2(spectrum, (H, W), quarters=True, inner=0.5, residual=cut, out=cut)
        return
    padded = native.irfft2(spectrum, (H + H % 2, W + W % 2), quarters=True, inner=0.5)
    # The padding repeats the last row and column: theirs is its gradient.
    if W % 2:
        padded[..., W - 1] += padded[..., W]
    if H % 2:
        padded[..., H - 1, :] += padded[..., H, :]
    cut += padded[..., :H, :W]


def _sum_of_units(h: Tensor, units: Sequence[_Normed]) -> Tensor:
    """h + fu(h) + lfu(h), from what the units' norms have read."""
    size = (h.shape[2], h.shape[3])
    mixed = h
    for number, unit in enumerate(units):
        options = {"relu": True, "norm": (unit.scale, unit.shift), "tiles": number == 1}
        mixed = native.irfft2(unit.x, size, residual=mixed, out=mixed if number else None, **options)
    return mixed
