"""The operators ``torch.ops.ffconv.*``: schemas, fake kernels, gradients, and rules for vmap and autocast.

Eager code, ``torch.compile``, the profiler and ``torch.fx`` see them as ordinary operators. Second derivatives are
those of :mod:`ffconv.functional`, which the backward pass runs again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ffconv import functional
from ffconv.backends.cpu import kernels
from ffconv.backends.cpu import layers as cpu_layers
from ffconv.dispatch import table
from ffconv.functional.fft import column_weights
from ffconv.functional.geometry import ConvGeometry, decode_geometry

ops: Any = torch.ops.ffconv
_library = torch.library.Library("ffconv", "DEF")


def _operator(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define an operator with the decorated function as its kernel on all devices.

    Under vmap it runs once for each entry of the batch.
    """

    def define(run: Callable[..., Any]) -> Callable[..., Any]:
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.needs_exact_strides,))
        _library.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"ffconv::{name}", fake, lib=_library)
        overload = getattr(ops, name).default
        torch.library.register_vmap(
            f"ffconv::{name}", functools.partial(_vmap_by_loop, overload), lib=_library
        )
        return overload

    return define


def _vmap_by_loop(operator: Callable[..., Any], info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
    dims, _ = pytree.tree_flatten(in_dims, is_leaf=lambda dim: dim is None)
    flat, spec = pytree.tree_flatten(args)
    results = []
    for i in range(info.batch_size):
        picked = [x if dim is None else x.select(dim, i) for x, dim in zip(flat, dims, strict=True)]
        results.append(operator(*pytree.tree_unflatten(picked, spec)))
    leaves, result_spec = zip(*(pytree.tree_flatten(result) for result in results), strict=True)
    stacked = [
        torch.stack(parts) if isinstance(parts[0], Tensor) else None for parts in zip(*leaves, strict=True)
    ]
    batched = pytree.tree_unflatten(stacked, result_spec[0])
    return batched, pytree.tree_map(lambda _: 0, batched)


# Fourier transforms


def empty_channels_last(like: Tensor, shape: Sequence[Any]) -> Tensor:
    """Return an empty tensor (N, C, *size) with channels last in memory."""
    count, channels, *size = shape
    return like.new_empty(count, *size, channels).movedim(-1, 1)


def _fft_shape(x: Tensor, channels: int, axis: int, width: Any) -> list[Any]:
    return [x.shape[0], channels, *x.shape[2:axis], width, *x.shape[axis + 1 :]]


def _fake_rfftn(x: Tensor, axes: Sequence[int], backend: str, inner: float) -> Tensor:
    return empty_channels_last(x, _fft_shape(x, 2 * x.shape[1], axes[-1], x.shape[axes[-1]] // 2 + 1))


def _fake_irfftn(spectrum: Tensor, axes: Sequence[int], width: int, backend: str, inner: float) -> Tensor:
    return empty_channels_last(spectrum, _fft_shape(spectrum, spectrum.shape[1] // 2, axes[-1], width))


@_operator("rfftn(Tensor x, int[] axes, str backend, float inner) -> Tensor", _fake_rfftn)
def rfftn(x: Tensor, axes: Sequence[int], backend: str, inner: float) -> Tensor:
    """Run ``functional.rfftn`` by a backend; ``inner`` is a factor of the columns between kx = 0 and W / 2."""
    return table.run_fft(table.FFTCall(x, axes, None, backend, inner))


@_operator(
    "irfftn(Tensor spectrum, int[] axes, SymInt width, str backend, float inner) -> Tensor", _fake_irfftn
)
def irfftn(spectrum: Tensor, axes: Sequence[int], width: int, backend: str, inner: float) -> Tensor:
    """Run ``functional.irfftn`` by a backend, as :func:`rfftn`."""
    return table.run_fft(table.FFTCall(spectrum, axes, width, backend, inner))


def _remember_rfftn(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.axes, ctx.backend, ctx.inner = inputs
    ctx.width = x.shape[ctx.axes[-1]]


def _remember_irfftn(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ctx.axes, _, ctx.backend, ctx.inner = inputs


def _is_batched(grad: Tensor) -> bool:
    """Return True for a batch of gradients by ``is_grads_batched``, whose vmap takes no rules for operators."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_legacy_batchedtensor(grad)  # pyright: ignore


def _rfftn_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    if _is_batched(grad):
        weights = column_weights(ctx.inner / 2, ctx.width, grad, ctx.axes[-1])
        return functional.irfftn(grad * weights, ctx.axes, ctx.width), None, None, None
    # The inverse counts each inner column twice, for the half plane that is left out; a gradient counts once.
    return ops.irfftn(grad, ctx.axes, ctx.width, ctx.backend, ctx.inner / 2), None, None, None


def _irfftn_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    if _is_batched(grad):
        spectrum = functional.rfftn(grad, ctx.axes)
        weights = column_weights(2 * ctx.inner, grad.shape[ctx.axes[-1]], spectrum, ctx.axes[-1])
        return spectrum * weights, None, None, None, None
    return ops.rfftn(grad, ctx.axes, ctx.backend, 2 * ctx.inner), None, None, None, None


# The Spectral Transform


def _is_channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1 and (x.stride(3) > 1 or x.shape[1] == 1)


def _like_input(x: Tensor, shape: Sequence[Any]) -> Tensor:
    """Return an empty map in the memory format of x."""
    return empty_channels_last(x, shape) if _is_channels_last(x) else x.new_empty(shape)


def _spectral_shape(x: Tensor, tensors: Sequence[Tensor]) -> list[Any]:
    return [x.shape[0], x.shape[1] if len(tensors) == 5 else tensors[-1].shape[0], *x.shape[2:]]


def _fake_spectral(x: Tensor, tensors: Sequence[Tensor], eps: Sequence[float]) -> Tensor:
    return _like_input(x, _spectral_shape(x, tensors))


@_operator("spectral_transform(Tensor x, Tensor[] tensors, float[] eps) -> Tensor", _fake_spectral)
def spectral_transform(x: Tensor, tensors: Sequence[Tensor], eps: Sequence[float]) -> Tensor:
    """Run ``functional.spectral_transform`` with running statistics."""
    layers, conv2 = (tensors, None) if len(tensors) == 5 else (tensors[:-1], tensors[-1])
    return kernels.spectral_transform(x, layers, eps, conv2)


def _fake_stats(tensors: Sequence[Tensor], batch_stats: Sequence[bool]) -> list[Tensor]:
    return [
        torch.empty_like(tensors[5 * i + 1])
        for i, is_batch in enumerate(batch_stats)
        if is_batch
        for _ in "mv"
    ]


def _with_stats(
    tensors: Sequence[Tensor], batch_stats: Sequence[bool], stats: Sequence[Tensor]
) -> list[Tensor]:
    """Return the tensors with the statistics of the batch in place of the running ones that were not used."""
    used, left = list(tensors), iter(stats)
    for i, is_batch in enumerate(batch_stats):
        if is_batch:
            used[5 * i + 3 : 5 * i + 5] = next(left), next(left)
    return used


def _fake_saved(x: Tensor, size: Sequence[Any], tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    return [x.new_empty(shape) for shape in cpu_layers.saved_shapes(x.shape, size, tensors, count)]


def _fake_spectral_training(
    x: Tensor, tensors: Sequence[Tensor], eps: Sequence[float], batch_stats: Sequence[bool]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    y = _like_input(x, _spectral_shape(x, tensors))
    return y, _fake_stats(tensors, batch_stats), _fake_saved(x, x.shape[2:], tensors, len(eps))


@_operator(
    "spectral_transform_training(Tensor x, Tensor[] tensors, float[] eps, bool[] batch_stats)"
    " -> (Tensor, Tensor[], Tensor[])",
    _fake_spectral_training,
)
def spectral_transform_training(
    x: Tensor, tensors: Sequence[Tensor], eps: Sequence[float], batch_stats: Sequence[bool]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run ``functional.spectral_transform``; also return the norms' statistics and what the gradient needs."""
    return cpu_layers.spectral_forward(x, tensors, eps, batch_stats)


def _trainable(tensors: Sequence[Any]) -> list[Any]:
    """Return the tensors without running means and variances."""
    return [tensor for i, tensor in enumerate(tensors) if i % 5 < 3]


def _as_list(grads: Sequence[Any], count: int) -> list[Any]:
    """Undo :func:`_trainable`, with None in the gaps."""
    left = iter(grads)
    return [next(left) if i % 5 < 3 else None for i in range(count)]


def _fake_spectral_backward(
    grad: Tensor, x: Tensor, tensors: Sequence[Tensor], *args: Any
) -> tuple[Tensor, list[Tensor]]:
    return _like_input(x, x.shape), [_fake_grad(tensor) for tensor in _trainable(tensors)]


def _fake_grad(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor)


def _laid_out(grad: Tensor, tensor: Tensor) -> Tensor:
    """Return the gradient of a tensor with that tensor's strides, so that autograd keeps it without a copy."""
    grad = grad.reshape(tensor.shape)
    if grad.stride() == tensor.stride() and not grad._is_view():
        return grad
    return torch.empty_like(tensor).copy_(grad)


@_operator(
    "spectral_transform_backward(Tensor grad, Tensor x, Tensor[] tensors, float[] eps, bool[] batch_stats,"
    " Tensor[] saved) -> (Tensor, Tensor[])",
    _fake_spectral_backward,
)
def spectral_transform_backward(
    grad: Tensor,
    x: Tensor,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    saved: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of x and of the trainable tensors, which hold the statistics that were used."""
    grad_x, grads = cpu_layers.spectral_backward(grad, x, tensors, eps, batch_stats, saved)
    return grad_x, [_laid_out(g, t) for g, t in zip(grads, _trainable(tensors), strict=True)]


# The whole FFC


def _fake_ffc(
    x: Tensor,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    geometry: Sequence[int],
    *args: Any,
) -> Tensor:
    channels = cpu_layers.out_channels((l2l, l2g, g2l), tensors)
    return _like_input(x, [x.shape[0], channels, *decode_geometry(tuple(geometry)).output_size(x.shape[2:])])


@_operator(
    "ffc(Tensor x, Tensor? l2l, Tensor? l2g, Tensor? g2l, Tensor? bias, Tensor[] tensors, float[] eps,"
    " int[] geometry, Tensor? residual, bool relu, Tensor? packed) -> Tensor",
    _fake_ffc,
)
def ffc(
    x: Tensor,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    geometry: Sequence[int],
    residual: Tensor | None,
    relu: bool,
    packed: Tensor | None,
) -> Tensor:
    """Run ``functional.ffc`` with running statistics, add ``residual``, apply a ReLU if ``relu`` is set.

    ``packed`` holds the same weights as the kernels read them, or is None.
    """
    of = decode_geometry(tuple(geometry))
    size = of.output_size(x.shape[2:])
    return cpu_layers.ffc_inference(x, l2l, l2g, g2l, bias, tensors, eps, of, size, residual, relu, packed)


def _fake_ffc_training(
    x: Tensor,
    pooled: Tensor | None,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    geometry: Sequence[int],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    y = _fake_ffc(x, l2l, l2g, g2l, bias, tensors, eps, geometry)
    if not tensors:
        return y, [], []
    return y, _fake_stats(tensors, batch_stats), _fake_saved(x, y.shape[2:], tensors, len(eps))


_FFC_TRAINING = (
    "Tensor x, Tensor? pooled, Tensor? l2l, Tensor? l2g, Tensor? g2l, Tensor? bias, Tensor[] tensors, float[] eps,"
    " bool[] batch_stats, int[] geometry"
)


@_operator(f"ffc_training({_FFC_TRAINING}) -> (Tensor, Tensor[], Tensor[])", _fake_ffc_training)
def ffc_training(
    x: Tensor,
    pooled: Tensor | None,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    geometry: Sequence[int],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run ``functional.ffc`` on a padded map; also return the norms' statistics and what the gradient needs.

    ``pooled`` is the input of the Spectral Transform, or None if it is the last channels of x.
    """
    of = decode_geometry(tuple(geometry))
    y, stats, saved = cpu_layers.ffc_forward(x, pooled, (l2l, l2g, g2l), bias, tensors, eps, batch_stats, of)
    return _in_format_of(x, y), stats, saved


def _in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """Return y in the memory format of x."""
    return y.contiguous(memory_format=_memory_format(x))


def _memory_format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if _is_channels_last(x) else torch.contiguous_format


def _fake_ffc_backward(
    grad: Tensor,
    needs_x: bool,
    saved: Sequence[Tensor],
    x: Tensor,
    pooled: Tensor | None,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    *args: Any,
) -> tuple[Any, ...]:
    grads = [x if needs_x else None, pooled, l2l, l2g, g2l, bias]
    made = [grad.new_empty(0) if t is None else _fake_grad(t) for t in grads]
    if needs_x:
        made[0] = _like_input(x, x.shape)
    if pooled is not None:
        made[1] = _like_input(pooled, pooled.shape)
    return *made, [_fake_grad(tensor) for tensor in _trainable(tensors)]


@_operator(
    f"ffc_backward(Tensor grad, bool needs_x, Tensor[] saved, {_FFC_TRAINING})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])",
    _fake_ffc_backward,
)
def ffc_backward(
    grad: Tensor,
    needs_x: bool,
    saved: Sequence[Tensor],
    x: Tensor,
    pooled: Tensor | None,
    l2l: Tensor | None,
    l2g: Tensor | None,
    g2l: Tensor | None,
    bias: Tensor | None,
    tensors: Sequence[Tensor],
    eps: Sequence[float],
    batch_stats: Sequence[bool],
    geometry: Sequence[int],
) -> tuple[Any, ...]:
    """Return the gradients of x, pooled, the weights, the bias and the trainable tensors; empty where none is."""
    weights, of = (l2l, l2g, g2l), decode_geometry(tuple(geometry))
    grad = _in_format_of(x, grad)
    grad_x, grad_pooled, grad_weights, grad_bias, grads = cpu_layers.ffc_backward(
        grad, x, pooled, weights, bias, tensors, eps, batch_stats, of, saved, needs_x
    )
    if grad_x is not None:
        grad_x = _in_format_of(x, grad_x)
    grads_of_weights = [
        grad.new_empty(0) if g is None or t is None else _laid_out(g, t)
        for g, t in zip((*grad_weights, grad_bias), (*weights, bias), strict=True)
    ]
    grads_of_maps = [grad.new_empty(0) if g is None else g for g in (grad_x, grad_pooled)]
    return (
        *grads_of_maps,
        *grads_of_weights,
        [_laid_out(g, t) for g, t in zip(grads, _trainable(tensors), strict=True)],
    )


# Gradients. Those of second order, and of the inference operators, run the definition in plain torch again.


def _defined_ffc(
    geometry: ConvGeometry, eps: Sequence[float], batch_stats: Sequence[bool], *inputs: Tensor | None
) -> Tensor:
    """Run the definition of ``ffc_training``; the inputs are its tensors, in order."""
    x, pooled, l2l, l2g, g2l, bias, *tensors = inputs
    weights: Any = (l2l, l2g, g2l)
    y = functional.conv_paths(x, weights, bias, geometry, cpu_layers.out_channels(weights, tensors))  # pyright: ignore
    if not tensors:
        return y
    z = x[:, x.shape[1] - tensors[0].shape[1] :] if pooled is None else pooled  # pyright: ignore
    spectral = functional.spectral_transform(z, tensors, batch_stats=batch_stats, eps=eps)  # pyright: ignore
    return functional.add_global(y, spectral)


def _defined_spectral(
    eps: Sequence[float], batch_stats: Sequence[bool], x: Tensor, *tensors: Tensor
) -> Tensor:
    return functional.spectral_transform(x, tensors, batch_stats=batch_stats, eps=eps)


def _separate(inputs: Sequence[Tensor | None]) -> tuple[list[Any], list[Tensor]]:
    """Return aliases of the inputs, and those of them that need gradients.

    The gradients of aliases end there, also where one input was computed from another.
    """
    with torch.enable_grad():
        aliases = [t.view_as(t) if t is not None and t.requires_grad else t for t in inputs]
    return aliases, [t for t in aliases if t is not None and t.requires_grad]


def _gradients(definition: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor) -> list[Any]:
    """Return the gradients of the inputs of a definition, None where none is needed."""
    create_graph = torch.is_grad_enabled()
    inputs, needed = _separate(inputs)
    with torch.enable_grad():
        found = torch.autograd.grad(
            definition(*inputs), needed, grad, create_graph=create_graph, allow_unused=True
        )
    left = iter(found)
    return [next(left) if t is not None and t.requires_grad else None for t in inputs]


def _second_gradients(
    definition: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    grad: Tensor,
    grad_grads: Sequence[Any],
) -> tuple[Any, list[Any]]:
    """Return the gradients of ``grad`` and of the inputs, from those of the inputs' gradients."""
    create_graph = torch.is_grad_enabled()
    of_needed = [gg for t, gg in zip(inputs, grad_grads, strict=True) if t is not None and t.requires_grad]
    (grad, *inputs), (_, *needed) = _separate(
        [grad if grad.requires_grad else grad.detach().requires_grad_(), *inputs]
    )
    with torch.enable_grad():
        first = torch.autograd.grad(definition(*inputs), needed, grad, create_graph=True, allow_unused=True)
        pairs = [(f, gg) for f, gg in zip(first, of_needed, strict=True) if f is not None and gg is not None]
        if not pairs:
            return None, [None] * len(inputs)
        outputs, of_outputs = zip(*pairs, strict=True)
        of_grad, *found = torch.autograd.grad(
            outputs, [grad, *needed], of_outputs, create_graph=create_graph, allow_unused=True
        )
    left = iter(found)
    return of_grad, [next(left) if t is not None and t.requires_grad else None for t in inputs]


def _no_grad(numbers: Sequence[Any]) -> list[Any] | None:
    """Return the gradient that ``register_autograd`` expects for a list of numbers."""
    return None if numbers else []


def _register(name: str, backward: Callable[..., Any], setup: Callable[..., Any]) -> None:
    torch.library.register_autograd(f"ffconv::{name}", backward, setup_context=setup, lib=_library)


def _setup_ffc(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, l2l, l2g, g2l, bias, tensors, ctx.eps, geometry, residual, ctx.relu, _ = inputs
    ctx.geometry = decode_geometry(tuple(geometry))
    ctx.save_for_backward(x, l2l, l2g, g2l, bias, residual, *tensors)


def _ffc_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    def definition(
        x: Tensor, l2l: Any, l2g: Any, g2l: Any, bias: Any, residual: Any, *tensors: Tensor
    ) -> Tensor:
        options = {"batch_stats": [False] * len(ctx.eps), "eps": ctx.eps}
        y = functional.ffc(x, (l2l, l2g, g2l), bias, tensors, ctx.geometry, **options)
        y = y if residual is None else y + residual
        return y.relu() if ctx.relu else y

    *grads, residual = (found := _gradients(definition, ctx.saved_tensors, grad))[:6]
    return *grads, found[6:], _no_grad(ctx.eps), None, residual, None, None


def _setup_spectral(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, tensors, ctx.eps = inputs
    ctx.save_for_backward(x, *tensors)


def _spectral_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    definition = functools.partial(_defined_spectral, ctx.eps, [False] * len(ctx.eps))
    grad_x, *grads = _gradients(definition, ctx.saved_tensors, grad)
    return grad_x, grads, _no_grad(ctx.eps)


def _setup_spectral_training(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, tensors, ctx.eps, ctx.batch_stats = inputs
    _, stats, saved = output
    ctx.set_materialize_grads(False)
    ctx.count = 1 + len(tensors)
    ctx.save_for_backward(x, *_with_stats(tensors, ctx.batch_stats, stats), *saved)


def _spectral_training_gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    kept = ctx.saved_tensors  # once: activation checkpointing lets each be unpacked once
    (x, *tensors), saved = kept[: ctx.count], kept[ctx.count :]
    if grad is None:
        return None, [None] * len(tensors), *map(_no_grad, (ctx.eps, ctx.batch_stats))
    if _is_batched(grad):
        definition = functools.partial(_defined_spectral, ctx.eps, ctx.batch_stats)
        grad_x, *grads = _gradients(definition, [x, *tensors], grad)
        return grad_x, grads, *map(_no_grad, (ctx.eps, ctx.batch_stats))
    grad_x, grads = ops.spectral_transform_backward(grad, x, tensors, ctx.eps, ctx.batch_stats, saved)
    return grad_x, _as_list(grads, len(tensors)), *map(_no_grad, (ctx.eps, ctx.batch_stats))


def _setup_spectral_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    grad, x, tensors, ctx.eps, ctx.batch_stats, saved = inputs
    ctx.set_materialize_grads(False)
    ctx.count = len(saved)
    ctx.save_for_backward(grad, x, *tensors)


def _spectral_second_gradient(ctx: Any, of_grad_x: Any, of_grads: Any) -> tuple[Any, ...]:
    grad, *inputs = ctx.saved_tensors
    definition = functools.partial(_defined_spectral, ctx.eps, ctx.batch_stats)
    given = [of_grad_x, *_as_list(of_grads, len(inputs) - 1)]
    of_grad, (grad_x, *grads) = _second_gradients(definition, inputs, grad, given)
    return of_grad, grad_x, grads, *map(_no_grad, (ctx.eps, ctx.batch_stats)), [None] * ctx.count


def _setup_ffc_training(ctx: Any, inputs: tuple, output: tuple) -> None:
    *maps, tensors, ctx.eps, ctx.batch_stats, ctx.geometry = inputs
    _, stats, saved = output
    ctx.set_materialize_grads(False)
    ctx.count = 6 + len(tensors)
    ctx.save_for_backward(*maps, *_with_stats(tensors, ctx.batch_stats, stats), *saved)


def _ffc_training_gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    kept = ctx.saved_tensors
    maps, tensors, saved = kept[:6], kept[6 : ctx.count], kept[ctx.count :]
    if grad is None:
        return *([None] * 6), [None] * len(tensors), *map(_no_grad, (ctx.eps, ctx.batch_stats)), None
    if _is_batched(grad):
        definition = functools.partial(
            _defined_ffc, decode_geometry(tuple(ctx.geometry)), ctx.eps, ctx.batch_stats
        )
        grads = _gradients(definition, [*maps, *tensors], grad)
        return *grads[:6], grads[6:], *map(_no_grad, (ctx.eps, ctx.batch_stats)), None
    needs_x = ctx.needs_input_grad[0]
    numbers = (ctx.eps, ctx.batch_stats, ctx.geometry)
    *grads, of_tensors = ops.ffc_backward(grad, needs_x, saved, *maps, tensors, *numbers)
    present = (maps[0] if needs_x else None, *maps[1:])
    grads = [None if t is None else g for g, t in zip(grads, present, strict=True)]
    return *grads, _as_list(of_tensors, len(tensors)), *map(_no_grad, (ctx.eps, ctx.batch_stats)), None


def _setup_ffc_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    grad, _, saved, *maps, tensors, ctx.eps, ctx.batch_stats, geometry = inputs
    ctx.set_materialize_grads(False)
    ctx.geometry = decode_geometry(tuple(geometry))
    ctx.count = len(saved)
    ctx.save_for_backward(grad, *maps, *tensors)


def _ffc_second_gradient(ctx: Any, *of_grads: Any) -> tuple[Any, ...]:
    grad, *inputs = ctx.saved_tensors
    definition = functools.partial(_defined_ffc, ctx.geometry, ctx.eps, ctx.batch_stats)
    *of_maps, of_tensors = of_grads
    of_maps = [None if t is None else gg for t, gg in zip(inputs[:6], of_maps, strict=True)]
    given = [*of_maps, *_as_list(of_tensors, len(inputs) - 6)]
    of_grad, grads = _second_gradients(definition, inputs, grad, given)
    none = map(_no_grad, (ctx.eps, ctx.batch_stats))
    return of_grad, None, [None] * ctx.count, *grads[:6], grads[6:], *none, None


_register("rfftn", _rfftn_backward, _remember_rfftn)
_register("irfftn", _irfftn_backward, _remember_irfftn)
_register("spectral_transform", _spectral_gradient, _setup_spectral)
_register("spectral_transform_training", _spectral_training_gradient, _setup_spectral_training)
_register("spectral_transform_backward", _spectral_second_gradient, _setup_spectral_backward)
_register("ffc", _ffc_gradient, _setup_ffc)
_register("ffc_training", _ffc_training_gradient, _setup_ffc_training)
_register("ffc_backward", _ffc_second_gradient, _setup_ffc_backward)

# Transforms and spectral norms stay in float32 under autocast.
for _name in ("rfftn", "irfftn", "spectral_transform", "spectral_transform_training"):
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"ffconv::{_name}", _device, torch.float32, lib=_library)
