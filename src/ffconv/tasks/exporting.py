"""Networks as an exporter needs them: by name or from a checkpoint, with what is known of their input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import v2

from ffconv.analysis.networks import NetworkSpec, takes_clips
from ffconv.data.clip_config import ClipConfig
from ffconv.errors import InputError, require
from ffconv.interop.checkpoint_info import ClipInfo, is_bare, is_described
from ffconv.interop.export_input import NetworkInput, task_of
from ffconv.interop.hub import from_pretrained
from ffconv.interop.lama import load_lama
from ffconv.interop.package_info import read_package
from ffconv.interop.weights import load_weights
from ffconv.models import SimpleBaseline
from ffconv.models.inpainting import hide
from ffconv.surgery.trace import convolutions
from ffconv.tasks.networks import load_trained

_SIDE, _SIDE_OF_LAMA = 224, 256
_COLOURS = 3


class Exportable(NamedTuple):
    """A network in evaluation mode, its input, and whether its weights are of a file."""

    network: nn.Module
    given: NetworkInput
    trained: bool


@dataclass(frozen=True)
class Wanted:
    """What of the input is not to be as the network's checkpoint or registry says.

    Args:
        size: (H, W).
        frames: of a clip.
        weights: file of weights for a network that is named.
        arguments: of LaMa's network where its weights do not tell.
    """

    size: tuple[int, int] | None = None
    frames: int | None = None
    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def network_by_name(name: str, wanted: Wanted) -> Exportable:
    """A network of a registry; without weights of a file they are random, and norms measured on random input.

    Args:
        name: ``name[,argument=value,...]``, see :class:`ffconv.analysis.networks.NetworkSpec`.
        wanted: input and weights.
    Raises:
        InputError: for an unknown name, weights that do not fit, or a size the network does not take.
    """
    require(not wanted.arguments, f"arguments of {name} are written {name},argument=value")
    network = NetworkSpec.parse(name).build().eval()
    if wanted.weights is not None:
        load_weights(network, wanted.weights)
    given = _given_by_timm(network, getattr(network, "pretrained_cfg", None) or {}, wanted)
    if wanted.weights is None:
        _measure_norms(network, given)
    return Exportable(network, given, wanted.weights is not None)


def network_of_checkpoint(path: Path, wanted: Wanted) -> Exportable:
    """A trained network: a checkpoint of ours, the weights in a package, or a checkpoint of LaMa's.

    Raises:
        InputError: if it is none of these, cannot be read, or does not take the size.
    """
    require(wanted.weights is None, f"{path} has weights of its own: leave out the others")
    if not is_described(path):
        network = load_lama(path, wanted.arguments)
        size = (_channels_of(network), _SIDE_OF_LAMA, _SIDE_OF_LAMA)
        return Exportable(network, _given(network, size, None, {}, wanted), True)
    require(not wanted.arguments, f"{path} says itself which network it belongs to: leave out arguments")
    if is_bare(path):
        package = read_package(path.parent)
        about = {**vars(package.preprocessing), "frames": package.frames, "label_names": package.classes}
        network = from_pretrained(path.parent)
        return Exportable(network, _given_by_timm(network, about, wanted), True)
    network, info = load_trained(path)
    frames = info.clip.frames if isinstance(info, ClipInfo) else None
    about = {"mean": info.preparation.mean, "std": info.preparation.std, "classes": info.names}
    return Exportable(network, _given(network, info.input_size, frames, about, wanted), True)


def _measure_norms(network: nn.Module, given: NetworkInput) -> None:
    """Makes norms divide by the size of what they get of a random input, one after the other.

    With random weights and norms that leave values as they are, these grow from block to block, until the
    sigmoid of LaMa tells nothing but rounding. Means stay 0: subtracted from maps of noise they leave little
    else than rounding, too. A norm has one size for all its channels: of those of a map of one pixel some are
    nearly 0, and divided by their own they would be rounding alone.
    """

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (values,) = inputs
        norm.get_buffer("running_var").fill_(values.square().mean())

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms if norm.track_running_stats]
    try:
        with torch.no_grad():
            network(given.random(1, given.size[1:]))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        size = "x".join(map(str, given.size))
        raise InputError(f"{type(network).__name__} takes no input of {size}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _given_by_timm(network: nn.Module, known: Mapping[str, Any], wanted: Wanted) -> NetworkInput:
    """The input by what timm's registry or config.json says of it."""
    size = (_channels_of(network), *(known.get("input_size") or (_SIDE, _SIDE))[-2:])
    frames = known.get("frames", ClipConfig.frames) if takes_clips(network) else None
    data = {name: known.get(name) or () for name in ("mean", "std")}
    return _given(network, size, frames, {**data, "classes": known.get("label_names") or ()}, wanted)


