"""Image files that are changed and written back: format, quality, colour profile and EXIF stay."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

from ffconv.data.decoding import decode_with, read_bytes, turn_upright
from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError, first_line, require

#: Formats that are written, by extension.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    ".bmp": "BMP",
    ".png": "PNG",
    ".webp": "WEBP",
}
# Without a file of the same format to follow.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True},
}
_LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
_DESCRIPTIONS = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software),
    *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright),
)


@dataclass(frozen=True)
class Photo:
    """An image file.

    Args:
        path: The file.
        image: Its pixels, upright, in the mode that Pillow reads.
        form: Its format, by Pillow's name.
        settings: Quality and the like: what Pillow's ``save`` takes to write the same kind of file.
        metadata: Colour profile, EXIF without its orientation and thumbnail, and resolution.
    """

    path: Path
    image: Image.Image
    form: str
    settings: dict[str, Any]
    metadata: dict[str, Any]

    def encode(self, image: Image.Image, suffix: str) -> bytes:
        """Encode a changed image as a file with this extension.

        In the photograph's own format a JPEG file gets its quantisation tables and chroma subsampling. WebP
        and TIFF are written without loss.

        Raises:
            InputError: For an unknown extension, or a format that cannot hold such pixels.
        """
        known = suffix.lower() in FORMATS
        require(known, f"{suffix or 'no extension'}: images are written as {', '.join(FORMATS)}")
        form = FORMATS[suffix.lower()]
        settings = self.settings if form == self.form else _DEFAULTS.get(form, {})
        content = io.BytesIO()
        try:
            image.save(content, format=form, **settings, **self.metadata)
        except (OSError, ValueError) as error:
            hint = "choose an output with the extension .png"
            raise InputError(f"{self.path}: as {form}: {first_line(error)}: {hint}") from error
        return content.getvalue()


def extension_of_copy(path: Path) -> str:
    """Return a file's own extension, or .png where its format (GIF) cannot hold all colours."""
    return path.suffix if path.suffix.lower() in FORMATS else ".png"


def read_photo(path: Path) -> Photo:
    """Read an image file with all that is needed to write it back.

    Raises:
        UnreadableSample: If it cannot be decoded, or holds several frames or pages.
    """

    def keep(image: Image.Image) -> Photo:
        frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise UnreadableSample(str(path), f"holds {frames} frames or pages: save one of them by itself")
        # A phone's MPO is a JPEG file with further pictures, such as a depth map, behind the first.
        form = "JPEG" if image.format == "MPO" else str(image.format)
        upright = turn_upright(image)  # before the orientation is taken out of its EXIF
        metadata = _metadata(image)
        return Photo(path, upright, form, _settings(image, form, metadata), metadata)

    return decode_with(read_bytes(path), str(path), keep)


def _settings(image: Image.Image, form: str, metadata: dict[str, Any]) -> dict[str, Any]:
    if form == "JPEG":
        tables: Any = getattr(image, "quantization", None)
        return {
            "qtables": tables,
            "subsampling": JpegImagePlugin.get_sampling(image),
            "progressive": bool(image.info.get("progressive")),
        }
    if form == "TIFF":
        if "exif" in metadata:  # Pillow writes these into uncompressed files only
            return {"compression": "raw"}
        compression = image.info.get("compression")
        return {"compression": compression} if compression in _LOSSLESS_TIFF else dict(_DEFAULTS["TIFF"])
    return dict(_DEFAULTS.get(form, {}))


def _metadata(image: Image.Image) -> dict[str, Any]:
    """Return what is kept; Pillow writes what a format has a place for, and passes over the rest."""
    kept = {name: image.info[name] for name in ("icc_profile", "dpi") if image.info.get(name)}
    orientation = None
    try:
        exif = image.getexif()
        orientation = exif.pop(ExifTags.Base.Orientation, None)
        if image.format == "TIFF":  # where the file's own tags, such as its size, are among them
            for tag in [tag for tag in exif if tag not in _DESCRIPTIONS]:
                if tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                    del exif[tag]
        if len(exif):
            # Without the thumbnail, which would go on showing what was removed.
            kept["exif"] = exif.tobytes()
    except Exception:  # broken EXIF is kept as it is, unless it would turn the upright image once more
        if "exif" in image.info and orientation in (None, 1):
            kept["exif"] = image.info["exif"]
    return kept
