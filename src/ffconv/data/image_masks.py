"""Images and the masks of their holes, as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ffconv.data.decoding import read_image
from ffconv.data.images import ImageFiles
from ffconv.data.samples import UnreadableSample, some
from ffconv.errors import InputError, require
from ffconv.wording import counted

_HALF = 128


@dataclass(frozen=True)
class MaskedImage:
    """An image file, the file of its mask, and what the filled image is to be called (without extension)."""

    image: Path
    mask: Path
    name: str

    def read(self) -> tuple[Image.Image, np.ndarray]:
        """The image as upright RGB, and its hole (H, W) bool: where the mask is brighter than mid-grey.

        Raises:
            UnreadableSample: if a file cannot be read, the sizes differ, or the mask has no hole or nothing
                else.
        """
        image, mask = read_image(self.image), read_image(self.mask)
        if image.size != mask.size:
            sizes = [f"{side[0]}x{side[1]}" for side in (mask.size, image.size)]
            raise UnreadableSample(
                str(self.mask), f"is {sizes[0]} px, but its image {self.image} {sizes[1]} px"
            )
        hole = np.asarray(mask.convert("L")) >= _HALF
        if not hole.any():
            raise UnreadableSample(str(self.mask), "has no hole: no pixel is brighter than mid-grey")
        if hole.all():
            raise UnreadableSample(
                str(self.mask), "is all hole: what is to be filled must be white, all else black and opaque"
            )
        return image, hole


def masked_images(images: Path, masks: Path) -> list[MaskedImage]:
    """Pairs images with masks by name.

    Two files belong together. Of two folders each image ``a.jpg`` has the masks ``a.png`` or ``a_mask*.png``,
    any extension, at the same place below its folder; both folders may be one, and one mask file serves a
    whole folder.

    Args:
        images: a file or a folder.
        masks: likewise.
    Raises:
        InputError: for a missing path, or images without a mask, listed.
    """
    if images.is_file():
        require(masks.is_file(), f"{masks}: no such mask file for the image {images}")
        return [MaskedImage(images, masks, images.stem)]
    together = images.resolve() == masks.resolve()
    files = [file for file in ImageFiles(images).files if not (together and "_mask" in file.stem)]
    require(bool(files), f"{images}: holds masks alone")
    names = {file: file.relative_to(images).with_suffix("") for file in files}
    if masks.is_file():
        return [MaskedImage(file, masks, name.as_posix()) for file, name in names.items()]
    found: dict[str, list[Path]] = {}
    for mask in ImageFiles(masks).files:
        if not together or "_mask" in mask.stem:
            name = mask.relative_to(masks).with_suffix("").as_posix()
            found.setdefault(re.sub(r"_mask[^/]*$", "", name), []).append(mask)
    missing = [str(file) for file, name in names.items() if name.as_posix() not in found]
    if missing:
        raise InputError(f"{masks} has no mask for {counted(len(missing), 'image')}: {some(missing)}")
    pairs = []
    for file, name in names.items():
        of_image = found[name.as_posix()]
        for mask in of_image:  # several masks of an image are told apart by their own names
            own = (
                name.as_posix() if len(of_image) == 1 else mask.relative_to(masks).with_suffix("").as_posix()
            )
            pairs.append(MaskedImage(file, mask, own))
    return pairs
