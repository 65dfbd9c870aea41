"""Which videos, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.embedded import Split
from ffconv.data.loading import Source
from ffconv.data.media import MediaFolder
from ffconv.data.moving_digits import MovingDigits
from ffconv.data.samples import some
from ffconv.data.sources import FilesConfig, has_shards, open_shards
from ffconv.data.videos import VIDEOS, Decoder, class_names, listed_videos, read_list
from ffconv.errors import InputError, require
from ffconv.files import read_text

VideoFormat = Literal["auto", "folder", "list", "webdataset", "moving_digits"]


@dataclass(frozen=True)
class VideoDataConfig(FilesConfig):
    """The videos of a run.

    Args:
        format: ``folder`` (of class folders), ``list`` (of paths and labels, or a CSV file of Kinetics;
            ``train`` and ``val`` name the lists), ``webdataset`` (tar shards), ``moving_digits`` (embedded);
            ``auto`` looks at the path.
        classes: file in ``path`` with the name of a class a line, for lists whose labels count them.
        decoder: ``pyav``, or ``torchcodec`` where it is installed.
        clip: how clips are cut.
        validation: views of each video in the evaluation after a training epoch.
        test: views of each video in ``ffconv evaluate``.

    Raises:
        InputError: for a value outside its range.
    """

    format: VideoFormat = "auto"
    classes: str = ""
    decoder: Decoder = "pyav"
    clip: ClipConfig = field(default_factory=ClipConfig)
    validation: ViewsConfig = field(default_factory=ViewsConfig)
    test: ViewsConfig = field(default_factory=lambda: ViewsConfig(clips=25, crops=10))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("format", VideoFormat), ("decoder", Decoder)):
            value, words = getattr(self, name), get_args(kind)
            require(value in words, f"data.{name}={value!r} must be one of {', '.join(words)}")
        require(
            self.format != "moving_digits" or self.clip.flip == 0,
            "data.format=moving_digits must keep left from right: set data.clip.flip to 0",
        )


def open_videos(config: VideoDataConfig, split: Split) -> Source:
    """The videos of a split as samples ``(Video, label)``, with their ``classes``.

    Raises:
        InputError: where the data is missing or empty, ``path`` is not given, or a list is wrong; also for
            videos of a CSV file that are missing, unless ``on_error`` is ``skip``.
    """
    if config.format == "moving_digits":
        return MovingDigits(split, size=config.clip.eval_size, frames=config.clip.frames)
    location = config.location(split)
    if config.format == "webdataset" or (config.format == "auto" and has_shards(location)):
        return open_shards(config, split, VIDEOS)
    if config.format == "folder" or (config.format == "auto" and not Path(location).is_file()):
        return MediaFolder(location, VIDEOS)
    return _listed(config, split)


def _listed(config: VideoDataConfig, split: Split) -> Source:
    folder, file = Path(config.path), Path(config.location(split))
    videos, missing = read_list(file, folder)
    if missing and config.on_error == "raise":
        raise InputError(
            f"{file}: {len(missing)} of {len(videos)} videos are missing: {some(missing, 3)}"
            " (data.on_error skip leaves them out)"
        )
    return listed_videos(videos, _classes(config), file)


def _classes(config: VideoDataConfig) -> tuple[str, ...]:
    """The named classes, or those that the lists of both splits have together, as far as they are there."""
    folder = Path(config.path)
    if config.classes:
        return tuple(read_text(folder / config.classes).splitlines())
    splits: tuple[Split, ...] = ("train", "val")
    lists = [path for split in splits if (path := Path(config.location(split))).is_file()]
    return class_names({video.label for path in lists for video in read_list(path, folder)[0]})
