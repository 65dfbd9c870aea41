"""From a checkpoint to what a hub wants to know of its network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from ffconv.interop.checkpoint_info import (
    CheckpointInfo,
    ClipInfo,
    ImageInfo,
    InpaintingInfo,
    PoseInfo,
    is_bare,
    is_described,
)
from ffconv.interop.hub import About, from_pretrained
from ffconv.interop.lama import load_lama
from ffconv.interop.package_info import read_package
from ffconv.tasks.networks import load_trained

# Columns of metrics.csv that say how a run went, not what its network is worth.
_OF_THE_RUN = ("lr", "seconds", "samples_per_second", "skipped")


def open_for_hub(path: Path) -> tuple[nn.Module, About]:
    """The network of a checkpoint of ours, of a package, or of one of LaMa's, with what is known about it.

    Raises:
        InputError: if it is none of these, or cannot be read.
    """
    if is_bare(path):
        package = read_package(path.parent)
        return from_pretrained(path.parent), About(package.classes, frames=package.frames)
    if not is_described(path):
        return load_lama(path), About()
    network, info = load_trained(path)
    return network, about_checkpoint(info)


def about_checkpoint(info: CheckpointInfo) -> About:
    """What a checkpoint says, by the Hub's and timm's names."""
    return About(
        classes=info.names,
        preprocessing=_preprocessing(info),
        frames=info.clip.frames if isinstance(info, ClipInfo) else 1,
        metrics={name: value for name, value in info.metrics.items() if name not in _OF_THE_RUN},
        checkpoint=info,
    )


def _preprocessing(info: CheckpointInfo) -> dict[str, Any]:
    """The evaluation transform by timm's names, as far as it has them."""
    channels, *_, height, width = info.input_size
    size = {"input_size": (channels, height, width)}
    match info:
        case PoseInfo(transform=chain):
            return {**size, "mean": chain.mean, "std": chain.std}
        case ImageInfo(transform=chain):
            share = _share(height, chain.eval_short_side)
            return {
                **size,
                "crop_pct": share,
                "interpolation": chain.interpolation,
                "mean": chain.mean,
                "std": chain.std,
            }
        case ClipInfo(clip=chain):
            share = _share(height, chain.eval_short_side)
            return {
                **size,
                "crop_pct": share,
                "interpolation": "bilinear",
                "mean": chain.mean,
                "std": chain.std,
            }
        case InpaintingInfo():  # an image in [0, 1] and its mask
            return size
    raise TypeError(type(info))


def _share(side: int, short_side: int) -> float:
    """The part ``side`` of ``short_side``, of which timm, rounding down, makes this short side again."""
    share = side / short_side
    return share if math.floor(side / share) == short_side else math.nextafter(share, 0)
