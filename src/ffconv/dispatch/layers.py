"""Runs a layer as one operator where nothing can be seen between its parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ffconv import functional
from ffconv.backends import dft_matmul
from ffconv.dispatch import operators, table
from ffconv.dispatch.decompose import is_plain_tensor, must_decompose
from ffconv.dispatch.fft_backend import current_fft_backend
from ffconv.functional.geometry import ConvGeometry

_Class = TypeVar("_Class", bound=type)

_CONVS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


class SpectralParts(NamedTuple):
    """The parts of a Spectral Transform, or of a Fourier Unit, as an operator takes them."""

    tensors: list[Tensor]
    eps: list[float]
    batch_stats: list[bool]
    norms: list[Any]


def fused(kind: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorate the forward of a layer: run it as one operator, or as written where its parts must run.

    Args:
        kind: "ffc", "spectral_transform" or "fourier_unit".
    """

    def decorate(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        run = _KINDS[kind]

        @functools.wraps(forward)
        def run_or_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = run(self, x, *args, **kwargs)
            return forward(self, x, *args, **kwargs) if y is None else y

        return run_or_forward

    return decorate


def own_type(cls: _Class) -> _Class:
    """Mark a class whose instances may run as part of an operator. Subclasses are not marked."""
    cls.own_type = cls  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def ffc(layer: Any, x: Tensor) -> Tensor | None:
    """Run an FFC as one operator, or return None where its parts must run. Takes a map without a batch, too."""
    if isinstance(x, Tensor) and x.dim() == layer.dims + 1:
        return layer.forward(x.unsqueeze(0)).squeeze(0)
    call = ffc_call(layer, x)
    if isinstance(call, str):
        return None
    run = table.choose("ffc", call[0]).run
    if run is None:
        return None
    y, stats = run(call[0])
    if stats:
        _update_running_stats(call[1], stats, y)
    return unfold_time(y, x) if x.dim() == 5 else y


def spectral_transform(layer: Any, x: Tensor, geometry: ConvGeometry | None = None) -> Tensor | None:
    """Run a Spectral Transform as one operator, or return None where its parts must run."""
    return _run_spectral(spectral_call(layer, x, geometry), x)


def fourier_unit(layer: Any, x: Tensor) -> Tensor | None:
    """Run a Fourier Unit as one operator, or return None where its parts must run."""
    return _run_spectral(unit_call(layer, x), x)


def _run_spectral(call: tuple[table.SpectralCall, list[Any]] | str, x: Tensor) -> Tensor | None:
    if isinstance(call, str):
        return None
    run = table.choose("spectral_transform", call[0]).run
    if run is None:
        return None
    y, stats = run(call[0])
    if stats:
        _update_running_stats(call[1], stats, y)
    y = unfold_time(y, x) if x.dim() == 5 else y
    if torch.is_autocast_enabled(x.device.type):
        return y.to(torch.get_autocast_dtype(x.device.type) if len(call[0].eps) > 1 else x.dtype)
    return y


def ffc_call(layer: Any, x: Tensor) -> tuple[table.FFCCall, list[Any]] | str:
    """Return the operator's call for an FFC and the norms inside, or the reason why its parts must run."""
    if reason := _cannot_fuse(x):
        return reason
    if x.dim() != layer.dims + 2 or x.shape[1] != layer.in_channels:
        return "the map has another shape than the layer"
    parts = image_parts(layer)
    if isinstance(parts, str):
        return parts
    geometry, weights = layer.geometry, (layer.weight_l2l, layer.weight_l2g, layer.weight_g2l)
    if layer.dims == 3:
        if reason := table.cpu_refuses(x):
            return reason
        geometry, x, weights = geometry.last_axes(2), fold_time(x), _squeezed(weights)
    size = output_size(geometry, x)
    return table.FFCCall(x, weights, layer.bias, *parts[:3], geometry, size), parts.norms


def output_size(geometry: ConvGeometry, x: Tensor) -> tuple[int, ...]:
    """Return the size of a convolution's result for x."""
    if torch.compiler.is_compiling():
        return geometry.output_size(x.shape[2:])
    return _cached_output_size(geometry, x.shape[2:])


@functools.lru_cache(maxsize=4096)
def _cached_output_size(geometry: ConvGeometry, size: tuple[int, ...]) -> tuple[int, ...]:
    return geometry.output_size(size)


def image_parts(layer: Any) -> SpectralParts | str:
    """Return the Spectral Transform of an FFC of images or frames, or the reason why it is none or has parts to run.

    Without a Spectral Transform the parts are empty.
    """
    if layer.groups > 1:
        return f"groups={layer.groups}: each path has convolutions of its own"
    if layer.dims == 1:
        return "the layer is one-dimensional"
    if layer.dims == 3 and not layer.geometry.is_framewise:
        return "the layer is not framewise"
    spectral = layer._modules.get("spectral")
    if spectral is None:
        return SpectralParts([], [], [], [])
    if reason := _unusual(spectral):
        return f"spectral {reason}"
    if reason := _not_of_images(layer.axes):
        return reason
    parts = spectral_parts(spectral)
    return (
        parts
        if isinstance(parts, str) or layer.dims == 2
        else parts._replace(tensors=_squeezed(parts.tensors))
    )


def fused_ffc(layer: Any, x: Tensor, residual: Tensor | None = None) -> Tensor | None:
    """Run a fused FFC as one operator with packed weights, or return None where plain torch must run.

    Takes a map without a batch, too, and any residual that broadcasts.
    """
    if isinstance(x, Tensor) and x.dim() == layer.dims + 1:
        if isinstance(residual, Tensor) and residual.dim() == layer.dims + 1:
            residual = residual.unsqueeze(0)
        return layer.forward(x.unsqueeze(0), residual).squeeze(0)
    if isinstance(x, Tensor) and (x.dim() != layer.dims + 2 or x.shape[1] != layer.in_channels):
        expected = ("N", layer.in_channels, *("T", "H", "W")[-layer.dims :])
        raise ValueError(f"a map of shape {tuple(x.shape)} must have shape ({', '.join(map(str, expected))})")
    found = fused_ffc_call(layer, x, residual)
    if isinstance(found, str):
        return None
    call = found[0]
    run = table.choose("ffc", call).run
    if run is None:
        return None
    if not torch.compiler.is_compiling():
        call = call._replace(packed=_packed(layer, call))
    y, _ = run(call)
    return unfold_time(y, x) if layer.dims == 3 else y


def fused_ffc_call(layer: Any, x: Tensor, residual: Any = None) -> tuple[table.FFCCall, list[Any]] | str:
    """Return the operator's call for a fused FFC, or the reason why plain torch must run."""
    if reason := _cannot_fuse(x):
        return reason
    geometry, weights = layer.geometry, (layer.weight_l2l, layer.weight_l2g, layer.weight_g2l)
    images, added = x, None
    if layer.dims == 3:
        if reason := table.cpu_refuses(x):
            return reason
        geometry, images, weights = geometry.last_axes(2), fold_time(x), _squeezed(weights)
    size = output_size(geometry, images)
    if residual is not None:
        shape = (x.shape[0], layer.out_channels, *x.shape[2:-2], *size)
        if not isinstance(residual, Tensor) or residual.shape != shape:
            return "the residual has another shape than the output"
        added = fold_time(residual) if layer.dims == 3 else residual
    eps = layer.eps
    call = table.FFCCall(
        *(images, weights, layer.bias, layer.spectral_tensors, eps, [False] * len(eps)),
        *(geometry, size, added, layer.relu, layer.packed),
    )
    return call, []


def _packed(layer: Any, call: table.FFCCall) -> Tensor | None:
    """Return the packed weights of a fused FFC for a call, kept as its buffer until a tensor changes."""
    if torch.is_grad_enabled() and call.x.requires_grad:
        return None
    tensors = [t for t in (*call.weights, call.bias, *call.tensors) if t is not None]
    if any(tensor.is_inference() for tensor in tensors):  # without version counters
        return None
    key = (call.x.shape[1:], [tensor._version for tensor in tensors])
    if layer.packed_key != key:
        layer.packed, layer.packed_key = table.pack(call), key
    return layer.packed


def spectral_call(
    layer: Any, x: Tensor, geometry: ConvGeometry | None = None
) -> tuple[table.SpectralCall, list[Any]] | str:
    """Return the operator's call for a Spectral Transform and its norms, or why its parts must run."""
    if reason := _cannot_fuse(x):
        return reason
    parts = spectral_parts(layer)
    return parts if isinstance(parts, str) else _call_of_maps(layer, x, parts, geometry or layer.geometry)


def unit_call(layer: Any, x: Tensor) -> tuple[table.SpectralCall, list[Any]] | str:
    """Return the operator's call for a Fourier Unit and its norm, or the reason why its parts must run."""
    if reason := _cannot_fuse(x):
        return reason
    parts = _stack([(layer._modules["conv"], layer._modules["bn"])])
    return parts if isinstance(parts, str) else _call_of_maps(layer, x, parts, None)


def _call_of_maps(
    layer: Any, x: Tensor, parts: SpectralParts, geometry: ConvGeometry | None
) -> tuple[table.SpectralCall, list[Any]] | str:
    dims = layer.axes.dims
    if reason := _not_of_images(layer.axes):
        return reason
    in_channels = parts.tensors[0].shape[1] // (2 if len(parts.eps) == 1 else 1)
    if x.dim() != dims + 2 or x.shape[1] != in_channels:
        return "the map has another shape than the layer"
    if torch.is_autocast_enabled("cpu") and x.is_cpu:
        x = x.float()
    if dims == 3:
        if geometry is not None and not geometry.is_framewise:
            return "the layer is not framewise"
        if reason := table.cpu_refuses(x):
            return reason
        x, parts = fold_time(x), parts._replace(tensors=_squeezed(parts.tensors))
        geometry = None if geometry is None else geometry.last_axes(2)
    return table.SpectralCall(x, *parts[:3], geometry), parts.norms


def spectral_parts(spectral: Any) -> SpectralParts | str:
    """Return the tensors of a Spectral Transform, or the reason why its parts must run."""
    own = spectral._modules
    pairs = [(own["conv1"], own["bn1"])]
    for name in ("fu", "lfu"):
        unit: Any = own.get(name) or None
        if name == "lfu" and not unit:
            continue
        if reason := _unusual(unit):
            return f"{name} {reason}"
        pairs.append((unit._modules["conv"], unit._modules["bn"]))
    parts = _stack(pairs)
    if isinstance(parts, str):
        return parts
    if reason := _unusual_conv(own["conv2"]):
        return f"conv2 {reason}"
    parts.tensors.append(own["conv2"]._parameters["weight"])
    return parts


def _stack(pairs: Sequence[tuple[Any, Any]]) -> SpectralParts | str:
    parts = SpectralParts([], [], [], [])
    for conv, norm in pairs:
        if reason := _unusual_conv(conv) or _unusual_norm(norm):
            return f"a layer of the Spectral Transform {reason}"
        weight, bias = norm._parameters["weight"], norm._parameters["bias"]
        mean, var = norm._buffers["running_mean"], norm._buffers["running_var"]
        by_batch = norm.training or mean is None
        # Without statistics the operator reads none.
        statistics = (weight, weight) if mean is None else (mean, var)
        parts.tensors.extend((conv._parameters["weight"], weight, bias, *statistics))
        parts.eps.append(norm.eps)
        parts.batch_stats.append(by_batch)
        parts.norms.append(norm)
    return parts


def _cannot_fuse(x: Any) -> str | None:
    """Return the reason why no layer may run as one operator, or None."""
    if not is_plain_tensor(x):
        return f"the input is a {type(x).__name__}"
    if reason := must_decompose():
        return reason
    if current_fft_backend() == "dft_matmul":
        return 'fft_backend("dft_matmul") runs matrix products that torch differentiates and exports'
    if _has_global_hooks():
        return "global hooks watch all modules"
    return None


def _has_global_hooks() -> bool:
    return bool(
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def is_watched(module: Any) -> bool:
    """Return True if a module has hooks, or another forward than its class."""
    return (
        len(module._forward_hooks) > 0
        or len(module._forward_pre_hooks) > 0
        or len(module._backward_hooks) > 0
        or len(module._backward_pre_hooks) > 0
        or "forward" in module.__dict__
    )


def _unusual(module: Any) -> str | None:
    """Return None if a module is one of ours as built, or the reason why it must be called."""
    if getattr(type(module), "own_type", None) is not type(module):
        return f"is a {type(module).__name__}"
    return "has hooks or a replaced forward" if is_watched(module) else None


def _unusual_conv(conv: Any) -> str | None:
    if type(conv) not in _CONVS:
        return f"is a {type(conv).__name__}"
    if is_watched(conv):
        return "has hooks or a replaced forward"
    weight = conv._parameters.get("weight")
    if weight is None:
        return "has a computed weight"
    if conv.groups != 1 or conv._parameters["bias"] is not None:
        return "has groups or a bias"
    if (
        weight.numel() != weight.size(0) * weight.size(1)
        or conv.stride not in _ONES
        or conv.padding not in _ZEROS
    ):
        return "is no 1x1 convolution of stride 1"
    return None


_ONES, _ZEROS = ((1, 1), (1, 1, 1)), ((0, 0), (0, 0, 0), "same", "valid")


def _unusual_norm(norm: Any) -> str | None:
    if type(norm) not in _NORMS:
        return f"is a {type(norm).__name__}"
    if is_watched(norm):
        return "has hooks or a replaced forward"
    if norm._parameters.get("weight") is None or norm._parameters.get("bias") is None:
        return "has no weight or bias, or a computed one"
    return None


def _not_of_images(axes: Any) -> str | None:
    """Return None if images or whole frames are transformed, or the reason why the operators do not fit."""
    if axes.dims == 1 or axes.spectral != (axes.dims, axes.dims + 1):
        return f"the axes {axes.spectral} are transformed, not those of images or frames"
    return "the Spectral Transform has a kernel in time" if max(axes.kernel_size) > 1 else None


def _squeezed(tensors: Any) -> Any:
    """Return weights of clips that are 1 in time as those of images."""
    return type(tensors)(t.squeeze(2) if t is not None and t.dim() == 5 else t for t in tensors)


def fold_time(clips: Tensor) -> Tensor:
    """Return the frames of clips as images: (N, C, T, H, W) -> (N T, C, H, W), channels last in memory."""
    return clips.contiguous(memory_format=torch.channels_last_3d).transpose(1, 2).flatten(0, 1)


def unfold_time(frames: Tensor, clips: Tensor) -> Tensor:
    """Undo :func:`fold_time`, in the memory format of the clips."""
    y = frames.unflatten(0, (clips.shape[0], clips.shape[2])).transpose(1, 2)
    return y if clips.stride(1) == 1 else y.contiguous()


@torch.no_grad()
def _update_running_stats(norms: Sequence[Any], stats: Sequence[Tensor], y: Tensor) -> None:
    """Update the norms as their own forward would, from the means and variances of a batch.

    Args:
        norms: Of conv1, the Fourier Unit and the Local Fourier Unit, or of a Fourier Unit alone.
        stats: A mean and a variance for each of them that uses the statistics of the batch.
        y: The result, whose size is that of the transformed map.
    """
    height, width = y.shape[-2:]
    half = ((height + 1) // 2, (width + 1) // 2)
    unit_sizes = [height * (width // 2 + 1), half[0] * (half[1] // 2 + 1)]
    sizes = unit_sizes if len(norms) == 1 else [height * width, *unit_sizes]
    left = iter(stats)
    for norm, size in zip(norms, sizes, strict=False):
        if not norm.training and norm.running_mean is not None:
            continue
        mean, var = next(left), next(left)
        if norm.running_mean is None:
            continue
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        count: Any = norm.num_batches_tracked
        momentum = 1.0 / count.to(mean.dtype) if norm.momentum is None else norm.momentum
        values = y.shape[0] * size
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_(var.to(norm.running_var.dtype) * (values / (values - 1)), momentum)


def rfftn(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Run :func:`ffconv.functional.rfftn` by the backend in force; half precision is transformed in float32."""
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    backend = current_fft_backend()
    if backend == "dft_matmul":
        return dft_matmul.rfftn(x, axes)
    if must_decompose() or not is_plain_tensor(x):
        return functional.rfftn(x, axes)
    return operators.ops.rfftn(x, axes, backend, 1.0)


def irfftn(spectrum: Tensor, axes: Sequence[int], width: int) -> Tensor:
    """Run :func:`ffconv.functional.irfftn` by the backend in force; half precision is transformed in float32."""
    spectrum = spectrum if spectrum.dtype in (torch.float32, torch.float64) else spectrum.float()
    backend = current_fft_backend()
    if backend == "dft_matmul":
        return dft_matmul.irfftn(spectrum, axes, width)
    if must_decompose() or not is_plain_tensor(spectrum):
        return functional.irfftn(spectrum, axes, width)
    return operators.ops.irfftn(spectrum, axes, width, backend, 1.0)


_KINDS: dict[str, Callable[..., Tensor | None]] = {
    "ffc": ffc,
    "spectral_transform": spectral_transform,
    "fourier_unit": fourier_unit,
    "fused_ffc": fused_ffc,
}
