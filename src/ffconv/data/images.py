"""Folders of images: one folder a class, or files without labels."""

from __future__ import annotations

from pathlib import Path

from ffconv.data.decoding import decode_image, read_image
from ffconv.data.embedded import Split
from ffconv.data.media import Media, MediaFiles, MediaFolder
from ffconv.errors import require

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


class UnsplitImageFiles(ImageFiles):
    """The images below a folder without splits: every tenth by name validates, the others train.

    Raises:
        InputError: As ``MediaFiles`` does, and for a single image.
    """

    def __init__(self, path: str | Path, split: Split) -> None:
        super().__init__(path)
        require(
            len(self.files) > 1,
            f"{path}: holds 1 image, which cannot be split: training and validation need 2",
        )
        self.files = [
            file for number, file in enumerate(self.files) if (number % 10 == 0) == (split == "val")
        ]
