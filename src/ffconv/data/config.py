"""Which images, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ffconv.data.embedded import Digits, FarMarks, Split
from ffconv.data.images import IMAGES, ImageFiles, ImageFolder, UnsplitImageFiles
from ffconv.data.loading import Source
from ffconv.data.sources import FilesConfig, has_shards, open_shards
from ffconv.data.textures import Textures
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import require

Format = Literal["auto", "folder", "webdataset", "digits", "far_marks", "textures"]


@dataclass(frozen=True)
class DataConfig(FilesConfig):
    """The images of a run.

    Args:
        format: ``folder`` (of class folders, or of images where no labels are needed), ``webdataset`` (tar
            shards), ``digits``, ``far_marks`` or ``textures`` (embedded); ``auto`` looks at the path.
        transform: sizes and augmentations of images.

    Raises:
        InputError: for a value outside its range.
    """

    format: Format = "auto"
    transform: ImageTransformConfig = field(default_factory=ImageTransformConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        formats = get_args(Format)
        require(self.format in formats, f"data.format={self.format!r} must be one of {', '.join(formats)}")
        whole = self.transform.scale[0] == 1 and self.transform.eval_short_side == self.transform.eval_size
        require(
            self.format != "far_marks" or whole,
            "data.format=far_marks must not lose a mark to cropping: set data.transform.scale and .ratio to "
            "[1, 1] and eval_short_side to eval_size",
        )


def open_samples(config: DataConfig, split: Split, *, labelled: bool = True) -> Source:
    """The samples of a split, with their ``classes``.

    Args:
        config: where they are.
        split: which of them.
        labelled: whether a folder must be one of class folders; otherwise every image below it counts, and
            has no label; of a folder without splits every tenth image is for validation.

    Raises:
        InputError: where the data is missing, empty or broken, or ``path`` is not given.
    """
    size = config.transform.eval_size
    match config.format:
        case "digits":
            return Digits(split, size=size)
        case "far_marks":
            return FarMarks(split, size=size)
        case "textures":
            return Textures(split, size=size)
    location = config.location(split)
    if config.format == "folder" or (config.format == "auto" and not has_shards(location)):
        if labelled:
            return ImageFolder(location)
        return UnsplitImageFiles(config.path, split) if _is_unsplit(config) else ImageFiles(location)
    return open_shards(config, split, IMAGES)


def _is_unsplit(config: DataConfig) -> bool:
    """Return True for a folder that holds neither split under its usual name."""
    names = (DataConfig.train, DataConfig.val)
    folder = Path(config.path)
    usual = (config.train, config.val) == names
    return usual and folder.is_dir() and not any((folder / name).exists() for name in names)
