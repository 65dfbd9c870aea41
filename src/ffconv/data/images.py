"""Folders of images: one folder a class, or files without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ffconv.data.decoding import read_bytes, read_image
from ffconv.data.samples import EncodedSample
from ffconv.errors import InputError

IMAGE_EXTENSIONS = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

#: Label of an image without one.
NO_LABEL = -1


class ImageFolder:
    """A tree ``path/<class>/**/<image>``; classes and files in the order of their names.

    Files are known as images by their extension; hidden files and folders are ignored. ``folder[index]`` is
    ``(PIL RGB image, label)``.

    Args:
        path: folder of the class folders.

    Raises:
        InputError: for a missing path, one without class folders, or a class folder without images.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _existing_folder(path)
        with _named_os_errors():
            folders = sorted(_class_folders(self.path))
            with ThreadPoolExecutor(max_workers=16) as pool:  # network file systems are slow, but in parallel
                found = list(pool.map(lambda name: sorted(_images_below(self.path / name)), folders))
        if not folders:
            raise InputError(f"{path}: holds no class folders (expected {path}/<class>/<image>)")
        empty = [name for name, files in zip(folders, found, strict=True) if not files]
        if empty:
            raise InputError(
                f"{self.path / empty[0]}: class folder without images ({' '.join(IMAGE_EXTENSIONS)})"
                + (f", and {len(empty) - 1} more such folders" if len(empty) > 1 else "")
            )
        self.classes = tuple(folders)
        self.labels = np.repeat(np.arange(len(folders)), [len(files) for files in found])
        # One array, not a million strings: counting references to strings copies a forked worker's pages.
        self._files = np.array([os.fsencode(file) for files in found for file in files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.file(index)), int(self.labels[index])

    def file(self, index: int) -> Path:
        """The path of an image."""
        return Path(os.fsdecode(self._files[index]))

    def encoded(self, index: int) -> EncodedSample:
        """The file as it is."""
        file = self.file(index)
        return EncodedSample(file.stem, file.suffix[1:].lower(), read_bytes(file), int(self.labels[index]))


class ImageFiles:
    """One image, or all images below a folder, unlabelled: ``samples[index]`` is ``(image, NO_LABEL)``.

    Raises:
        InputError: for a missing path or a folder without images.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        with _named_os_errors():
            self.files = (
                [path] if path.is_file() else sorted(map(Path, _images_below(_existing_folder(path))))
            )
        if not self.files:
            raise InputError(f"{path}: holds no image ({' '.join(IMAGE_EXTENSIONS)})")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.files[index]), NO_LABEL


@contextmanager
def _named_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error


def _existing_folder(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder")
    if not path.is_dir():
        raise InputError(f"{path}: is not a folder")
    return path


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _class_folders(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries if entry.is_dir() and not _hidden(entry))


def _images_below(folder: Path | str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry):
                continue
            if entry.is_dir():
                yield from _images_below(entry.path)
            elif entry.name.lower().endswith(IMAGE_EXTENSIONS):
                yield entry.path
