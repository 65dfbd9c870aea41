"""Images and the masks of their holes, as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from ffconv.data.decoding import decode_with, read_bytes, to_rgb, turn_upright
from ffconv.data.images import ImageFiles
from ffconv.data.samples import UnreadableSample, some
from ffconv.errors import InputError, require
from ffconv.wording import counted

#: Which pixels of a mask are the hole: the white ones, or by its transparency.
MaskMeaning = Literal["white", "opaque", "transparent"]

_HALF = 128
_COLOURFUL = 64  # difference of the largest and smallest channel


@dataclass(frozen=True)
class MaskedImage:
    """An image file, the file of its mask if any, and a name for the result (without extension)."""

    image: Path
    mask: Path | None
    name: str

    def read_mask(self) -> Image.Image | None:
        """Read the mask, upright and in its own mode.

        Raises:
            UnreadableSample: If the file cannot be read.
        """
        return self.mask and decode_with(read_bytes(self.mask), str(self.mask), turn_upright)


def hole_of_mask(
    mask: Image.Image, size: tuple[int, int], *, meaning: MaskMeaning = "white", name: str = "mask"
) -> np.ndarray:
    """Read a hole off a mask: (H, W) bool, True inside it.

    Args:
        mask: In any mode. A mask of another size than the image is resized: a pixel belongs to the hole if
            any part of it does.
        size: Width and height of the image.
        meaning: white takes pixels brighter than mid-grey, transparent ones counting as black; opaque takes
            what is painted on a transparent layer, in any colour; transparent takes what was erased.
        name: What the mask is called in an error.

    Raises:
        UnreadableSample: For a mask of another shape, without the transparency that `meaning` names, with
            colours and transparency where it names none, without a hole, or with nothing else.
    """
    hole = resize_hole(_marked(mask, meaning, name), size, name=name)
    if not hole.any():
        reason = "no pixel is brighter than mid-grey" if meaning == "white" else f"no pixel is {meaning}"
        raise UnreadableSample(name, f"has no hole: {reason}")
    if hole.all():
        rule = "be white, all else black" if meaning == "white" else f"be {meaning}, all else not"
        raise UnreadableSample(name, f"is all hole: what is to be filled must {rule}")
    return hole


def resize_hole(hole: np.ndarray, size: tuple[int, int], *, name: str = "mask") -> np.ndarray:
    """Resize a hole to an image's width and height, so that no marked pixel is lost.

    Raises:
        UnreadableSample: If the shapes differ by more than a pixel and a hundredth.
    """
    height, width = hole.shape
    if (width, height) == size:
        return hole
    if abs(height * size[0] / width - size[1]) > max(1, size[1] / 100):
        sizes = f"is {width}x{height} px, but its image {size[0]}x{size[1]} px"
        raise UnreadableSample(name, f"{sizes}: only a mask of the same shape can be resized")
    scaled = Image.fromarray(hole.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(scaled) > 0


def _marked(mask: Image.Image, meaning: MaskMeaning, name: str) -> np.ndarray:
    if meaning not in get_args(MaskMeaning):
        raise InputError(f"mask_is={meaning!r} must be one of {', '.join(get_args(MaskMeaning))}")
    if not mask.has_transparency_data:
        if meaning != "white":
            raise UnreadableSample(name, f"has no transparency, by which mask_is {meaning} reads it")
        return np.asarray(to_rgb(mask).convert("L")) >= _HALF
    layers = mask.convert("RGBA")
    visible = np.asarray(layers)[..., 3] >= _HALF
    if meaning != "white":
        return visible if meaning == "opaque" else ~visible
    colours = np.asarray(layers)[..., :3][visible].astype(int)
    if 0 < visible.mean() < 1 and (np.ptp(colours, axis=1) > _COLOURFUL).mean() > 0.01:
        raise UnreadableSample(
            name, "has colours and transparency: set mask_is to opaque (painted) or transparent (erased)"
        )
    over_black = Image.alpha_composite(Image.new("RGBA", layers.size, "black"), layers)
    return np.asarray(over_black.convert("L")) >= _HALF


def masked_images(images: Path, masks: Path | None) -> list[MaskedImage]:
    """Pair images with masks by name.

    Two files belong together. Of two folders each image ``a.jpg`` has the masks ``a.png`` or ``a_mask*.png``,
    any extension, at the same place below its folder; both folders may be one, and one mask file serves a
    whole folder.

    Args:
        images: a file or a folder.
        masks: likewise; None pairs each image with no mask.
    Raises:
        InputError: for a missing path, or images without a mask, listed.
    """
    if masks is None:
        files = ImageFiles(images).files
        root = images.parent if images.is_file() else images
        return [MaskedImage(file, None, file.relative_to(root).with_suffix("").as_posix()) for file in files]
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