def _given(
    network: nn.Module, size: tuple[int, ...], frames: int | None, data: Mapping[str, Any], wanted: Wanted
) -> NetworkInput:
    task = task_of(network)
    frames = wanted.frames or frames
    require(frames is None or task == "action", f"frames={frames} is for networks of clips")
    height, width = wanted.size or size[-2:]
    normalised = task != "inpainting"
    return NetworkInput(
        task,
        (size[0], *(() if frames is None else (frames,)), height, width),
        multiple=_multiple_of(network),
        mean=tuple(data.get("mean", ())) if normalised else (),
        std=tuple(data.get("std", ())) if normalised else (),
        classes=tuple(data.get("classes", ())),
    )


def _channels_of(network: nn.Module) -> int:
    """Of the input: what the first convolution reads."""
    first = next(iter(convolutions(network).values()), None)
    return _COLOURS if first is None else first.in_channels


def _multiple_of(network: nn.Module) -> int:
    if isinstance(network, SimpleBaseline):
        return network.backbone.feature_info[-1]["reduction"]
    return getattr(network, "multiple", 1)


def read_input(path: Path, given: NetworkInput) -> Tensor:
    """An image or a clip out of a file, resized to what the network takes.

    In an image for an inpainting network the middle is a hole.

    Shape:
        (1, *given.size), float32.
    Raises:
        InputError: if the file cannot be read, or the network takes no colours.
    """
    colours = given.size[0] - (1 if given.task == "inpainting" else 0)
    require(colours == _COLOURS, f"{path}: the network takes {colours} channels, not colours")
    pixels = _clip(path, given) if given.is_clip else _image(path, given)
    x = pixels[None].float() / 255
    if given.task == "inpainting":
        height, width = given.size[-2:]
        mask = torch.zeros(1, 1, height, width)
        mask[..., height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 1
        return hide(x, mask)
    if given.mean:
        shape = (1, -1, *[1] * (x.dim() - 2))
        x = (x - torch.tensor(given.mean).view(shape)) / torch.tensor(given.std).view(shape)
    return x


def _image(path: Path, given: NetworkInput) -> Tensor:
    """(3, H, W) uint8"""
    from ffconv.data.decoding import read_image

    return _resized(v2.functional.pil_to_tensor(read_image(path)), given)


def _clip(path: Path, given: NetworkInput) -> Tensor:
    """(3, T, H, W) uint8, out of the middle of the video."""
    from ffconv.data.clip_config import ClipConfig
    from ffconv.data.clips import as_tensor, even_starts, timing
    from ffconv.data.videos import VideoFile

    frames = given.size[1]
    with VideoFile(str(path), path).open() as video:
        when = timing(video, ClipConfig(frames=frames))
        found = video.read(when.times(even_starts(when, 1)[0], frames))
    return _resized(as_tensor(found.pictures), given)[list(found.places)].transpose(0, 1)


def _resized(pixels: Tensor, given: NetworkInput) -> Tensor:
    return v2.functional.resize(pixels, list(given.size[-2:]), antialias=True)
