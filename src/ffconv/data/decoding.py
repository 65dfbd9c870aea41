"""Any image file to upright 8-bit RGB, or an error that names the file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError
from ffconv.files import read_file, require_regular

Result = TypeVar("Result")

#: Pillow knows more, some of which run other programs (EPS) or hold no picture.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

#: What turns an image of an EXIF orientation upright (1 is upright).
_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, *, upright: bool = True) -> Image.Image:
    """``decode_image`` of a file; raises ``UnreadableSample`` also where the file cannot be opened."""
    return decode_image(read_bytes(path), str(path), upright=upright)


def sample_size(path: Path, name: str) -> int:
    """Return the size in bytes of a sample's file.

    Raises:
        UnreadableSample: If the file is missing, or not a regular one.
    """
    try:
        return require_regular(path).st_size
    except OSError as error:
        raise UnreadableSample(name, error.strerror or str(error)) from error
    except InputError as error:
        raise UnreadableSample(name, str(error).removeprefix(f"{path}: ")) from error


def read_bytes(path: Path) -> bytes:
    """Return the content of a sample's file.

    Raises:
        UnreadableSample: If the file is missing, may not be read, is not a regular one, or above 2 GiB.
    """
    try:
        return read_file(path)
    except InputError as error:
        raise UnreadableSample(str(path), str(error).removeprefix(f"{path}: ")) from error


def decode_image(content: bytes, name: str, *, upright: bool = True) -> Image.Image:
    """Decode an image of any mode to RGB.

    Transparent pixels are laid over white. 16-bit grey is scaled to 8 bit (65535 becomes 255). Of several
    frames the first counts. Pillow's warnings are kept from the user, who could do nothing about them.

    Args:
        content: the encoded file.
        name: what the file is called in an error.
        upright: turn it by its EXIF orientation; otherwise the pixels stay as they are stored.

    Raises:
        UnreadableSample: for an empty, truncated or foreign file, for floating point pixels, and for more
            pixels than ``PIL.Image.MAX_IMAGE_PIXELS``, which are taken for a decompression bomb.
    """

    def convert(image: Image.Image) -> Image.Image:
        return to_rgb(turn_upright(image) if upright else image)

    return decode_with(content, name, convert)


def decode_with(content: bytes, name: str, use: Callable[[Image.Image], Result]) -> Result:
    """Decode an image and return what a function makes of it; raises ``UnreadableSample`` as `decode_image`.

    Args:
        content: The encoded file.
        name: What the file is called in an error.
        use: Takes the image as Pillow reads it, before it is closed.
    """
    if not content:
        raise UnreadableSample(name, "is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                image.load()
                return use(image)
    except UnreadableSample:
        raise
    except UnidentifiedImageError:
        raise UnreadableSample(name, "is no image in a known format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableSample(name, f"decompression bomb refused: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a malformed file makes Pillow's decoders raise almost anything
        raise UnreadableSample(name, f"cannot be decoded: {error or type(error).__name__}") from error


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation (``ImageOps.exif_transpose`` fails on other, unusual tags)."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata says nothing, and the pixels are already read
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, as `decode_image` says."""
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    if image.mode.startswith("I"):
        return _grey_to_8_bit(np.asarray(image))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_to_8_bit(pixels: np.ndarray) -> Image.Image:
    """Integer grey of 16 bits (or, where the values need it, 32) -> RGB, the full range onto 0..255."""
    wide = pixels.astype(np.int64)
    full = 2**16 - 1 if wide.max() < 2**16 else 2**32 - 1
    scaled = (np.clip(wide, 0, full) * 255 + full // 2) // full
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
