"""Read what a checkpoint or a package says of its network, as data and nothing else.

Weights come from other people, and so does the description in or beside them. Only this is taken from
it: the task, the network's name in timm's registry and its arguments, the names of its outputs, how its
inputs are prepared, and metrics; each of its own type and within bounds. A path, an address, a command,
a device, a number of workers or the name of something to import is never taken. Other fields are
dropped, and named in one line of the log.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, get_type_hints

import torch

from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.keypoint_sets import KeypointSet
from ffconv.data.masks import MaskConfig
from ffconv.data.pose_transforms import PoseTestConfig, PoseTransformConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError, require
from ffconv.interop.export_input import Task, task_of
from ffconv.interop.package_info import CONFIG, WEIGHTS, PackageInfo, read_package
from ffconv.interop.typed_fields import (
    LARGEST,
    WORD,
    log_dropped,
    read_arguments,
    read_table,
    read_value,
    require_name,
    shown,
)
from ffconv.training.checkpoint import has_metadata, read_metadata
from ffconv.training.config import plain

_COLOURS = 3
_LARGEST_INPUT = 2**26  # values of one sample


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of its network, whatever the task.

    Args:
        name: of the network in timm's registry.
        arguments: of the network; without a number of outputs it has one for each name of them.
        metrics: those of the epoch it was saved at.
    """

    task: ClassVar[Task]
    #: Where a field stands in the metadata, unless under its own name.
    PLACES: ClassVar[Mapping[str, str]] = {"name": "model.name", "arguments": "model.arguments"}

    name: str
    arguments: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs: of classes, or of keypoints."""
        raise NotImplementedError

    @property
    def preparation(self) -> ImageTransformConfig | ClipConfig | PoseTransformConfig:
        """How inputs are prepared."""
        raise NotImplementedError

    @property
    def input_size(self) -> tuple[int, ...]:
        """(C, H, W) of a prepared input, or (C, T, H, W)."""
        raise NotImplementedError

    @property
    def output_size(self) -> tuple[int, ...]:
        """Size of what the network makes of it."""
        return (len(self.names),)

    def metadata(self) -> dict[str, Any]:
        """Return what :func:`read_info` reads, as JSON can hold it."""
        found: dict[str, Any] = {"task": self.task}
        values = plain(self) | {"arguments": read_arguments(self.arguments, "model.arguments", [])}
        for name, value in values.items():
            *tables, last = self.PLACES.get(name, name).split(".")
            inner = found
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[last] = value
        return found


@dataclass(frozen=True)
class ImageInfo(CheckpointInfo):
    """What a checkpoint of image classification says.

    Args:
        classes: names in the order of the outputs.
        transform: how images are prepared.
    """

    task = "classification"
    PLACES: ClassVar[Mapping[str, str]] = {**CheckpointInfo.PLACES, "transform": "data.transform"}

    classes: tuple[str, ...]
    transform: ImageTransformConfig

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def preparation(self) -> ImageTransformConfig:
        return self.transform

    @property
    def input_size(self) -> tuple[int, ...]:
        return (_COLOURS, self.transform.eval_size, self.transform.eval_size)


@dataclass(frozen=True)
class ClipInfo(CheckpointInfo):
    """What a checkpoint of action recognition says.

    Args:
        classes: names in the order of the outputs.
        clip: how clips are cut and prepared.
        views: of a video in a test.
    """

    task = "action"
    PLACES: ClassVar[Mapping[str, str]] = {**CheckpointInfo.PLACES, "clip": "data.clip", "views": "data.test"}

    classes: tuple[str, ...]
    clip: ClipConfig
    views: ViewsConfig = field(default_factory=lambda: ViewsConfig(clips=25, crops=10))

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def preparation(self) -> ClipConfig:
        return self.clip

    @property
    def input_size(self) -> tuple[int, ...]:
        return (_COLOURS, self.clip.frames, self.clip.eval_size, self.clip.eval_size)


@dataclass(frozen=True)
class PoseInfo(CheckpointInfo):
    """What a checkpoint of keypoint estimation says.

    Args:
        keypoints: in the order of the outputs.
        transform: how persons are cut out, and keypoints read from heatmaps.
        test: how heatmaps are averaged.
    """

    task = "pose"
    PLACES: ClassVar[Mapping[str, str]] = {**CheckpointInfo.PLACES, "transform": "data.transform"}

    keypoints: KeypointSet
    transform: PoseTransformConfig
    test: PoseTestConfig = field(default_factory=PoseTestConfig)

    @property
    def names(self) -> tuple[str, ...]:
        return self.keypoints.names

    @property
    def preparation(self) -> PoseTransformConfig:
        return self.transform

    @property
    def input_size(self) -> tuple[int, ...]:
        return (_COLOURS, *self.transform.input_size)

    @property
    def output_size(self) -> tuple[int, ...]:
        return (len(self.keypoints), *self.transform.heatmap_codec.size)


@dataclass(frozen=True)
class InpaintingInfo(CheckpointInfo):
    """What a checkpoint of inpainting says.

    Args:
        transform: how images are prepared.
        masks: holes of an evaluation.
    """

    task = "inpainting"
    PLACES: ClassVar[Mapping[str, str]] = {**CheckpointInfo.PLACES, "transform": "data.transform"}

    transform: ImageTransformConfig
    masks: MaskConfig = field(default_factory=MaskConfig)

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def preparation(self) -> ImageTransformConfig:
        return self.transform

    @property
    def input_size(self) -> tuple[int, ...]:
        return (_COLOURS + 1, self.transform.eval_size, self.transform.eval_size)

    @property
    def output_size(self) -> tuple[int, ...]:
        return (_COLOURS, self.transform.eval_size, self.transform.eval_size)


Info = TypeVar("Info", bound=CheckpointInfo)
_INFOS: dict[str, type[CheckpointInfo]] = {
    kind.task: kind for kind in (ImageInfo, ClipInfo, PoseInfo, InpaintingInfo)
}


def is_described(path: Path) -> bool:
    """Return True if a file, or the config.json of its package, says which network the weights belong to."""
    return is_bare(path) or has_metadata(path)


def is_bare(path: Path) -> bool:
    """Return True if these are a package's weights without a checkpoint's own description."""
    return path.name == WEIGHTS and path.with_name(CONFIG).is_file() and not has_metadata(path)


def task_of_file(path: Path) -> Task:
    """Return what the network of a checkpoint, or of a package's bare weights, does.

    Raises:
        InputError: if the file does not say it.
    """
    if not is_bare(path):
        return _kind(read_metadata(path), path).task
    with torch.device("meta"):
        return task_of(read_package(path.parent, log=False).create(path))


def read_info(path: Path, kind: type[Info] = CheckpointInfo) -> Info:
    """Return what a checkpoint says of its network, or the config.json beside a package's bare weights.

    Args:
        path: the checkpoint, or the weights in a package.
        kind: what it must say, and so what it must have been trained for; by default anything.

    Raises:
        InputError: in one line, if it is neither, of another task, or a field is missing, of another type or
            out of bounds.
    """
    bare = is_bare(path)
    content, dropped = None if bare else read_metadata(path), list[str]()
    found = _INFOS[task_of_file(path)] if bare else _kind(content, path)
    if not issubclass(found, kind):
        raise InputError(f"{path} is a checkpoint of {found.task}, not of {kind.task}")
    if bare:
        info = _info_of_package(read_package(path.parent), found.task, path.with_name(CONFIG))
        return cast("Info", info)
    try:
        info = _read_metadata(found, content, dropped)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    log_dropped(path, dropped)
    return info


def check_info(info: CheckpointInfo) -> None:
    """Refuse, before a training starts, what could not be read from its checkpoints.

    Raises:
        InputError: as :func:`read_info`.
    """
    _read_metadata(type(info), info.metadata(), [])


def _kind(content: Any, path: Path) -> type[CheckpointInfo]:
    task = read_table(content, f"{path}: its description").get("task", "classification")
    known = isinstance(task, str) and task in _INFOS
    require(known, f"{path} is a checkpoint of {shown(task)}: known are {', '.join(_INFOS)}")
    return _INFOS[task]


def _read_metadata(kind: type[Info], content: Any, dropped: list[str]) -> Info:
    found: dict[str, Any] = {}
    hints = get_type_hints(kind)
    fields = {kind.PLACES.get(each.name, each.name): each for each in dataclasses.fields(kind)}
    for place, each in fields.items():
        value = content
        for table in place.split("."):
            value = read_table(value, place).get(table)
        if value is None and each.name in ("metrics", "views", "test", "masks"):
            continue
        require(value is not None, f"{place} is missing")
        if each.name == "arguments":
            found[each.name] = read_arguments(value, place, dropped)
        elif each.name == "metrics":
            found[each.name] = _read_metrics(value, place, dropped)
        else:
            found[each.name] = read_value(hints[each.name], value, place, dropped)
    known = {"task", *fields, *(place.partition(".")[0] for place in fields)}
    dropped += [name for name in content if name not in known]
    for table in ("model", "data"):
        inner = content.get(table)
        dropped += [f"{table}.{name}" for name in (inner or {}) if f"{table}.{name}" not in fields]
    info = kind(**found)
    require_name(info.name, "model.name")
    _require_bounded(info.input_size)
    return info


def _info_of_package(package: PackageInfo, task: Task, where: Path) -> CheckpointInfo:
    """What a checkpoint would say of the network."""
    require(
        task != "pose",
        f"{where} does not say how keypoints are read from heatmaps: give the checkpoint of ffconv train, or"
        " the package made of it",
    )
    about = package.preprocessing
    require(about.input_size is not None, f"{where}: pretrained_cfg.input_size is missing")
    channels, height, width = about.input_size or (0, 0, 0)
    require(height == width, f"{where}: input_size={[height, width]}: only square images are cut")
    _require_bounded((channels, package.frames, height, width))
    cut: dict[str, Any] = {"eval_size": height, "eval_short_side": height, "train_size": height}
    try:
        if task == "inpainting":  # of images in [0, 1]
            transform = ImageTransformConfig(**cut, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
            return InpaintingInfo(package.name, package.arguments, transform)
        return _info_of_classes(package, task, cut)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _info_of_classes(package: PackageInfo, task: Task, cut: dict[str, Any]) -> CheckpointInfo:
    about = package.preprocessing
    mode = about.crop_mode or "center"
    require(mode == "center", f"crop_mode={mode}: only centre crops are made")
    share = about.crop_pct or 1.0
    require(0 < share <= 1, f"crop_pct={share:g} must lie in (0, 1]")
    cut["eval_short_side"] = math.floor(cut["eval_size"] / share)  # as timm rounds
    require(
        cut["eval_short_side"] <= LARGEST, f"crop_pct={share:g} needs a short side above {LARGEST} pixels"
    )
    for name in ("mean", "std"):
        value = getattr(about, name)
        colours = value is not None and len(value) == _COLOURS
        require(colours, f"{name}={None if value is None else list(value)} must be that of three colours")
        cut[name] = value
    classes = package.classes or tuple(map(str, range(package.num_classes or 0)))
    if task == "action":
        sides = (cut["eval_short_side"], cut["eval_short_side"])
        clip = ClipConfig(package.frames, short_side=sides, **cut)
        return ClipInfo(package.name, package.arguments, classes, clip)
    # timm's "random" draws a filter in training; box and hamming are filters that ours do not have.
    filters = get_type_hints(ImageTransformConfig)["interpolation"]
    cut["interpolation"] = read_value(filters, about.interpolation or "bilinear", "interpolation", [])
    return ImageInfo(package.name, package.arguments, classes, ImageTransformConfig(**cut))


def _require_bounded(size: Sequence[int]) -> None:
    written = "x".join(map(str, size))
    require(math.prod(size) <= _LARGEST_INPUT, f"an input of {written} has more than {_LARGEST_INPUT} values")


def _read_metrics(values: Any, where: str, dropped: list[str]) -> dict[str, float]:
    found = {}
    for name, value in read_table(values, where).items():
        if type(value) in (int, float) and not abs(value) > 1e300 and WORD.fullmatch(name):
            found[name] = value
        else:
            dropped.append(f"{where}.{name}")
    return found
