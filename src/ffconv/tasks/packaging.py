"""From a checkpoint to what a hub wants to know of its network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ffconv.interop.hub import About, from_pretrained
from ffconv.interop.lama import load_lama
from ffconv.tasks.networks import load_trained
from ffconv.tasks.packages import is_bare, is_described, preprocessing_of

# Columns of metrics.csv that say how a run went, not what its network is worth.
_OF_THE_RUN = ("lr", "seconds", "samples_per_second", "skipped")


def open_for_hub(path: Path) -> tuple[nn.Module, About]:
    """The network of a checkpoint of ours, of a package, or of one of LaMa's, with what is known about it.

    Raises:
        InputError: if it is none of these, or cannot be read.
    """
    if is_bare(path):
        known = preprocessing_of(path.parent)
        return from_pretrained(path.parent), About(known["label_names"] or (), frames=known["frames"])
    if not is_described(path):
        return load_lama(path), About()
    network, metadata = load_trained(path)
    return network, about_checkpoint(metadata)


def about_checkpoint(metadata: Mapping[str, Any]) -> About:
    """What the metadata of a checkpoint says, by the Hub's and timm's names."""
    data = metadata["data"]
    keypoints = metadata.get("keypoints", {})
    return About(
        classes=tuple(metadata.get("classes", keypoints.get("names", ()))),
        preprocessing=_preprocessing(metadata.get("task", "classification"), data),
        frames=data.get("clip", {}).get("frames", 1),
        metrics={name: value for name, value in metadata["metrics"].items() if name not in _OF_THE_RUN},
        data=Path(data.get("path") or data["format"]).name,
        checkpoint=metadata,
    )


def _preprocessing(task: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation transform by timm's names, as far as it has them."""
    chain = data["clip"] if task == "action" else data["transform"]
    if task == "pose":
        return {"input_size": (3, *chain["input_size"]), "mean": chain["mean"], "std": chain["std"]}
    side = chain["eval_size"]
    if task == "inpainting":  # an image in [0, 1] and its mask
        return {"input_size": (4, side, side)}
    return {
        "input_size": (3, side, side),
        "crop_pct": _share(side, chain["eval_short_side"]),
        "interpolation": chain.get("interpolation", "bilinear"),
        "mean": chain["mean"],
        "std": chain["std"],
    }


def _share(side: int, short_side: int) -> float:
    """The part ``side`` of ``short_side``, of which timm, rounding down, makes this short side again."""
    share = side / short_side
    return share if math.floor(side / share) == short_side else math.nextafter(share, 0)
