"""From networks of images to networks of clips."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ffconv.errors import InputError, require
from ffconv.surgery.inflate_layers import (
    FRAME,
    INFLATERS,
    TEMPORAL_PADDINGS,
    WHOLE,
    WITH_TIME,
    Temporal,
    TemporalPadding,
    repeat_over_time,
    why_not,
)
from ffconv.surgery.replace import match_memory_format, take_place
from ffconv.surgery.still import check_still_clip

TemporalRule = Callable[[str, nn.Module], Temporal]
"""What a convolution or pooling of this name sees of time."""

Network = TypeVar("Network", bound=nn.Module)


def inflate(
    model: Network,
    temporal: Mapping[str, Temporal | int] | TemporalRule | None = None,
    *,
    temporal_padding: TemporalPadding = "zeros",
    example_input: Tensor | None = None,
) -> Network:
    """Turn a network of images into one of clips (N, C, T, H, W), in place.

    Convolutions and FFCs get kernels t x h x w, their weights repeated over time and divided by t; norms,
    pooling and dropout become those of clips; global pooling takes time as well. Without ``temporal`` all
    kernels have t = 1 and each frame is treated alone: what the paper calls C2D. That such a network gives
    for a clip that stands still what it gave for the image is tried out, module by module, before anything is
    changed; what does not is named.

    Args:
        model: any network. Layers of clips that it has already stay.
        temporal: which layers see more of time than a frame, by ``fnmatch`` patterns of the names of
            convolutions and poolings, the first that matches counts: the kernel's size in time, or a
            :class:`Temporal` with stride. Or a function of name and layer.
        temporal_padding: what surrounds a clip: "zeros", or "replicate" for its first and last frame. With
            the latter a clip that stands still gives what the image gave for every kernel.
        example_input: images (N, C, H, W) for the trial. By default those of :func:`ffconv.convert`. A
            network on the meta device is not tried out.
    Returns:
        The model; a new module where the model itself is a layer.
    Raises:
        InputError: if a layer cannot be inflated, a pattern matches nothing, a kernel of a convolution is
            even, or the trial fails. The model is unchanged then.
    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1))
        >>> inflate(net, {"0": 3}, example_input=torch.zeros(1, 3, 5, 5))(torch.zeros(2, 3, 4, 9, 9)).shape
        torch.Size([2, 8, 1, 1, 1])
    """
    plans = _plans(model, temporal)
    of_images = any(type(module) in INFLATERS for _, module in _parts(model))
    if of_images and not any(parameter.is_meta for parameter in model.parameters()):
        frames = inflate_layers(copy.deepcopy(model), dict.fromkeys(plans, FRAME), temporal_padding)
        check_still_clip(model, frames, example_input)
    return inflate_layers(model, plans, temporal_padding)


def inflate_layers(
    model: Network, temporal: Mapping[str, Temporal], temporal_padding: TemporalPadding = "zeros"
) -> Network:
    """As :func:`inflate`, but not tried out: for networks that are known to have nothing of images left.

    Args:
        model: the network.
        temporal: what the layers of these names see of time; all others see a frame.
        temporal_padding: as for :func:`inflate`.
    """
    require(
        temporal_padding in TEMPORAL_PADDINGS,
        f"temporal_padding={temporal_padding!r} must be one of {TEMPORAL_PADDINGS}",
    )
    faults = {name: reason for name, module in _parts(model) if (reason := why_not(module))}
    if faults:
        listed = ", ".join(f"{name or 'the model'} ({reason})" for name, reason in faults.items())
        raise InputError(f"{type(model).__name__} has layers without a form for clips: {listed}")
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices):  # new layers draw weights that nobody sees
        return _Inflation(temporal, temporal_padding).inflated(model, "")


def _parts(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules by name, without what is inside of those that are replaced as a whole."""
    yield name, module
    if not isinstance(module, WHOLE):
        for key, child in module.named_children():
            yield from _parts(child, f"{name}.{key}" if name else key)


class _Inflation:
    """One walk through a network; a layer that stands in several places is inflated once."""

    def __init__(self, temporal: Mapping[str, Temporal], padding: TemporalPadding) -> None:
        self._temporal = temporal
        self._padding: TemporalPadding = padding
        self._made: dict[nn.Module, nn.Module] = {}

    def inflated(self, module: nn.Module, name: str) -> Any:
        if module in self._made:
            return self._made[module]
        new = module
        if type(module) in INFLATERS:
            new = _layer(module, name, self._temporal.get(name, FRAME), self._padding)
        self._made[module] = self._made[new] = new
        for key, child in list(new._modules.items()):  # named_children leaves out what comes again
            if child is not None:
                setattr(new, key, self.inflated(child, f"{name}.{key}" if name else key))
        return new


def _layer(module: nn.Module, name: str, temporal: Temporal, padding: TemporalPadding) -> nn.Module:
    try:
        new = INFLATERS[type(module)](module, temporal, padding)
    except ValueError as error:
        raise InputError(f"{name or 'the model'}: {error}") from error
    old = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for key, tensor in (*new.named_parameters(), *new.named_buffers()):
            value = old[key]
            if tensor is not value:
                tensor.copy_(repeat_over_time(value, tensor.shape[2]) if tensor.dim() == 5 else value)
                tensor.requires_grad_(value.requires_grad)
    weights = [tensor for tensor in old.values() if tensor.dim() == 4]
    if weights:
        match_memory_format(new, weights[0])
    return take_place(new, module)


def _plans(
    model: nn.Module, temporal: Mapping[str, Temporal | int] | TemporalRule | None
) -> dict[str, Temporal]:
    layers = {name: module for name, module in _parts(model) if isinstance(module, WITH_TIME)}
    if temporal is None:
        return {}
    if callable(temporal):
        plans = {name: temporal(name, module) for name, module in layers.items()}
    else:
        plans = _from_patterns(temporal, list(layers))
    for name, plan in plans.items():
        if isinstance(layers[name], (nn.MaxPool2d, nn.AvgPool2d)):
            continue
        require(plan.kernel % 2 == 1, f"kernel={plan.kernel} in time for {name} must be odd")
    return plans


def _from_patterns(temporal: Mapping[str, Temporal | int], names: list[str]) -> dict[str, Temporal]:
    plans: dict[str, Temporal] = {}
    for pattern, wish in temporal.items():
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise InputError(f"pattern {pattern!r} in temporal matches none of the {len(names)} layers")
        for name in found:
            plans.setdefault(name, Temporal(wish) if isinstance(wish, int) else wish)
    return plans
