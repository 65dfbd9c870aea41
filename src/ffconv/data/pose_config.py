"""Which persons, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.embedded import Split
from ffconv.data.fetching import OnError, worker_processes
from ffconv.data.figures import Figures
from ffconv.data.keypoint_sets import KeypointConfig
from ffconv.data.pose_samples import PersonSamples
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.errors import InputError, require

PoseFormat = Literal["coco", "figures"]


@dataclass(frozen=True)
class PoseDataConfig:
    """The data of a run of keypoint detection.

    Args:
        path: folder that holds images and annotations; the embedded set needs none.
        format: ``coco`` (annotation files and folders of images) or ``figures`` (embedded).
        train: folder of the training images, in ``path``.
        val: folder of the validation images, in ``path``.
        train_annotations: annotation file in ``path``; by default
            ``annotations/person_keypoints_<name of the folder>.json``.
        val_annotations: likewise of the validation images.
        category: name of the category, needed where several have keypoints.
        detections: result file of a detector, whose boxes are evaluated in place of the annotated ones.
        detection_threshold: smallest score of a detected box that is used.
        keypoints: what replaces the annotation file's description of its keypoints.
        workers: worker processes per process; null takes one a core, at most eight.
        on_error: ``raise`` stops at an unreadable or missing image, ``skip`` leaves it out, counts and lists
        it.
        verify: read every image before training starts.
        transform: crops, augmentation and heatmaps.

    Raises:
        InputError: for a value outside its range.
    """

    path: str = ""
    format: PoseFormat = "coco"
    train: str = "train2017"
    val: str = "val2017"
    train_annotations: str = ""
    val_annotations: str = ""
    category: str = ""
    detections: str = ""
    detection_threshold: float = 0.0
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    workers: int | None = None
    on_error: OnError = "raise"
    verify: bool = False
    transform: PoseTransformConfig = field(default_factory=PoseTransformConfig)

    def __post_init__(self) -> None:
        for name, kind in (("format", PoseFormat), ("on_error", OnError)):
            value, words = getattr(self, name), get_args(kind)
            require(value in words, f"data.{name}={value!r} must be {' or '.join(words)}")
        require(
            self.workers is None or self.workers >= 0, f"data.workers={self.workers} must not be negative"
        )
        require(
            not self.detections or self.format == "coco",
            f"data.detections={self.detections!r} needs data.format=coco, whose images it belongs to",
        )

    @property
    def worker_processes(self) -> int:
        """``workers``, or what suits the cores this process may use."""
        return worker_processes(self.workers)


def open_persons(config: PoseDataConfig, split: Split) -> PersonSamples:
    """The persons of a split; a detector's boxes only in validation.

    Raises:
        InputError: where the data is missing, empty or malformed, or ``path`` is not given.
    """
    if config.format == "figures":
        return Figures(split)
    if not config.path:
        raise InputError(
            "data.path is not given: say where the data is by --data.path FOLDER or by a recipe"
            " (--config), or take the embedded set by --data.format figures"
        )
    root = Path(config.path)
    folder = root / (config.train if split == "train" else config.val)
    given = config.train_annotations if split == "train" else config.val_annotations
    return CocoKeypoints(
        root / (given or f"annotations/person_keypoints_{folder.name}.json"),
        folder,
        keypoints=config.keypoints,
        category=config.category,
        detections=config.detections if split == "val" else "",
        detection_threshold=config.detection_threshold,
        check_files=config.on_error == "raise",
    )
