"""Folders of images."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from ffconv.data.images import ImageFiles, ImageFolder, UnsplitImageFiles
from ffconv.data.media import NO_LABEL
from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError


def levels(samples) -> list[int]:
    return [samples[index][0].getpixel((0, 0))[0] for index in range(len(samples))]


def test_classes_are_the_sorted_folders(tree):
    assert ImageFolder(tree).classes == ("ant", "bee", "cat")


def test_labels_follow_the_classes(tree):
    samples = ImageFolder(tree)
    assert [samples[index][1] for index in range(24)] == [0] * 8 + [1] * 8 + [2] * 8


def test_files_are_sorted_by_name(tree):
    assert levels(ImageFolder(tree)) == list(range(0, 240, 10))


def test_hidden_and_foreign_files_are_ignored(tree):
    shutil.copy(tree / "ant" / "0.png", tree / "ant" / ".hidden.png")
    (tree / "ant" / "notes.txt").write_text("no image")
    (tree / ".cache").mkdir()
    (tree / "README").write_text("no class")
    samples = ImageFolder(tree)
    assert (len(samples), samples.classes) == (24, ("ant", "bee", "cat"))


def test_extensions_in_capitals_and_nested_folders(tree):
    (tree / "cat" / "more").mkdir()
    Image.new("RGB", (2, 2)).save(tree / "cat" / "more" / "A.JPEG")
    assert len(ImageFolder(tree)) == 25


def test_linked_class_folder(tree, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tree / "cat").rename(tmp_path / "elsewhere" / "cat")
    (tree / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    assert levels(ImageFolder(tree)) == list(range(0, 240, 10))


def test_file_names_outside_ascii(tree):
    (tree / "ant" / "0.png").rename(tree / "ant" / "ä 猫.png")
    samples = ImageFolder(tree)
    assert samples.file(7).name == "ä 猫.png"
    assert samples[7][0].getpixel((0, 0)) == (0, 0, 0)


def test_encoded_is_the_file_itself(tree):
    sample = ImageFolder(tree).encoded(9)
    assert sample == ("1", "png", (tree / "bee" / "1.png").read_bytes(), 1)


def test_pickled_folder_is_the_same(tree):
    samples = ImageFolder(tree)
    assert levels(pickle.loads(pickle.dumps(samples))) == levels(samples)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="gone: no such folder"):
        ImageFolder(tmp_path / "gone")


def test_file_in_place_of_a_folder(tree):
    with pytest.raises(InputError, match=r"0\.png: is not a folder"):
        ImageFolder(tree / "ant" / "0.png")


@pytest.mark.parametrize("content", [(), ("image.png",)], ids=["empty", "images without classes"])
def test_no_class_folders(tmp_path, content):
    for name in content:
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    with pytest.raises(InputError, match="holds no class folders"):
        ImageFolder(tmp_path)


def test_class_folder_without_images(tree):
    for name in ("dog", "eel"):
        (tree / name).mkdir()
    (tree / "dog" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"/dog: class folder without images .*, and 1 more"):
        ImageFolder(tree)


def test_files_of_a_folder_without_labels(tree):
    samples = ImageFiles(tree)
    assert levels(samples) == list(range(0, 240, 10))
    assert samples[3][1] == NO_LABEL


def test_single_file(tree):
    samples = ImageFiles(tree / "bee" / "2.png")
    assert levels(samples) == [100]


def test_folder_without_any_image(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        ImageFiles(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_may_never_end_is_an_unreadable_sample(tree, kind):
    path = tree / "ant" / "0.png"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    samples = ImageFolder(tree)
    assert len(samples) == 24
    with pytest.raises(UnreadableSample, match=r"ant/0\.png: is a pipe or a device"):
        samples[0]


def test_a_link_to_itself_is_an_unreadable_sample(tree):
    (tree / "ant" / "0.png").unlink()
    (tree / "ant" / "0.png").symlink_to("0.png")
    with pytest.raises(UnreadableSample, match=r"ant/0\.png: Too many levels of symbolic links"):
        ImageFolder(tree)[0]


def test_a_file_above_the_limit_is_not_read(tree):
    os.truncate(tree / "ant" / "0.png", 2**40)
    with pytest.raises(UnreadableSample, match=r"ant/0\.png: has 1099511627776 bytes, more than"):
        ImageFolder(tree)[0]


def test_links_in_a_circle_are_refused(tree):
    """Two of them would give 2^40 paths before the system gave up."""
    for name in ("one", "two"):
        (tree / "ant" / name).symlink_to("../bee")
        (tree / "bee" / name).symlink_to("../ant")
    with pytest.raises(InputError, match=r"(one|two): is a link to a folder above it"):
        ImageFolder(tree)


@pytest.mark.reference
def test_unlabelled_originals(reference):
    samples = ImageFiles(reference / "data" / "imagenet_samples")
    assert len(samples) == 40
    assert np.asarray(samples[0][0]).ndim == 3


def test_a_folder_without_splits_holds_out_every_tenth_image(tree):
    train, val = (UnsplitImageFiles(tree, split) for split in ("train", "val"))
    assert levels(val) == [0, 100, 200]
    assert sorted(levels(train) + levels(val)) == list(range(0, 240, 10))


def test_a_single_image_cannot_be_split(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="holds 1 image, which cannot be split"):
        UnsplitImageFiles(tmp_path, "val")
