"""What is known of webdataset shards without reading them: names, sizes, numbers of samples, classes.

``shards.json`` lies beside the shards that ``write_shards`` makes. It has the layout of webdataset's own
``wids`` index, ``{"wids_version": 1, "shardlist": [{"url", "nsamples", "filesize"}, ...]}``, and the class
names under ``"classes"``.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlparse

from ffconv.errors import InputError, require
from ffconv.files import MAX_FILE_BYTES, read_file
from ffconv.wording import counted

INDEX_NAME = "shards.json"

_NAME = re.compile(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """One shard: its name relative to the index, its number of samples, its size in bytes (0: not known)."""

    url: str
    nsamples: int
    filesize: int


@dataclass(frozen=True)
class ShardIndex:
    """What ``shards.json`` says."""

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]

    @classmethod
    def parse(cls, content: bytes, where: str) -> ShardIndex:
        """Reads an index.

        Raises:
            InputError: naming ``where`` it was read from, when it is no such index.
        """
        try:
            fields = json.loads(content)
            shards = [
                Shard(str(shard["url"]), int(shard["nsamples"]), int(shard.get("filesize", 0)))
                for shard in fields["shardlist"]
            ]
            if any(shard.nsamples < 0 or shard.filesize < 0 for shard in shards):
                raise ValueError("a number below 0")
            return cls(tuple(map(str, fields["classes"])), tuple(shards))
        except Exception as error:  # foreign content fails anywhere
            raise InputError(f"{where}: is no index of shards ({type(error).__name__}: {error})") from error

    def text(self) -> str:
        """The content of ``shards.json``."""
        shards = [asdict(shard) for shard in self.shards]
        return json.dumps({"wids_version": 1, "shardlist": shards, "classes": self.classes}, indent=1)

    def below(self, location: str) -> list[str]:
        """Return the URLs of the shards in the folder of the index.

        Raises:
            InputError: For a name that leaves the folder, or has characters with a meaning to a shell: where
                the location is a command, the name becomes part of it.
        """
        for shard in self.shards:
            require(
                _NAME.fullmatch(shard.url) is not None,
                f"{location}/{INDEX_NAME}: shard {shard.url!r} must be a name of letters, digits and ._+-/"
                " below the folder",
            )
        return [f"{location}/{shard.url}" for shard in self.shards]

    def of(self, urls: Sequence[str]) -> ShardIndex:
        """The index of some of the shards, in the order of their URLs.

        They are found by their file names; where a name is unknown, the index must list equally many shards
        and is taken in its order.

        Raises:
            InputError: where it does not.
        """
        named = {shard.url: shard for shard in self.shards}
        chosen = [named[name] for url in urls if (name := url.rpartition("/")[2]) in named]
        if len(chosen) == len(urls):
            return ShardIndex(self.classes, tuple(chosen))
        if len(urls) == len(self.shards):
            return self
        raise InputError(
            f"{urls[0]}: {counted(len(urls), 'shard')}, but the index lists {len(self.shards)} others"
        )


def read_index(location: str, *, allow_commands: bool = False) -> ShardIndex:
    """Return an index from a path, or from whatever webdataset opens.

    Raises:
        InputError: where there is none, or a command would run that is not allowed.
    """
    require_allowed(location, allow_commands)
    require_webdataset()
    if not is_remote(location):
        return ShardIndex.parse(read_file(Path(location)), location)
    from webdataset.gopen import gopen

    try:
        with gopen(location) as stream:
            content = stream.read(MAX_FILE_BYTES)
    except OSError as error:
        reason = error.strerror or "no answer"
        raise InputError(f"{location}: the shards' index cannot be read ({reason})") from error
    return ShardIndex.parse(content, location)


def expand_shards(notation: str) -> list[str]:
    """Shards in webdataset's notation (braces, ``::``), a local folder of shards, or a local glob.

    Raises:
        InputError: where webdataset is not installed or nothing is found.
    """
    require_webdataset()
    from webdataset.shardlists import expand_urls

    is_folder = Path(notation).is_dir()
    if is_remote(notation) or not (is_folder or glob.has_magic(notation)):
        return expand_urls(notation)
    shards = sorted(map(str, Path(notation).glob("*.tar")) if is_folder else glob.glob(notation))
    if not shards:
        raise InputError(f"{notation}: holds no shards (*.tar)")
    return shards


def is_remote(notation: str) -> bool:
    """Return True if shards can only be read as a stream: a command or a URL."""
    return is_command(notation) or "://" in notation


def is_command(url: str) -> bool:
    """Return True if webdataset opens this by running a command of a shell."""
    return urlparse(url).scheme == "pipe"  # as webdataset decides it: whatever the case, blanks in front


def require_allowed(url: str, allow_commands: bool) -> None:
    """Refuse a command unless commands are allowed.

    Raises:
        InputError: naming the option that allows them.
    """
    require(
        allow_commands or not is_command(url),
        f"{url!r} would run a command: where it comes from someone you trust, allow it by"
        " --data.allow_commands true",
    )


def require_webdataset() -> None:
    """Raises InputError that says how to install webdataset, where it is missing."""
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise InputError("shards need the package webdataset: pip install 'ffconv[webdataset]'") from error
