"""webdataset shards on local disks, read by index like a folder.

A shard is a tar file in which the files of one sample follow each other under one key: ``<key>.jpg`` (or
another extension of images, or one of videos) and ``<key>.cls``, the label in digits. Where ``samples.npy``
lies beside the shards it says where each file lies in them; otherwise the tar headers are read at the start.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tarfile import EOFHeaderError, HeaderError, ReadError  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any, Self

import numpy as np

from ffconv.data.images import IMAGES
from ffconv.data.media import Media
from ffconv.data.samples import EncodedSample, UnreadableSample
from ffconv.data.shard_index import INDEX_NAME, Shard, ShardIndex, read_index, require_webdataset
from ffconv.errors import InputError, require
from ffconv.files import MAX_FILE_BYTES, read_file
from ffconv.wording import counted

ENTRIES_NAME = "samples.npy"
ENTRY = np.dtype([("shard", "<i4"), ("label", "<i4"), ("offset", "<i8"), ("size", "<i8")])

_MAX_ATTRIBUTES = 2**20  # bytes of a header's long name and the like
_MAX_PADDING = 2**24  # bytes of zeros; the largest records that tapes have are smaller
_MAX_DIGITS = 9  # of a label
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset keeps for itself


class LocalShards:
    """Uncompressed local shards as a map-style source of (what ``media`` makes of a file, label).

    Only the wanted file is read, so the guarantees of ``ffconv.data.loading`` hold as they do for a folder.

    Args:
        files: the shards; the ``shards.json`` beside the first names the classes (without one they are called
            "0", "1", ...).
        media: what they hold.

    Raises:
        InputError: for a missing, empty, broken or truncated shard, and a sample without file or label.
    """

    def __init__(self, files: Sequence[str | Path], media: Media = IMAGES) -> None:
        require_webdataset()
        self._media = media
        self._files = [Path(file) for file in files]
        for file in self._files:
            require(file.is_file(), f"{file}: no such shard")
        beside = self._files[0].absolute().with_name(INDEX_NAME)
        index = read_index(str(beside)) if beside.is_file() else None
        stored = _stored_entries(self._files, index) if index else None
        self._entries = scan_shards(self._files, media) if stored is None else stored
        require(len(self._entries) > 0, f"{self._files[0]}: the shards hold no samples")
        needed = int(self._entries["label"].max()) + 1
        self.classes = index.classes if index else tuple(map(str, range(needed)))
        require(
            needed <= len(self.classes),
            f"{self._files[0]}: label {needed - 1} in the shards, but {counted(len(self.classes), 'class')}",
        )

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        member, content = self._read(index)
        sample = self._media.from_bytes(content, f"{self._file(index)}:{member}")
        return sample, int(self._entries[index]["label"])

    def encoded(self, index: int) -> EncodedSample:
        """The file as it is."""
        member, content = self._read(index)
        path = Path(member)
        return EncodedSample(path.stem, path.suffix[1:].lower(), content, int(self._entries[index]["label"]))

    def _file(self, index: int) -> Path:
        return self._files[self._entries[index]["shard"]]

    def _read(self, index: int) -> tuple[str, bytes]:
        """The file's name, from the tar header that precedes it, and its content."""
        file, entry = self._file(index), self._entries[index]
        try:
            with file.open("rb") as stream:
                stream.seek(int(entry["offset"]) - tarfile.BLOCKSIZE)
                header, content = stream.read(tarfile.BLOCKSIZE), stream.read(int(entry["size"]))
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except OSError as error:
            raise UnreadableSample(str(file), error.strerror or str(error)) from error
        except tarfile.TarError as error:
            raise UnreadableSample(f"{file}:byte {entry['offset']}", f"no file here ({error})") from error
        if len(content) < entry["size"]:
            raise UnreadableSample(f"{file}:{member}", "the shard ends before the sample does")
        return member, content


def index_shards(files: Sequence[Path], classes: Sequence[str], media: Media = IMAGES) -> ShardIndex:
    """Writes ``samples.npy`` and ``shards.json`` beside shards that lie in one folder."""
    entries = scan_shards(files, media)
    counts = np.bincount(entries["shard"], minlength=len(files)).tolist()
    shards = [Shard(file.name, count, file.stat().st_size) for file, count in zip(files, counts, strict=True)]
    index = ShardIndex(tuple(classes), tuple(shards))
    np.save(files[0].with_name(ENTRIES_NAME), entries)
    files[0].with_name(INDEX_NAME).write_text(index.text(), encoding="utf-8")
    return index


def scan_shards(files: Sequence[Path], media: Media = IMAGES) -> np.ndarray:
    """Finds every sample from the shards' tar headers: an array of ``ENTRY``, in the order of the shards.

    Raises:
        InputError: naming the shard that is broken, or the sample that lacks a file or a label.
    """
    entries = [entry for number, file in enumerate(files) for entry in _scan_shard(file, number, media)]
    return np.array(entries, dtype=ENTRY)


