"""What every configuration of labelled files says, and the shards it may name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ffconv.data.embedded import Split
from ffconv.data.fetching import OnError, worker_processes
from ffconv.data.media import Media
from ffconv.data.shard_index import (
    INDEX_NAME,
    ShardIndex,
    expand_shards,
    is_command,
    is_remote,
    read_index,
    require_allowed,
)
from ffconv.data.shards import LocalShards
from ffconv.data.streaming import ShardStream
from ffconv.errors import InputError, require


@dataclass(frozen=True)
class FilesConfig:
    """Where files are and how they are read.

    Args:
        path: folder (or URL) that holds the splits; the embedded sets need none.
        train: where the training split is: a folder in ``path``, or shards in webdataset's notation (braces,
            URLs, ``pipe:`` commands), relative to ``path`` where they are local.
        val: where the validation split is, likewise.
        train_index: path or URL of the ``shards.json`` of streamed training shards; by default beside them.
        val_index: likewise for the validation shards.
        workers: worker processes per process; null takes one a core, at most eight.
        on_error: ``raise`` stops at an unreadable file, ``skip`` leaves it out, counts and lists it.
        verify: read every file before training starts.
        shuffle_buffer: undecoded samples a worker holds to shuffle streamed shards.
        allow_commands: run the commands of ``pipe:COMMAND`` in the fields above. Not to be set in a recipe.

    Raises:
        InputError: for a value outside its range.
    """

    path: str = ""
    train: str = "train"
    val: str = "val"
    train_index: str = ""
    val_index: str = ""
    workers: int | None = None
    on_error: OnError = "raise"
    verify: bool = False
    shuffle_buffer: int = 1000
    allow_commands: bool = False

    def __post_init__(self) -> None:
        require(self.on_error in get_args(OnError), f"data.on_error={self.on_error!r} must be raise or skip")
        require(
            self.workers is None or self.workers >= 0, f"data.workers={self.workers} must not be negative"
        )
        require(self.shuffle_buffer >= 0, f"data.shuffle_buffer={self.shuffle_buffer} must not be negative")

    @property
    def worker_processes(self) -> int:
        """``workers``, or what suits the cores this process may use."""
        return worker_processes(self.workers)

    def location(self, split: Split) -> str:
        """Where a split is: a path, or shards in webdataset's notation.

        Raises:
            InputError: if ``path`` is needed and not given.
        """
        notation = self.train if split == "train" else self.val
        if is_remote(notation):
            return notation
        if is_remote(self.path):
            return f"{self.path.rstrip('/')}/{notation}"
        require(
            self.path != "",
            "data.path is not given: say where the data is by --data.path FOLDER or by a recipe"
            " (--config), or name an embedded set by --data.format",
        )
        return str(Path(self.path) / notation)


def has_shards(location: str) -> bool:
    """Return True if shards are meant: a URL, a tar file, or a folder that holds some."""
    return is_remote(location) or ".tar" in Path(location).name or any(Path(location).glob("*.tar"))


def open_shards(config: FilesConfig, split: Split, media: Media) -> LocalShards | ShardStream:
    """The shards of a split, read by index where they are local and uncompressed.

    Raises:
        InputError: where they are missing, broken, or have no index.
    """
    location, allowed = config.location(split), config.allow_commands
    require_allowed(location, allowed)
    given = config.train_index if split == "train" else config.val_index

    def stream(urls: Sequence[str], index: ShardIndex) -> ShardStream:
        return ShardStream(urls, index, config.shuffle_buffer, media, allow_commands=allowed)

    if is_remote(location) and ".tar" not in location:  # a folder, whose index names the shards
        index = read_index(given or f"{location}/{INDEX_NAME}", allow_commands=allowed)
        return stream(index.below(location), index)
    urls = expand_shards(location)
    if not any(is_remote(url) for url in urls) and all(url.endswith(".tar") for url in urls):
        return LocalShards(urls, media)
    for url in urls:
        require_allowed(url, allowed)
    if not given and is_command(urls[0]):
        raise InputError(f"{location}: a command's shards need data.{split}_index, their {INDEX_NAME}")
    index = read_index(given or f"{urls[0].rpartition('/')[0]}/{INDEX_NAME}", allow_commands=allowed)
    return stream(urls, index.of(urls))
