"""Images of every kind become upright 8-bit RGB; bad files are named."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from ffconv.data.decoding import decode_image, read_image
from ffconv.data.samples import UnreadableSample


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, form: str = "PNG", **options) -> np.ndarray:
    result = decode_image(encoded(image, form, **options), "x")
    assert result.mode == "RGB"
    return np.asarray(result)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_is_unchanged():
    pixels = noise(5, 7, 3)
    np.testing.assert_array_equal(decoded(Image.fromarray(pixels)), pixels)


def test_grey_fills_all_channels():
    pixels = noise(5, 7)
    np.testing.assert_array_equal(decoded(Image.fromarray(pixels)), np.stack([pixels] * 3, axis=-1))


def test_bilevel():
    assert decoded(Image.new("1", (2, 2), 1)).min() == 255


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(form):
    values = np.array([[0, 128, 257, 300, 32768, 65278, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257)[..., None].repeat(3, axis=-1)
    np.testing.assert_array_equal(decoded(Image.fromarray(values), form), expected)


def test_16_bit_big_endian_grey():
    values = np.array([[0, 257 * 7, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    np.testing.assert_array_equal(decoded(image, "TIFF")[..., 0], [[0, 7, 255]])


def test_16_bit_colour(tmp_path):
    """Pillow cannot write it, so the file is spelled out: a binary PPM of depth 65535."""
    values = np.array([[[65535, 257 * 100, 0]]], dtype=">u2")
    image = decode_image(b"P6 1 1 65535\n" + values.tobytes(), "x")
    np.testing.assert_array_equal(np.asarray(image), [[[255, 100, 0]]])


def test_32_bit_grey_uses_the_whole_range():
    values = np.array([[0, 2**31 - 1]], dtype=np.int32)
    np.testing.assert_array_equal(decoded(Image.fromarray(values), "TIFF")[..., 0], [[0, 127]])


def test_floating_point_is_refused():
    with pytest.raises(UnreadableSample, match="x: cannot be decoded: floating point"):
        decoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")


def test_cmyk():
    white_and_red = Image.new("CMYK", (16, 8), (0, 0, 0, 0))
    white_and_red.paste((0, 255, 255, 0), (8, 0, 16, 8))
    pixels = decoded(white_and_red, "JPEG", quality=100).astype(int)
    assert abs(pixels[4, 2] - (255, 255, 255)).max() < 8
    assert abs(pixels[4, 13] - (255, 0, 0)).max() < 8


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(decoded(image), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])], ids=["one colour", "alpha per colour"])
def test_transparent_palette_lies_over_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = decoded(image, transparency=transparency)
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [200, 100, 50]]])


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 51)), ("LA", (0, 51))], ids=["RGBA", "LA"])
def test_transparency_lies_over_white(mode, colour):
    assert decoded(Image.new(mode, (1, 1), colour)).tolist() == [[[204, 204, 204]]]


def test_transparent_colour_of_rgb():
    pixels = decoded(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3))
    assert pixels.tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, form):
    """The eight orientations of the EXIF standard, each by what turns the stored pixels upright."""
    upright = noise(2, 3, 3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    np.testing.assert_array_equal(decoded(image, form, exif=exif), upright)


def test_broken_exif_does_not_spoil_the_pixels():
    assert decoded(Image.new("RGB", (8, 8), "white"), exif=b"Exif\0\0MM\xff\xff\0\0\0\x08").min() == 255


def test_orientation_beside_a_tag_of_the_wrong_type():
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    content = exif.tobytes().replace(b"\x01\x1a\0\x05", b"\x01\x03\0\x05")  # a compression, as fraction
    assert decoded(Image.new("RGB", (4, 2)), exif=content).shape == (4, 2, 3)


def test_first_frame_of_several():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pixels = decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_empty_file():
    with pytest.raises(UnreadableSample, match=r"^a\.jpg: is empty"):
        decode_image(b"", "a.jpg")


@pytest.mark.parametrize("content", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"])
def test_foreign_file(content):
    with pytest.raises(UnreadableSample, match=r"^a\.jpg: is no image in a known format$"):
        decode_image(content, "a.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_truncated_file(form):
    content = encoded(Image.fromarray(noise(64, 64, 3)), form)
    with pytest.raises(UnreadableSample, match=r"^a\.img: "):
        decode_image(content[: len(content) // 2], "a.img")


@pytest.mark.parametrize("sides", [(100, 11), (100, 100)], ids=["Pillow warns", "Pillow refuses"])
def test_decompression_bomb_is_refused(monkeypatch, sides):
    content = encoded(Image.new("RGB", sides))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableSample, match=r"^a\.png: decompression bomb refused: .*1000"):
        decode_image(content, "a.png")


def test_pillows_warnings_do_not_leak():
    image = Image.new("P", (1, 1))
    image.putpalette([0, 0, 0])
    content = encoded(image, transparency=bytes([7]))
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        decode_image(content, "x")
    assert not leaked


def test_missing_file(tmp_path):
    with pytest.raises(UnreadableSample, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


def test_file_is_named_by_its_path(tmp_path):
    (tmp_path / "zero.png").touch()
    with pytest.raises(UnreadableSample, match=f"^{tmp_path}/zero.png: is empty"):
        read_image(tmp_path / "zero.png")


@pytest.mark.reference
def test_original_imagenet_files(reference):
    files = sorted((reference / "data" / "imagenet_samples").glob("*.JPEG"))
    assert len(files) == 40
    for file in files:
        with Image.open(file) as image:
            plain = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(read_image(file)), plain)


def test_pixels_as_they_are_stored():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = decode_image(encoded(Image.fromarray(noise(5, 7, 3)), exif=exif), "x", upright=False)
    np.testing.assert_array_equal(np.asarray(stored), noise(5, 7, 3))