def _scan_shard(file: Path, number: int, media: Media) -> Iterator[tuple[int, int, int, int]]:
    from webdataset.tariterators import group_by_keys

    try:
        with tarfile.open(file, "r:", tarinfo=StrictTarInfo) as tar:
            for fields in group_by_keys(_headers(tar, file)):
                name = f"{file}:{fields['__key__']}"
                content, label_member = file_and_label(fields, name, media)
                label = tar.extractfile(label_member)
                label = parse_label(label.read(_MAX_DIGITS + 2) if label else b"", name)
                yield number, label, content.offset_data, content.size
    except InputError:
        raise
    except Exception as error:  # damaged bytes fail anywhere in tarfile
        raise InputError(f"{file}: is no complete tar file ({error})") from error


def _headers(tar: tarfile.TarFile, file: Path) -> Iterator[dict[str, Any]]:
    """Yield files as webdataset's grouping takes them, with headers in place of contents."""
    for member in tar_members(tar):
        yield {"fname": member.name, "data": member, "__url__": str(file)}


class StrictTarInfo(tarfile.TarInfo):
    """The headers of a tar file; a damaged or missing one is an error, which tarfile takes for the end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:  # a block of zeros is the end
            raise
        except HeaderError as error:
            raise ReadError(f"{error} at byte {tarfile.offset}: cut off or damaged") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        # tarfile reads the names and attributes in these before anyone sees them.
        if header.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and header.size > _MAX_ATTRIBUTES:
            raise ReadError(f"{header.size} bytes of attributes")
        return header


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar that was opened with `StrictTarInfo`, up to its mark of the end.

    Raises:
        tarfile.TarError: If the tar has no such mark, holds data after it, or holds a file that is too large
            for the memory.
    """
    for member in tar:
        if member.isreg() and not _META.match(member.name):
            if member.size > MAX_FILE_BYTES or member.issparse():
                raise ReadError(f"{member.name} has {member.size} bytes, or is stored with holes")
            yield member
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  else it keeps all headers
    padding = 0
    while block := tar.fileobj.read(2**16):  # pyright: ignore[reportOptionalMemberAccess]
        padding += len(block)
        if any(block) or padding > _MAX_PADDING:
            raise ReadError("more than padding after the mark of its end: joined or damaged")


def file_and_label(fields: Mapping[str, Any], name: str, media: Media) -> tuple[Any, Any]:
    """The image or video and the ``.cls`` of a sample's fields, which are keyed by extension.

    Raises:
        InputError: naming the sample that lacks one of them.
    """
    file = next((value for extension, value in fields.items() if f".{extension}" in media.extensions), None)
    label = fields.get("cls")
    if file is None or label is None:
        found = ", ".join(f".{extension}" for extension in sorted(fields) if not extension.startswith("__"))
        raise InputError(f"{name}: a sample needs {media.one} and a .cls label, this one has {found}")
    return file, label


def parse_label(content: bytes, name: str) -> int:
    """The label in a ``.cls`` file.

    Raises:
        InputError: naming the sample whose label is no class number.
    """
    text = content.strip()
    require(
        text.isdigit() and len(text) <= _MAX_DIGITS, f"{name}: label {content[:20]!r} is not a class number"
    )
    return int(text)


def _stored_entries(files: Sequence[Path], index: ShardIndex) -> np.ndarray | None:
    """The entries of the chosen shards from ``samples.npy``; None where it does not cover them."""
    source = files[0].with_name(ENTRIES_NAME)
    numbers = {shard.url: number for number, shard in enumerate(index.shards)}
    chosen = [numbers.get(file.name, -1) for file in files]
    if not source.is_file() or -1 in chosen or any(file.parent != source.parent for file in files):
        return None
    for file, number in zip(files, chosen, strict=True):
        size, expected = file.stat().st_size, index.shards[number].filesize
        require(
            size == expected, f"{file}: {size} bytes, but {INDEX_NAME} says {expected}: copied incompletely?"
        )
    entries = _read_entries(source)
    parts = [entries[entries["shard"] == number] for number in chosen]
    for place, (file, part) in enumerate(zip(files, parts, strict=True)):
        ends = part["offset"] + part["size"]
        sound = (part["offset"] >= tarfile.BLOCKSIZE) & (part["size"] >= 0) & (ends <= file.stat().st_size)
        require(
            bool(sound.all() and (part["label"] >= 0).all()),
            f"{source}: names samples that lie outside {file}: delete it, and the shards are read",
        )
        part["shard"] = place
    return np.concatenate(parts)


def _read_entries(source: Path) -> np.ndarray:
    """Return the table in ``samples.npy``, one `ENTRY` a sample."""
    try:
        entries = np.load(io.BytesIO(read_file(source)), allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # a damaged header fails anywhere in numpy
        raise InputError(f"{source}: is no table of samples: delete it, and the shards are read") from error
    if not isinstance(entries, np.ndarray) or entries.dtype != ENTRY or entries.ndim != 1:
        raise InputError(f"{source}: is no table of samples: delete it, and the shards are read")
    return entries
