"""Images and the files of their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffconv.data.image_masks import MaskedImage, masked_images
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


def test_the_hole_is_what_is_brighter_than_mid_grey(tmp_path: Path):
    levels = np.array([[0, 60, 127], [128, 200, 255]], dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "mask.png")
    image = save(tmp_path / "a.png", size=(3, 2))
    _, hole = MaskedImage(image, tmp_path / "mask.png", "a").read()
    assert hole.tolist() == [[False, False, False], [True, True, True]]


@pytest.mark.parametrize(
    ("level", "size", "message"),
    [
        (0, (8, 6), r"mask\.png: has no hole"),
        (255, (8, 6), r"mask\.png: is all hole"),
        (255, (6, 8), r"mask\.png: is 6x8 px, but its image .*a\.png 8x6 px"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(level: int, size: tuple, message: str, tmp_path: Path):
    pair = MaskedImage(save(tmp_path / "a.png"), save(tmp_path / "mask.png", level, size), "a")
    with pytest.raises(InputError, match=message):
        pair.read()
