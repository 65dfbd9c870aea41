"""Image files that are written back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from ffconv.data.photos import extension_of_copy, read_photo
from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(mode: str = "RGB", size: tuple[int, int] = (40, 28)) -> Image.Image:
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values.squeeze())


def exif(orientation: int | None = None) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker"
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:10:22 12:00:00"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return tags.tobytes()


def copied(path: Path) -> Image.Image:
    photo = read_photo(path)
    return Image.open(io.BytesIO(photo.encode(photo.image, path.suffix)))


def opened(path: Path) -> Any:
    return Image.open(io.BytesIO(path.read_bytes()))


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    (image or pixels()).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 63}),
        ("a.png", {}),
        ("a.webp", {"quality": 50}),
        ("a.tif", {"compression": "raw"}),
    ],
)
def test_exif_and_colour_profile_stay(name: str, options: dict[str, Any], tmp_path: Path):
    path = save(tmp_path / name, exif=exif(), icc_profile=PROFILE, **options)
    copy = copied(path)
    assert copy.info["icc_profile"] == PROFILE
    tags = copy.getexif()
    assert tags[ExifTags.Base.Make] == "Maker"
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2020:10:22 12:00:00"
    assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_turned_photo_is_written_upright_once(name: str, tmp_path: Path):
    path = save(tmp_path / name, exif=exif(orientation=6))
    copy = copied(path)
    assert copy.size == (28, 40)
    assert copy.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert copy.getexif()[ExifTags.Base.Make] == "Maker"


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 95])
def test_a_jpeg_keeps_its_quality(subsampling: int, quality: int, tmp_path: Path):
    path = save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling, progressive=True)
    copy: Any = copied(path)
    original = opened(path)
    assert copy.quantization == original.quantization
    assert JpegImagePlugin.get_sampling(copy) == subsampling
    assert copy.info["progressive"]


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGBA", {}),
        ("a.png", "LA", {}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.webp", "RGB", {"quality": 40}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.tif", "RGB", {"compression": "jpeg"}),
        ("a.bmp", "RGB", {}),
        ("a.ppm", "RGB", {}),
    ],
)
def test_other_formats_are_written_without_loss(
    name: str, mode: str, options: dict[str, Any], tmp_path: Path
):
    path = save(tmp_path / name, pixels(mode), **options)
    copy, original = copied(path), opened(path)
    assert (copy.format, copy.mode) == (original.format, original.mode)
    assert np.array_equal(np.asarray(copy), np.asarray(original))
    if options.get("compression") == "tiff_lzw":
        assert copy.info["compression"] == "tiff_lzw"


def test_a_thumbnail_does_not_show_what_was_removed(tmp_path: Path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(thumbnail, "JPEG")
    plain = exif()
    # A first IFD behind the others, with offset and length of a JPEG picture, as cameras write it.
    body = plain[6:]
    little = body[:2] == b"II"
    order = "little" if little else "big"
    start = int.from_bytes(body[4:8], order)
    count = int.from_bytes(body[start : start + 2], order)
    link = start + 2 + 12 * count
    entries = b"".join(
        tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
        for tag, value in ((0x0201, len(body) + 30), (0x0202, len(thumbnail.getvalue())))
    )
    second = (2).to_bytes(2, order) + entries + bytes(4)
    body = body[:link] + len(body).to_bytes(4, order) + body[link + 4 :] + second + thumbnail.getvalue()
    path = save(tmp_path / "a.jpg", exif=plain[:6] + body)
    assert opened(path).getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(thumbnail.getvalue())
    content = read_photo(path).encode(pixels(), ".jpg")
    assert thumbnail.getvalue() not in content
    assert Image.open(io.BytesIO(content)).getexif()[ExifTags.Base.Make] == "Maker"


def test_another_extension_is_another_format(tmp_path: Path):
    photo = read_photo(save(tmp_path / "a.jpg", icc_profile=PROFILE))
    copy = Image.open(io.BytesIO(photo.encode(photo.image, ".png")))
    assert (copy.format, copy.info["icc_profile"]) == ("PNG", PROFILE)
    assert np.array_equal(np.asarray(copy), np.asarray(photo.image))


def test_a_format_that_cannot_hold_the_pixels_is_named(tmp_path: Path):
    photo = read_photo(save(tmp_path / "a.png", pixels("RGBA")))
    with pytest.raises(InputError, match=r"a\.png: as JPEG: cannot write mode RGBA.*extension \.png"):
        photo.encode(photo.image, ".jpg")
    with pytest.raises(InputError, match=r"\.gif: images are written as \.jpg, "):
        photo.encode(photo.image, ".gif")


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
def test_files_of_several_frames_are_refused(name: str, tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableSample, match="holds 2 frames or pages"):
        read_photo(tmp_path / name)


def test_a_phones_jpeg_with_further_pictures_is_a_jpeg(tmp_path: Path):
    pixels().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[pixels()])
    assert opened(tmp_path / "a.jpg").format == "MPO"
    assert copied(tmp_path / "a.jpg").format == "JPEG"


@pytest.mark.parametrize("orientation", [None, 6])
def test_exif_that_cannot_be_written_does_not_turn_a_photo_twice(
    orientation: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save(tmp_path / "a.jpg", exif=exif(orientation))
    monkeypatch.setattr(Image.Exif, "tobytes", lambda self: 1 / 0)
    copy = copied(path)
    assert ("exif" in copy.info) == (orientation is None)


@pytest.mark.parametrize(("name", "extension"), [("a.JPG", ".JPG"), ("a.gif", ".png"), ("a.webp", ".webp")])
def test_a_copy_has_the_extension_of_its_format(name: str, extension: str):
    assert extension_of_copy(Path(name)) == extension
