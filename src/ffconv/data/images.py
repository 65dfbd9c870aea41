"""Folders of images: one folder a class, or files without labels."""

from __future__ import annotations

from pathlib import Path

from ffconv.data.decoding import decode_image, read_image
from ffconv.data.media import Media, MediaFiles, MediaFolder

IMAGE_EXTENSIONS = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

#: Samples are RGB PIL images.
IMAGES = Media("image", IMAGE_EXTENSIONS, read_image, decode_image)


class ImageFolder(MediaFolder):
    """A tree ``path/<class>/**/<image>``: ``folder[index]`` is ``(PIL RGB image, label)``.

    Raises:
        InputError: as ``MediaFolder`` does.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, IMAGES)


class ImageFiles(MediaFiles):
    """One image, or all images below a folder, unlabelled: ``samples[index]`` is ``(image, NO_LABEL)``.

    Raises:
        InputError: as ``MediaFiles`` does.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, IMAGES)
