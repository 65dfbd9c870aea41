"""Fits renamed weights to the layers of a given network, tensor by tensor, without touching the network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ffconv.models.non_local import NonLocalBlock
from ffconv.nn import FFC3d, FFCNd, FourierUnit
from ffconv.surgery.inflate_layers import repeat_over_time

Kind = TypeVar("Kind", bound=nn.Module)

_PARTS = ("weight_l2l", "weight_l2g", "weight_g2l")
# Where image networks have their classifier.
CLASSIFIERS = ("fc", "classifier", "head", "heads")
# What torch.compile and distributed wrappers put into names, at any depth.
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


def strip_wrappers(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drops ``_orig_mod.`` and the like, and a first name that all share but the model lacks: ``module.``."""
    stripped = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): tensor
        for name, tensor in tensors.items()
        if name != "n_averaged"  # the counter of torch's AveragedModel
    }
    known = {name.partition(".")[0] for name in model.state_dict()}
    while all("." in name for name in stripped):
        shared = {name.partition(".")[0] for name in stripped}
        if len(shared) != 1 or shared & known:
            break
        stripped = {name.partition(".")[2]: tensor for name, tensor in stripped.items()}
    return stripped


def move_into_backbone(tensors: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """Puts an image network's names below ``backbone.`` where the model holds such a network there.

    Weights of the image network alone lose their classifier, for which a backbone has no place.

    Returns:
        the tensors, and the prefixes of the model's other layers where the weights have none of them.
    """
    own = model.state_dict()
    others = {name.partition(".")[0] for name in own} - {"backbone"}
    if not isinstance(getattr(model, "backbone", None), nn.Module) or not others:
        return tensors, set()

    def below(name: str) -> bool:
        return name.partition(".")[0] not in others

    moved = {
        f"backbone.{name}" if below(name) and not name.startswith("backbone.") else name: tensor
        for name, tensor in tensors.items()
    }
    if not all(map(below, moved)):
        return moved, set()
    heads = tuple(f"backbone.{name}." for name in CLASSIFIERS)
    without_head = {
        name: tensor for name, tensor in moved.items() if name in own or not name.startswith(heads)
    }
    return without_head, {f"{name}." for name in others}


def interleave_parts(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Reorders spectral channels from [all real, all imaginary] to [re0, im0, re1, im1, ...].

    Raises:
        ValueError: if a Fourier Unit has groups: cut from stacked channels they hold real or imaginary parts
            alone, which no grouped convolution on interleaved channels does.
    """
    reordered = dict(tensors)
    for prefix, unit in _modules(model, FourierUnit):
        if unit.groups > 1:
            raise ValueError(
                f"stacked weights do not fit {prefix.rstrip('.') or 'a unit'} with groups={unit.groups}: "
                "stacked groups part real from imaginary, which is another function"
            )
        for name, own in unit.state_dict(prefix=prefix).items():
            tensor = tensors.get(name)
            if tensor is not None and tensor.shape == own.shape:
                for axis in range(min(2, tensor.ndim)):
                    tensor = _interleave(tensor, axis)
                reordered[name] = tensor
    return reordered


def _interleave(tensor: Tensor, axis: int) -> Tensor:
    return tensor.unflatten(axis, (2, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def add_identity_shortcuts(
    tensors: dict[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], set[str]]:
    """Gives a 1x1 shortcut of the network, where the weights have a bare one, the weight that does the same.

    Returns:
        the tensors with those weights, and the prefixes of these shortcuts, whose norms are the identity when
        they are fresh.
    """
    added, prefixes = dict(tensors), set()
    for prefix, module in _modules(model, FFCNd, _ConvNd):
        block, _, rest = prefix.rpartition("downsample.")
        shortcut = f"{block}downsample."
        if rest != "0." or f"{block}conv1.weight" not in tensors:
            continue
        bare = not any(name.startswith(shortcut) for name in tensors)
        keeps_the_map = {*module.kernel_size, *module.stride} == {1}
        if bare and keeps_the_map and module.in_channels == module.out_channels:
            identity = torch.eye(module.in_channels)
            added[f"{prefix}weight"] = identity.reshape(*identity.shape, *module.kernel_size)
            prefixes.add(shortcut)
    return added, prefixes


def fit_convolutions(
    tensors: dict[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Gives each convolution its weight in the form it has there: as one tensor, or as the parts of an FFC.

    Returns:
        the tensors, and by name the ordinary weights whose shape does not fit their FFC, with both shapes.
    """
    fitted, misfits = dict(tensors), {}
    for prefix, conv in _modules(model, _ConvNd):
        parts = [f"{prefix}{part}" for part in _PARTS if f"{prefix}{part}" in fitted]
        if parts == [f"{prefix}weight_l2l"] and isinstance(conv.weight, Tensor):
            fitted[f"{prefix}weight"] = fitted.pop(parts[0])
    for prefix, ffc in _modules(model, FFCNd):
        weight = fitted.pop(f"{prefix}weight", None)
        if weight is None:
            continue
        expected = (ffc.out_channels, ffc.in_channels // ffc.groups, *ffc.kernel_size)
        if weight.shape != expected:
            misfits[f"{prefix}weight"] = shapes(weight.shape, expected)
            continue
        split = copy.deepcopy(ffc).cpu()
        split.load_dense_weight(weight.cpu())
        parameters = dict(split.named_parameters(recurse=False))
        fitted |= {f"{prefix}{part}": parameters[part].detach() for part in _PARTS if part in parameters}
    return fitted, misfits


def ordinary_name(name: str) -> str:
    """The name an FFC's part has in an ordinary convolution, other names unchanged."""
    prefix, _, last = name.rpartition("weight_")
    return f"{prefix}weight" if f"weight_{last}" in _PARTS else name


def shapes(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Two shapes that differ, in words."""
    return f"{tuple(found)} in the file, {tuple(expected)} in the network"


def spectral_prefixes(model: nn.Module) -> set[str]:
    """Where the FFC layers have what no plain convolution has."""
    return {f"{prefix}spectral." for prefix, _ in _modules(model, FFCNd)}


def inflate_weights(
    tensors: dict[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Gives the convolutions of clips what they need of the weights of an image network.

    Returns:
        the tensors, each weight of images repeated over its layer's kernel in time, and their names.
    """
    inflated, names = dict(tensors), []
    for prefix, layer in _modules(model, nn.Conv3d, FFC3d):
        for name in (f"{prefix}{last}" for last in ("weight", *_PARTS)):
            if name in tensors and tensors[name].dim() == 4:
                inflated[name] = repeat_over_time(tensors[name], layer.kernel_size[0])
                names.append(name)
    return inflated, tuple(names)


def lacking_non_local_blocks(tensors: dict[str, Tensor], model: nn.Module) -> set[str]:
    """Where the model has non-local blocks and the weights have none: fresh, they change nothing."""
    prefixes = {prefix for prefix, _ in _modules(model, NonLocalBlock)}
    return {prefix for prefix in prefixes if not any(name.startswith(prefix) for name in tensors)}


def _modules(model: nn.Module, *kinds: type[Kind]) -> Iterator[tuple[str, Kind]]:
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            yield f"{name}." if name else "", module
