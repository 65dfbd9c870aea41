"""Folders of ``save_pretrained`` and of timm, whose weights say nothing of themselves, read as checkpoints.

Such a folder has its network's name, arguments and preprocessing in config.json, by timm's names; here they
become what a checkpoint of ``ffconv train`` says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ffconv.data.clip_config import ClipConfig
from ffconv.data.config import DataConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.data.video_config import VideoDataConfig
from ffconv.errors import InputError, require
from ffconv.interop.export_input import Task, task_of
from ffconv.interop.hub import CONFIG, WEIGHTS, rebuilding_config
from ffconv.models.registry import create_network
from ffconv.training.checkpoint import read_metadata
from ffconv.training.config import plain


def is_described(path: Path) -> bool:
    """Whether a file, or the config.json of its package, says which network the weights belong to."""
    return is_bare(path) or _says_itself(path)


def is_bare(path: Path) -> bool:
    """Whether these are a package's weights without what a checkpoint says of itself."""
    return path.name == WEIGHTS and path.with_name(CONFIG).is_file() and not _says_itself(path)


def describe(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its network, or of bare weights the config.json beside them.

    Raises:
        InputError: if there is neither, or the configuration does not say enough.
    """
    return _of_config(path.parent) if is_bare(path) else read_metadata(path)


def _says_itself(path: Path) -> bool:
    try:
        read_metadata(path)
    except InputError:
        return False
    return True


def preprocessing_of(folder: Path) -> dict[str, Any]:
    """What config.json says of a network's input, by timm's names.

    Raises:
        InputError: if that is not there.
    """
    config = rebuilding_config(folder)
    known = config.get("pretrained_cfg", config)  # older ones of timm have it on the outermost level
    where = folder / CONFIG
    require(isinstance(known, dict), f"{where} is damaged: pretrained_cfg is no table")
    size = known.get("input_size")
    sides = isinstance(size, list) and len(size) == 3 and all(type(side) is int for side in size)
    require(sides, f"{where}: input_size={size} must be [channels, height, width] in pretrained_cfg")
    frames = config.get("ffconv", {}).get("frames", ClipConfig.frames)
    return {**known, "label_names": config.get("label_names"), "frames": frames}


def _of_config(folder: Path) -> dict[str, Any]:
    known = preprocessing_of(folder)
    with torch.device("meta"):
        network: Any = create_network(f"local-dir:{folder}", {})
    task = task_of(network)
    require(
        task != "pose",
        f"{folder / CONFIG} does not say how keypoints are read from heatmaps: give the checkpoint of ffconv"
        " train, or the package made of it",
    )
    classes = known["label_names"] or [str(number) for number in range(network.num_classes)]
    data = _data(task, known, folder / CONFIG)
    return {"task": task, "data": data, "classes": classes, "masks": {}, "metrics": {}}


def _data(task: Task, known: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The data section of a checkpoint of the task."""
    _, height, width = known["input_size"]
    require(height == width, f"{where}: input_size={known['input_size']}: only square images are cut")
    cut: dict[str, Any] = {"eval_size": height, "eval_short_side": height, "train_size": height}
    if task == "inpainting":  # of images in [0, 1]
        cut |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    else:
        mode = known.get("crop_mode", "center")
        require(mode == "center", f"{where}: crop_mode={mode}: only centre crops are made")
        cut["eval_short_side"] = math.floor(height / (known.get("crop_pct") or 1.0))  # as timm has it
        for name in ("mean", "std"):
            value: Any = known.get(name)
            colours = isinstance(value, list) and len(value) == 3
            require(colours, f"{where}: {name}={value} must be that of three colours")
            cut[name] = tuple(value)
    if task == "action":
        sides = (cut["eval_short_side"], cut["eval_short_side"])
        return plain(VideoDataConfig(clip=ClipConfig(known["frames"], short_side=sides, **cut)))
    if task == "classification":
        cut["interpolation"] = known.get("interpolation", "bilinear")
    return plain(DataConfig(transform=ImageTransformConfig(**cut)))
