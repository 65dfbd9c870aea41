"""Which data, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ffconv.data.embedded import Digits, FarMarks, Split
from ffconv.data.fetching import OnError
from ffconv.data.images import ImageFolder
from ffconv.data.loading import Source
from ffconv.data.shard_index import INDEX_NAME, expand_shards, is_remote, read_index
from ffconv.data.shards import LocalShards
from ffconv.data.streaming import ShardStream
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError, require

Format = Literal["auto", "folder", "webdataset", "digits", "far_marks"]


@dataclass(frozen=True)
class DataConfig:
    """The data of a run.

    Args:
        path: folder (or URL) that holds the splits; the embedded sets need none.
        format: ``folder`` (class folders), ``webdataset`` (tar shards), ``digits`` or ``far_marks``
            (embedded); ``auto`` looks at the path.
        train: where the training split is: a folder in ``path``, or shards in webdataset's notation (braces,
            ``pipe:`` commands, URLs), relative to ``path`` where they are local.
        val: where the validation split is, likewise.
        train_index: path or URL of the ``shards.json`` of streamed training shards; by default beside them.
        val_index: likewise for the validation shards.
        workers: worker processes per process; null takes one a core, at most eight.
        on_error: ``raise`` stops at an unreadable file, ``skip`` leaves it out, counts and lists it.
        verify: read every file before training starts.
        shuffle_buffer: undecoded samples a worker holds to shuffle streamed shards.
        transform: sizes and augmentations of images.

    Raises:
        InputError: for a value outside its range.
    """

    path: str = ""
    format: Format = "auto"
    train: str = "train"
    val: str = "val"
    train_index: str = ""
    val_index: str = ""
    workers: int | None = None
    on_error: OnError = "raise"
    verify: bool = False
    shuffle_buffer: int = 1000
    transform: ImageTransformConfig = field(default_factory=ImageTransformConfig)

    def __post_init__(self) -> None:
        formats = get_args(Format)
        require(self.format in formats, f"data.format={self.format!r} must be one of {', '.join(formats)}")
        require(self.on_error in get_args(OnError), f"data.on_error={self.on_error!r} must be raise or skip")
        require(
            self.workers is None or self.workers >= 0, f"data.workers={self.workers} must not be negative"
        )
        require(self.shuffle_buffer >= 0, f"data.shuffle_buffer={self.shuffle_buffer} must not be negative")
        whole = self.transform.scale[0] == 1 and self.transform.eval_short_side == self.transform.eval_size
        require(
            self.format != "far_marks" or whole,
            "data.format=far_marks must not lose a mark to cropping: set data.transform.scale and .ratio to "
            "[1, 1] and eval_short_side to eval_size",
        )

    @property
    def worker_processes(self) -> int:
        """``workers``, or what suits the cores this process may use."""
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def open_samples(config: DataConfig, split: Split) -> Source:
    """The samples of a split, with their ``classes``.

    Raises:
        InputError: where the data is missing, empty or broken, or ``path`` is not given.
    """
    size = config.transform.eval_size
    match config.format:
        case "digits":
            return Digits(split, size=size)
        case "far_marks":
            return FarMarks(split, size=size)
    location = _location(config, split)
    if not config.path and not is_remote(location):
        raise InputError("path is not given: set data.path, or data.format to digits or far_marks")
    if config.format == "folder" or (config.format == "auto" and not _has_shards(location)):
        return ImageFolder(location)
    return _open_shards(location, config, split)


def _location(config: DataConfig, split: Split) -> str:
    notation = config.train if split == "train" else config.val
    if is_remote(notation):
        return notation
    if is_remote(config.path):
        return f"{config.path.rstrip('/')}/{notation}"
    return str(Path(config.path) / notation)


def _has_shards(location: str) -> bool:
    return is_remote(location) or ".tar" in Path(location).name or any(Path(location).glob("*.tar"))


def _open_shards(location: str, config: DataConfig, split: Split) -> LocalShards | ShardStream:
    given = config.train_index if split == "train" else config.val_index
    if is_remote(location) and ".tar" not in location:  # a folder, whose index names the shards
        index = read_index(given or f"{location}/{INDEX_NAME}")
        urls = [f"{location}/{shard.url}" for shard in index.shards]
        return ShardStream(urls, index, config.shuffle_buffer)
    urls = expand_shards(location)
    if not any(is_remote(url) for url in urls) and all(url.endswith(".tar") for url in urls):
        return LocalShards(urls)
    if not given and location.startswith("pipe:"):
        raise InputError(f"{location}: a command's shards need data.{split}_index, their {INDEX_NAME}")
    index = read_index(given or f"{urls[0].rpartition('/')[0]}/{INDEX_NAME}")
    return ShardStream(urls, index.of(urls), config.shuffle_buffer)
