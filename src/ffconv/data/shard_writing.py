"""Writes webdataset shards from any source of images or videos."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from rich.progress import track

from ffconv.data.images import IMAGES
from ffconv.data.media import Media
from ffconv.data.samples import EncodedSample, EncodedSamples, Samples
from ffconv.data.seeding import permutation
from ffconv.data.shard_index import ShardIndex, require_webdataset
from ffconv.data.shards import index_shards
from ffconv.errors import require
from ffconv.files import make_folder
from ffconv.pictures import encoded


def write_shards(
    samples: Samples[Any],
    folder: str | Path,
    *,
    samples_per_shard: int = 5000,
    bytes_per_shard: int = 2**30,
    seed: int = 0,
    media: Media = IMAGES,
    progress: bool = True,
) -> ShardIndex:
    """Writes shards and their index into a new folder.

    Files are copied byte by byte where the source has files, and stored as PNG where it has none. The
    samples are shuffled, so that a stream of a few shards sees all classes; equal arguments give equal
    shards. The folder appears under its name only when it is complete.

    Args:
        samples: source of ``(image or video, label)``; videos must be files.
        folder: where to; must not exist, or be empty.
        samples_per_shard, bytes_per_shard: a shard ends at whichever comes first.
        seed: of the shuffled order.
        media: what the samples are.
        progress: show a progress bar.

    Raises:
        InputError: for a folder that is in use or cannot be made, or sizes below 1.
    """
    folder = Path(folder).resolve()
    for name, value in (("samples_per_shard", samples_per_shard), ("bytes_per_shard", bytes_per_shard)):
        require(value >= 1, f"{name}={value} must be at least 1")
    require_unused(folder)
    require_webdataset()
    from webdataset.writer import ShardWriter

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    order = permutation(len(samples), seed, "shards").tolist()
    with ShardWriter(
        str(partial).replace("%", "%%") + "/%06d.tar",
        maxcount=samples_per_shard,
        maxsize=bytes_per_shard,
        verbose=0,
        encoder=False,
        mtime=0,
    ) as writer:
        for place, index in enumerate(track(order, description="writing shards", disable=not progress)):
            writer.write(_sample(samples, index, place))
    index_of_shards = index_shards(sorted(partial.glob("*.tar")), samples.classes, media)
    partial.replace(folder)
    return index_of_shards


def require_unused(folder: Path) -> None:
    """Refuses a folder that holds something already.

    Raises:
        InputError: naming it.
    """
    unused = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(unused, f"{folder}: already exists and is not an empty folder")


def _sample(samples: Samples[Any], index: int, place: int) -> dict[str, Any]:
    """A sample's files by extension; the key tells its place and, for a reader of an error, its old name."""
    if isinstance(samples, EncodedSamples):
        sample = samples.encoded(index)
    else:
        image, label = samples[index]
        sample = EncodedSample(str(index), "png", encoded(image), label)
    key = f"{place:08d}-{re.sub(r'[^A-Za-z0-9_-]', '_', sample.name)[:60]}"
    return {"__key__": key, sample.extension: sample.content, "cls": b"%d" % sample.label}
