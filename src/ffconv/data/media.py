"""Kinds of files that are samples, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffconv.data.decoding import read_bytes
from ffconv.data.samples import EncodedSample
from ffconv.errors import InputError, require

#: Label of a sample without one.
NO_LABEL = -1


@dataclass(frozen=True)
class Media:
    """A kind of file.

    Args:
        noun: what one is called.
        extensions: how their names end, in lower case, with the dot.
        from_file: what a sample gives for a path.
        from_bytes: what it gives for a file's content and name.
    """

    noun: str
    extensions: tuple[str, ...]
    from_file: Callable[[Path], Any]
    from_bytes: Callable[[bytes, str], Any]

    @property
    def one(self) -> str:
        """The noun with its article."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    @property
    def listed(self) -> str:
        """The extensions for a message."""
        return " ".join(self.extensions)


class LabelledFiles:
    """Files with labels: ``samples[index]`` is (what ``media`` makes of the file, label).

    Args:
        files: the paths.
        labels: of each file its class's number.
        classes: names of the classes.
        media: what the files are.
    """

    def __init__(
        self, files: Sequence[str], labels: Sequence[int] | np.ndarray, classes: Sequence[str], media: Media
    ) -> None:
        self.classes = tuple(classes)
        self.labels = np.asarray(labels)
        self.media = media
        # One array, not a million strings: counting references to strings copies a forked worker's pages.
        self._files = np.array([os.fsencode(file) for file in files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.media.from_file(self.file(index)), int(self.labels[index])

    def file(self, index: int) -> Path:
        """The path of a file."""
        return Path(os.fsdecode(self._files[index]))

    def encoded(self, index: int) -> EncodedSample:
        """The file as it is."""
        file = self.file(index)
        return EncodedSample(file.stem, file.suffix[1:].lower(), read_bytes(file), int(self.labels[index]))


class MediaFolder(LabelledFiles):
    """A tree ``path/<class>/**/<file>``; classes and files in the order of their names.

    Files are known by their extension; hidden files and folders are ignored.

    Args:
        path: folder of the class folders.
        media: which files.

    Raises:
        InputError: for a missing path, one without class folders, or a class folder without such files.
    """

    def __init__(self, path: str | Path, media: Media) -> None:
        self.path = _existing_folder(path)
        noun = media.noun
        with named_os_errors():
            folders = sorted(_class_folders(self.path))
            with ThreadPoolExecutor(max_workers=16) as pool:  # network file systems are slow, but in parallel
                found = list(pool.map(lambda name: sorted(files_below(self.path / name, media)), folders))
        if not folders:
            raise InputError(f"{path}: holds no class folders (expected {path}/<class>/<{noun}>)")
        empty = [name for name, files in zip(folders, found, strict=True) if not files]
        if empty:
            raise InputError(
                f"{self.path / empty[0]}: class folder without {noun}s ({media.listed})"
                + (f", and {len(empty) - 1} more such folders" if len(empty) > 1 else "")
            )
        labels = np.repeat(np.arange(len(folders)), [len(files) for files in found])
        super().__init__([file for files in found for file in files], labels, folders, media)


class MediaFiles:
    """One file, or all files below a folder, unlabelled: ``samples[index]`` is (content, ``NO_LABEL``).

    Raises:
        InputError: for a missing path or a folder without such files.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: str | Path, media: Media) -> None:
        path = Path(path)
        self._media = media
        with named_os_errors():
            require(path.exists(), f"{path}: no such file or folder")
            self.files = [path] if path.is_file() else sorted(map(Path, files_below(path, media)))
        if not self.files:
            raise InputError(f"{path}: holds no {media.noun} ({media.listed})")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._media.from_file(self.files[index]), NO_LABEL


@contextmanager
def named_os_errors() -> Iterator[None]:
    """Turns errors of the file system into InputError that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error


def files_below(folder: Path | str, media: Media, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of all such files below a folder, hidden ones left out.

    Args:
        folder: where to begin.
        media: which files.
        above: the folders that it was reached through, without links.

    Raises:
        InputError: For a link to a folder above it: the paths would never end.
    """
    real = os.path.realpath(folder)
    require(real not in above, f"{folder}: is a link to a folder above it")
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry):
                continue
            if _is_folder(entry):
                yield from files_below(entry.path, media, (*above, real))
            elif entry.name.lower().endswith(media.extensions):
                yield entry.path


def _existing_folder(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder")
    if not path.is_dir():
        raise InputError(f"{path}: is not a folder")
    return path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: an unreadable file
        return False


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _class_folders(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries if _is_folder(entry) and not _hidden(entry))
