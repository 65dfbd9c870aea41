"""Whose weights these are: each format recognises a state dict by its names and gives it ours.

Ours are timm's names for the network and :mod:`ffconv.ops`'s inside a layer. A further format is one more
:class:`Format` in :data:`FORMATS`, before those it could be mistaken for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """One way of naming the weights of a network.

    Attributes:
        name: what a report calls it.
        recognises: whether a state dict is of this format.
        convert: the same weights by our names; ValueError, with the reason, if they must not be used.
        has_spectral: whether FFC layers come whole; without, what a plain convolution lacks is left alone.
    """

    name: str
    recognises: Callable[[Tensors], bool]
    convert: Callable[[Tensors], dict[str, Tensor]]
    has_spectral: bool = True


def recognise(tensors: Tensors) -> Format:
    """The first of :data:`FORMATS` that recognises these names; the last one takes what is left."""
    return next(known for known in FORMATS if known.recognises(tensors))


# The layers of the released code and of what descends from it. At the root: a layer's own state dict.
LAYER_NAMES = (
    (r"(^|\bconvg2g\.)conv1\.0\.", r"\1conv1."),
    (r"(^|\bconvg2g\.)conv1\.1\.", r"\1bn1."),
    (r"(^|\bl?fu\.)conv_layer\.", r"\1conv."),
    (r"\bconvg2g\.", "spectral."),
    (r"\bconv(l2l|l2g|g2l)\.weight$", r"weight_\1"),
    (r"\bconv(?:l2l|l2g|g2l)\.bias$", "bias"),
)
# Its networks hold FFC, norm and activation in one module, and gate the two branches by one SE block.
_NETWORK_NAMES = (
    (r"\bconv(\d+)\.ffc\.", r"conv\1."),
    (r"\bconv(\d+)\.bn_[lg]\.", r"bn\1."),
    (r"\bdownsample\.ffc\.", "downsample.0."),
    (r"\bdownsample\.bn_[lg]\.", "downsample.1."),
    (r"\bse_block\.conv1\.", "se.fc1."),
    (r"\bse_block\.conv_a2[lg]\.", "se.fc2."),
)
_GLOBAL_BRANCH = re.compile(r"\b(bn_g\.|conv_a2g\.|convl2g\.bias$)")


def _is_released(tensors: Tensors) -> bool:
    return any(re.search(r"\bconv[lg]2[lg]\.|\bl?fu\.conv_layer\.|^conv_layer\.", name) for name in tensors)


def _convert_released(tensors: Tensors) -> dict[str, Tensor]:
    _refuse_slip(tensors)
    return join_branches(tensors, LAYER_NAMES + _NETWORK_NAMES)


def _refuse_slip(tensors: Tensors) -> None:
    blocks = {int(match[1]) for name in tensors if (match := re.search(r"\blayer3\.(\d+)\.", name))}
    if len(blocks) == 32:
        raise ValueError(
            "layer3 has 32 blocks: the released ResNeXt-101's slip, where ResNeXt-101 32x8d has 23; "
            "such weights fit no published network"
        )


def join_branches(tensors: Tensors, names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Renames by the (pattern, replacement) pairs; what then has one name is one tensor.

    Norms, gates and biases of the local branch come before those of the global one; biases of paths that
    end in the same branch add up.
    """
    branches: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name, tensor in tensors.items():
        target = name
        for pattern, replacement in names:
            target = re.sub(pattern, replacement, target)
        is_global = _GLOBAL_BRANCH.search(name) is not None
        branches.setdefault(target, ([], []))[is_global].append(tensor)
    return {
        name: _join([sum(paths[1:], paths[0]) for paths in pair if paths]) for name, pair in branches.items()
    }


def _join(parts: list[Tensor]) -> Tensor:
    """The branches along their channels; their norms' counters are equal."""
    return parts[0] if len(parts) == 1 or parts[0].ndim == 0 else torch.cat(parts)


def _is_ours(tensors: Tensors) -> bool:
    return any(re.search(r"\bweight_(l2l|l2g|g2l)$|\bspectral\.|\bfu\.conv\.", name) for name in tensors)


def _keep_names(tensors: Tensors) -> dict[str, Tensor]:
    return dict(tensors)


RELEASED = Format("the released FFC code", _is_released, _convert_released)
OURS = Format("ffconv", _is_ours, _keep_names)
PLAIN = Format(
    "plain convolutions (torchvision, timm)", lambda tensors: True, _keep_names, has_spectral=False
)

FORMATS: tuple[Format, ...] = (RELEASED, OURS, PLAIN)
