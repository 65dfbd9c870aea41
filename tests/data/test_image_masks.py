"""Images and the files of their masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from ffconv.data.image_masks import MaskedImage, hole_of_mask, masked_images, resize_hole
from ffconv.errors import InputError


def save(path: Path, level: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


def paired(pairs: list[MaskedImage], root: Path) -> list[tuple[str, str, str]]:
    return [
        (pair.image.relative_to(root).as_posix(), pair.mask.relative_to(root).as_posix(), pair.name)
        for pair in pairs
    ]


def test_two_files(tmp_path: Path):
    image, mask = save(tmp_path / "a.png"), save(tmp_path / "hole.png")
    assert masked_images(image, mask) == [MaskedImage(image, mask, "a")]


def test_folders_by_name_whatever_the_extension(tmp_path: Path):
    for name in ("img/a.jpg", "img/deep/b.png", "mask/a.png", "mask/deep/b_mask.png", "mask/more.png"):
        save(tmp_path / name)
    found = paired(masked_images(tmp_path / "img", tmp_path / "mask"), tmp_path)
    assert found == [
        ("img/a.jpg", "mask/a.png", "a"),
        ("img/deep/b.png", "mask/deep/b_mask.png", "deep/b"),
    ]


def test_one_folder_of_images_and_masks(tmp_path: Path):
    for name in ("a.png", "a_mask001.png", "a_mask002.png", "b.png", "b_mask.png"):
        save(tmp_path / name)
    assert paired(masked_images(tmp_path, tmp_path), tmp_path) == [
        ("a.png", "a_mask001.png", "a_mask001"),
        ("a.png", "a_mask002.png", "a_mask002"),
        ("b.png", "b_mask.png", "b"),
    ]


def test_one_mask_for_a_folder(tmp_path: Path):
    save(tmp_path / "img/a.png"), save(tmp_path / "img/b.png")
    mask = save(tmp_path / "hole.png")
    assert [pair.mask for pair in masked_images(tmp_path / "img", mask)] == [mask, mask]


def test_images_without_mask_are_listed(tmp_path: Path):
    for name in ("img/a.png", "img/b.png", "img/c.png", "mask/b.png"):
        save(tmp_path / name)
    with pytest.raises(InputError, match=r"mask has no mask for 2 images: .*img/a\.png, .*img/c\.png"):
        masked_images(tmp_path / "img", tmp_path / "mask")


def test_an_image_needs_a_mask_file(tmp_path: Path):
    with pytest.raises(InputError, match="no such mask file"):
        masked_images(save(tmp_path / "a.png"), tmp_path / "b.png")


def test_a_folder_of_masks_alone_is_refused(tmp_path: Path):
    save(tmp_path / "a_mask.png")
    with pytest.raises(InputError, match="holds masks alone"):
        masked_images(tmp_path, tmp_path)


def test_without_masks_each_image_has_none(tmp_path: Path):
    first, second = save(tmp_path / "a.png"), save(tmp_path / "deep/b.jpg")
    expected = [MaskedImage(first, None, "a"), MaskedImage(second, None, "deep/b")]
    assert masked_images(tmp_path, None) == expected
    assert masked_images(first, None) == expected[:1]
    assert expected[0].read_mask() is None


def test_a_mask_file_is_read_upright_in_its_own_mode(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("LA", (8, 6)).save(tmp_path / "mask.png", exif=exif)
    mask = MaskedImage(tmp_path / "a.png", tmp_path / "mask.png", "a").read_mask()
    assert mask is not None
    assert (mask.mode, mask.size) == ("LA", (6, 8))


def test_the_hole_is_what_is_brighter_than_mid_grey():
    levels = np.array([[0, 60, 127], [128, 200, 255]], dtype=np.uint8)
    hole = hole_of_mask(Image.fromarray(levels), (3, 2))
    assert hole.tolist() == [[False, False, False], [True, True, True]]


def test_masks_of_16_bits_and_of_palettes():
    levels = np.array([[0, 32767, 32896, 65535]], dtype=np.uint16)
    assert hole_of_mask(Image.fromarray(levels), (4, 1)).tolist() == [[False, False, True, True]]
    palette = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("P")
    assert hole_of_mask(palette, (2, 1)).tolist() == [[False, True]]


def layer(*pixels: tuple[int, int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([pixels], dtype=np.uint8))


WHITE, BLACK, RED, CLEAR = (255, 255, 255, 255), (0, 0, 0, 255), (255, 0, 0, 255), (255, 255, 255, 0)


@pytest.mark.parametrize(
    ("mask", "meaning", "hole"),
    [
        (layer(WHITE, BLACK, CLEAR), "white", [True, False, False]),
        (layer(WHITE, BLACK, BLACK), "white", [True, False, False]),
        (layer(RED, RED, CLEAR), "opaque", [True, True, False]),
        (layer(BLACK, CLEAR, CLEAR), "opaque", [True, False, False]),
        (layer(RED, WHITE, CLEAR), "transparent", [False, False, True]),
    ],
)
def test_masks_with_transparency(mask: Image.Image, meaning: Any, hole: list[bool]):
    assert hole_of_mask(mask, (3, 1), meaning=meaning).tolist() == [hole]


@pytest.mark.parametrize(
    ("mask", "meaning", "message"),
    [
        (layer(RED, WHITE, CLEAR), "white", "m has colours and transparency: set mask_is to opaque"),
        (layer(BLACK, CLEAR, CLEAR), "white", "m has no hole"),
        (layer(CLEAR, CLEAR, CLEAR), "opaque", "m has no hole: no pixel is opaque"),
        (
            layer(CLEAR, CLEAR, CLEAR),
            "transparent",
            "m is all hole: what is to be filled must be transparent",
        ),
        (Image.new("L", (3, 1)), "opaque", "m has no transparency, by which mask_is opaque reads it"),
        (Image.new("L", (3, 1)), "black", "mask_is='black' must be one of white, opaque, transparent"),
    ],
)
def test_masks_that_do_not_say_what_the_hole_is(mask: Image.Image, meaning: Any, message: str):
    with pytest.raises(InputError) as caught:
        hole_of_mask(mask, (3, 1), meaning=meaning, name="m")
    assert message in str(caught.value).replace("m: ", "m ")


@pytest.mark.parametrize(
    ("level", "size", "message"),
    [
        (0, (8, 6), "mask: has no hole"),
        (255, (8, 6), "mask: is all hole"),
        (255, (6, 8), "mask: is 6x8 px, but its image 8x6 px: only a mask of the same shape can be resized"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(level: int, size: tuple[int, int], message: str):
    with pytest.raises(InputError, match=message):
        hole_of_mask(Image.new("L", size, level), (8, 6))


def test_no_marked_pixel_is_lost_in_a_smaller_mask():
    marked = np.zeros((300, 400), dtype=bool)
    marked[[7, 120, 299], [3, 200, 399]] = True
    found = resize_hole(marked, (40, 30))
    assert np.argwhere(found).tolist() == [[0, 0], [12, 20], [29, 39]]


def test_a_larger_mask_repeats_pixels():
    marked = np.array([[True, False], [False, False]])
    assert np.array_equal(resize_hole(marked, (6, 6)), np.kron(marked, np.ones((3, 3), dtype=bool)))


@pytest.mark.parametrize("size", [(1000, 667), (1000, 666), (999, 666)])
def test_a_rounded_side_is_the_same_shape(size: tuple[int, int]):
    assert resize_hole(np.ones((200, 300), dtype=bool), size).shape == (size[1], size[0])
