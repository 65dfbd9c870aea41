"""Whose weights these are: each format recognises a state dict by its names and gives it ours.

Ours are timm's names for the network and :mod:`ffconv.nn`'s inside a layer. A further format is one more
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


# LaMa's networks are one Sequential, below "generator." in a training checkpoint, beside other networks.
_LAMA_LAYER = re.compile(r"^(?:module\.)?(?P<generator>generator\.)?model\.(?P<number>\d+)\.(?P<rest>.+)$")
_LAMA_NAMES = ((r"\.ffc\.", ".conv."), (r"\.bn_[lg]\.", ".bn."))
# Options of its code that no published configuration switches on, by what they leave in the names of a layer.
_LAMA_UNKNOWN = (
    (re.compile(r"\.fu\.se\."), "use_se"),
    (re.compile(r"^(conv\d+\.)?(impl\.|angle$)"), "spatial_transform_layers or spatial_transform_kwargs"),
)


def _is_lama(tensors: Tensors) -> bool:
    return any(re.search(r"\bmodel\.\d+\.(conv\d+\.)?ffc\.", name) for name in tensors)


def _convert_lama(tensors: Tensors) -> dict[str, Tensor]:
    found = [(match, tensor) for name, tensor in tensors.items() if (match := _LAMA_LAYER.match(name))]
    if any(match["generator"] for match, _ in found):
        found = [(match, tensor) for match, tensor in found if match["generator"]]
        others: dict[str, Tensor] = {}  # discriminators, losses and evaluators of the training
    else:
        others = {name: tensor for name, tensor in tensors.items() if not _LAMA_LAYER.match(name)}
    entries = [(int(match["number"]), match["rest"], tensor) for match, tensor in found]
    _refuse_unknown_options(entries)
    places = _lama_places(entries)
    renamed = {f"{places[number]}.{rest}": tensor for number, rest, tensor in entries}
    joined = join_branches(renamed | others, LAYER_NAMES + _NETWORK_NAMES[:2] + _LAMA_NAMES)
    return _with_positions_apart(joined)


def _refuse_unknown_options(entries: list[tuple[int, str, Tensor]]) -> None:
    found = {option for _, rest, _ in entries for trace, option in _LAMA_UNKNOWN if trace.search(rest)}
    norms = [number for number, rest, _ in entries if rest == "running_mean"]
    blocks = [number for number, rest, _ in entries if rest.startswith("conv1.ffc.")]
    if blocks and norms and max(blocks) > min(norms):  # the decoder's norms
        found.add("out_ffc")
    # Global channels begin where the blocks do, with the outputs of the last layer before them.
    paths = {(number, rest.split(".")[1]) for number, rest, _ in entries if rest.startswith("ffc.conv")}
    last = max((number for number, _ in paths), default=0)
    if any(path != "convl2l" and (number, path) != (last, "convl2g") for number, path in paths):
        found.add("global channels in init_conv_kwargs or downsample_conv_kwargs")
    if found:
        raise ValueError(f"LaMa's generator is built here without {', '.join(sorted(found))}")


def _lama_places(entries: list[tuple[int, str, Tensor]]) -> dict[int, str]:
    """Our name for each numbered layer: stem, down.0, ..., blocks.0, ..., up.0.conv, up.0.bn, ..., head."""
    numbers = sorted({number for number, _, _ in entries})
    norms = {number for number, rest, _ in entries if rest == "running_mean"}
    layers = {number for number, rest, _ in entries if rest.startswith("ffc.")}
    blocks = {number for number, rest, _ in entries if rest.startswith("conv1.ffc.")}
    places, ups = {}, 0
    for number in numbers:
        if number in layers:
            step = sum(other in layers for other in places)
            places[number] = f"down.{step - 1}" if step else "stem"
        elif number in blocks:
            places[number] = f"blocks.{sum(other in blocks for other in places)}"
        elif number in norms:
            places[number], ups = f"up.{ups}.bn", ups + 1
        else:  # in the Sequential a norm follows each convolution of the decoder, but not the last one
            places[number] = f"up.{ups}.conv" if number + 1 in norms else "head"
    return places


def _with_positions_apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parts the first two input channels of spectral convolutions, the coordinates, from the spectrum's."""
    parted = dict(tensors)
    for name, tensor in tensors.items():
        prefix = name.removesuffix("fu.conv.weight")
        hidden = tensors.get(f"{prefix}conv1.weight")
        if prefix.endswith("spectral.") and hidden is not None and tensor.shape[1] == 2 * len(hidden) + 2:
            parted[name] = tensor[:, 2:]
            norm = f"{prefix}fu.bn."
            parted[f"{norm}position"] = tensor[:, :2, 0, 0]
            for entry in [other for other in tensors if other.startswith(norm)]:
                parted[f"{norm}norm.{entry.removeprefix(norm)}"] = parted.pop(entry)
    return parted


def _is_ours(tensors: Tensors) -> bool:
    return any(re.search(r"\bweight_(l2l|l2g|g2l)$|\bspectral\.|\bfu\.conv\.", name) for name in tensors)


def _keep_names(tensors: Tensors) -> dict[str, Tensor]:
    return dict(tensors)


# Behind module. or not; mmpose has the decoder below a head of its own.
_DECODER = re.compile(r"^(module\.)?(?:keypoint_head\.|head\.)?(deconv_layers|final_layer)\.")


def _is_simple_baseline(tensors: Tensors) -> bool:
    decoders = [match for name in tensors if (match := _DECODER.match(name))]
    below_head = any("head." in match[0] for match in decoders)
    return below_head or (bool(decoders) and not any("backbone." in name for name in tensors))


def _convert_simple_baseline(tensors: Tensors) -> dict[str, Tensor]:
    return {_DECODER.sub(r"\1\2.", name): tensor for name, tensor in tensors.items()}


LAMA = Format("LaMa", _is_lama, _convert_lama)
RELEASED = Format("the released FFC code", _is_released, _convert_released)
OURS = Format("ffconv", _is_ours, _keep_names)
SIMPLE_BASELINE = Format(
    "SimpleBaseline (its authors', mmpose)",
    _is_simple_baseline,
    _convert_simple_baseline,
    has_spectral=False,
)
PLAIN = Format(
    "plain convolutions (torchvision, timm)", lambda tensors: True, _keep_names, has_spectral=False
)

FORMATS: tuple[Format, ...] = (LAMA, RELEASED, OURS, SIMPLE_BASELINE, PLAIN)
