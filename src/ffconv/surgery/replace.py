"""Turn convolutions into FFCs: weights, flags and hooks go along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from ffconv.errors import require
from ffconv.nn import FFCNd
from ffconv.surgery.channels import is_depthwise
from ffconv.surgery.rules import Plan
from ffconv.surgery.trace import FFC_OF, Convolution

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_HOOKS_TO_COUNT = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """What all FFCs of a network have in common."""

    lfu: bool = True
    local_to_global: bool = True
    global_to_local: bool = True
    spectral_dims: tuple[str, ...] | None = None
    zero_init_spectral: bool = False

    def __post_init__(self) -> None:
        for name in ("lfu", "local_to_global", "global_to_local", "zero_init_spectral"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name}={value!r} must be true or false")


def find_unfit(model: nn.Module, modules: Mapping[str, Convolution]) -> dict[str, str]:
    """The convolutions that can be no FFC, whatever the ratios, and why."""
    owners = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    reasons: dict[str, str] = {}
    for name, module in modules.items():
        reason = _why_unfit(module)
        if reason is None and name == "":
            reason = "the model itself"
        if reason is None and owners[id(module.weight)] > 1:
            reason = "shares its weight with another module"
        if reason is not None:
            reasons[name] = reason
    return reasons


def _why_unfit(module: Convolution) -> str | None:
    kind = type(module)
    if isinstance(module, FFCNd):
        return "already an FFC"
    if isinstance(module, _ConvTransposeNd):
        return "transposed"
    if kind not in FFC_OF:
        return f"unknown subclass {kind.__name__}"
    if is_depthwise(module.groups, module.in_channels):
        return "depthwise"
    if module._parameters.get("weight") is None:
        return "weight computed by a hook"
    return None if module.weight.is_floating_point() else f"weight of type {module.weight.dtype}"


def why_misfit(module: Convolution, plan: Plan, options: Options) -> str | None:
    """The rule that an FFC of this plan would break, or None."""
    if module.groups == 1:  # all else is as in the convolution
        return None
    try:
        FFC_OF[type(module)](**_arguments(module, plan, options), device="meta")
    except ValueError as error:
        return str(error)
    return None


def become_ffcs(plans: Mapping[Convolution, Plan], options: Options) -> None:
    """Turn convolutions into FFCs, with their weights, flags and hooks.

    The objects stay the same, so that whatever holds them (the network, but also its lists, dicts, partials
    and closures) holds the FFCs. Where one fails, all are convolutions again.
    """
    before: list[tuple[Any, type, dict[str, Any]]] = [(one, type(one), dict(vars(one))) for one in plans]
    try:
        for module, plan in plans.items():
            _become_ffc(module, plan, options)
    except BaseException:
        for module, kind, state in before:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(state)
        raise


def _become_ffc(module: Any, plan: Plan, options: Options) -> None:
    weight, bias, training = module.weight, module.bias, module.training
    kind, arguments = FFC_OF[type(module)], _arguments(module, plan, options)
    hooks = {name: getattr(module, name) for name in _HOOKS}
    module.__class__ = kind
    vars(module).clear()
    kind.__init__(module, **arguments, device=weight.device)
    module.load_dense_weight(weight, bias)
    # Where it is the only source of the global channels, zeros would make them constant.
    if options.zero_init_spectral and module.spectral is not None and module.weight_l2g is not None:
        nn.init.zeros_(module.spectral.conv2.weight)
    module.requires_grad_(weight.requires_grad)
    if bias is not None:
        module.bias.requires_grad_(bias.requires_grad)
    match_memory_format(module, weight)
    vars(module).update(hooks)
    module.train(training)


def match_memory_format(new: nn.Module, weight: torch.Tensor) -> None:
    """Lay a module's weights out with channels last if the weight of the one before it was."""
    before = _CHANNELS_LAST.get(weight.dim())
    after = _CHANNELS_LAST.get(max(parameter.dim() for parameter in new.parameters()))
    if before and after and weight.is_contiguous(memory_format=before) and not weight.is_contiguous():
        new.to(memory_format=after)


def take_place(new: Layer, old: nn.Module) -> Layer:
    """Give a module the hooks and the mode of the one whose place it takes."""
    for name in _HOOKS:
        # The very dictionaries, so that the handles that were given out still remove their hooks.
        setattr(new, name, getattr(old, name))
    return new.train(old.training)


def count_hooks(module: nn.Module) -> int:
    """Number of forward and backward hooks of a module."""
    return sum(len(getattr(module, name)) for name in _HOOKS_TO_COUNT)


def _arguments(module: Convolution, plan: Plan, options: Options) -> dict[str, Any]:
    """Return the arguments of the FFC that a convolution becomes, apart from the device."""
    geometry: dict[str, Any] = {name: getattr(module, name) for name in _GEOMETRY}
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "bias": module.bias is not None,
        "ratio_in": plan.ratio_in,
        "ratio_out": plan.ratio_out,
        "lfu": options.lfu,
        # A path that is a part's only one stays: where the global channels begin and where they end.
        "local_to_global": options.local_to_global or not (plan.ratio_in > 0 and plan.ratio_out < 1),
        "global_to_local": options.global_to_local or not (plan.ratio_in < 1 and plan.ratio_out > 0),
        "spectral_dims": options.spectral_dims,
        "dtype": next(module.parameters()).dtype,
        **geometry,
    }
