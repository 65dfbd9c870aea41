"""``ffconv shards``: from a folder of images or videos to webdataset shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.errors import InputError, require
from ffconv.wording import counted, say

if TYPE_CHECKING:
    from ffconv.cli.parser import CommandParser

HELP = "Packs images or videos into webdataset shards, for local disks, web servers and object stores."

SPLITS = ("train", "val")


def add_arguments(parser: CommandParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "source", type=Path, help="folder of class folders, or of splits (train, val) of such"
    )
    parser.add_argument("output", type=Path, help="folder for the shards; must not hold anything yet")
    parser.add_argument("--kind", type=Literal["image", "video"], default="image", help="which files")
    parser.add_argument("--samples_per_shard", type=int, default=5000, help="files in a shard, at most")
    parser.add_argument("--mib_per_shard", type=int, default=1024, help="size after which a shard ends")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the files")
    parser.add_argument("--verify", type=bool, default=True, help="read every file first, refuse bad ones")
    parser.add_argument("--workers", type=int, default=2, help="processes that read the files")


def run(arguments: Any) -> None:
    """Writes the shards of each split and says how many there are."""
    from ffconv.data.clips import read_whole
    from ffconv.data.images import IMAGES
    from ffconv.data.media import MediaFolder
    from ffconv.data.shard_index import require_webdataset
    from ffconv.data.shard_writing import require_unused, write_shards
    from ffconv.data.verify import number_only, refuse_unreadable, verify
    from ffconv.data.videos import VIDEOS

    require_webdataset()  # before every file is read
    require(arguments.workers >= 0, f"workers={arguments.workers} must not be negative")
    splits = [name for name in SPLITS if (arguments.source / name).is_dir()]
    media, read = {"image": (IMAGES, number_only), "video": (VIDEOS, read_whole)}[arguments.kind]
    opened = {name: MediaFolder(arguments.source / name, media) for name in splits or ["."]}
    for name in opened:
        require_unused(arguments.output / name)
    if arguments.verify:
        for samples in opened.values():
            refuse_unreadable(verify(samples, read=read, workers=arguments.workers), len(samples))
    for name, samples in opened.items():
        folder = arguments.output / name
        try:
            index = write_shards(
                samples,
                folder,
                samples_per_shard=arguments.samples_per_shard,
                bytes_per_shard=arguments.mib_per_shard * 2**20,
                seed=arguments.seed,
                media=media,
            )
        except OSError as error:  # a full or write-protected disk
            raise InputError(f"{error.filename or folder}: {error.strerror}") from error
        files = sum(shard.nsamples for shard in index.shards)
        classes = counted(len(index.classes), "class")
        say(f"{folder}: {counted(files, media.noun)} of {classes} in {counted(len(index.shards), 'shard')}")
