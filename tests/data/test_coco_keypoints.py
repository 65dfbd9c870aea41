"""Persons of annotation files with their images."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import ExifTags, Image

from coco_files import annotation, content, write
from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError


def opened(folder, data=None, **options) -> CocoKeypoints:
    return CocoKeypoints(write(folder, data or content()), folder / "images", **options)


def test_persons_come_with_their_image_in_the_order_of_the_images(tmp_path):
    samples = opened(tmp_path, content(annotation(1, 3), annotation(2, 7), annotation(3, 3)))
    assert [samples.person(number).image_id for number in range(len(samples))] == [7, 3, 3]
    assert [samples[number][0].getpixel((0, 0))[0] for number in range(3)] == [70, 30, 30]


def test_missing_images_are_listed(tmp_path):
    data = content()
    data["images"] += [
        {"id": 50 + n, "file_name": f"gone{n}.png", "width": 64, "height": 48} for n in range(7)
    ]
    data["annotations"] += [annotation(50 + n, 50 + n) for n in range(7)]
    listed = ", ".join(f"gone{n}.png" for n in range(5))
    message = rf"images: 7 of 9 images are missing: {listed}, \.\.\. \(7 in all\)"
    with pytest.raises(InputError, match=message):
        opened(tmp_path, data)


def test_images_without_persons_may_be_missing(tmp_path):
    write(tmp_path, content())
    path = write(tmp_path, content(annotation(1, 7)))
    (tmp_path / "images" / "3.png").unlink()
    assert len(CocoKeypoints(path, tmp_path / "images")) == 1


def test_images_in_folders_of_their_own(tmp_path):
    data = content(annotation(1, 7))
    data["images"][0]["file_name"] = "sub/7.png"
    path = write(tmp_path, data)
    (tmp_path / "images" / "sub").mkdir()
    (tmp_path / "images" / "7.png").rename(tmp_path / "images" / "sub" / "7.png")
    assert CocoKeypoints(path, tmp_path / "images")[0][0].getpixel((0, 0)) == (70, 70, 70)


def test_unchecked_files_are_unreadable_samples(tmp_path):
    path = write(tmp_path, content())
    (tmp_path / "images" / "7.png").unlink()
    samples = CocoKeypoints(path, tmp_path / "images", check_files=False)
    with pytest.raises(UnreadableSample, match=r"7.png"):
        samples[0]


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder of images"):
        CocoKeypoints(write(tmp_path, content()), tmp_path / "nowhere")


def turned(folder, size):
    """Image 7, stored lying, that its EXIF orientation turns upright."""
    path = write(folder, content(annotation(1, 7)))
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(folder / "images" / "7.png", exif=exif)
    data = json.loads(path.read_text())
    data["images"][0] |= {"width": size[0], "height": size[1]}
    path.write_text(json.dumps(data))
    return CocoKeypoints(path, folder / "images")[0][0]


def test_image_annotated_as_stored(tmp_path):
    image = turned(tmp_path, (64, 48))
    assert (image.size, image.getpixel((0, 0))) == ((64, 48), (255, 255, 255))


def test_image_annotated_upright(tmp_path):
    image = turned(tmp_path, (48, 64))
    assert (image.size, image.getpixel((47, 0))) == ((48, 64), (255, 255, 255))


def test_image_of_another_size_than_annotated(tmp_path):
    with pytest.raises(UnreadableSample, match=r"7.png: has 48 x 64 pixels, but its annotation says 50 x 50"):
        turned(tmp_path, (50, 50))


def detected(folder, *entries, **options):
    path = folder / "found.json"
    path.write_text(json.dumps(list(entries)))
    return opened(folder, detections=path, **options)


def test_detected_boxes_take_the_annotated_ones_place(tmp_path):
    entry = {"image_id": 3, "category_id": 5, "bbox": [1, 2, 30, 40], "score": 0.25}
    samples = detected(tmp_path, entry)
    person = samples.person(0)
    assert (len(samples), person.image_id, person.score) == (1, 3, 0.25)
    assert not person.visibility.any()
    assert len(samples.ground_truth()["annotations"]) == 3


def test_no_detection_above_the_threshold(tmp_path):
    entry = {"image_id": 3, "category_id": 5, "bbox": [1, 2, 30, 40], "score": 0.25}
    with pytest.raises(
        InputError, match=r"found.json: no person can be used: there are no annotations or boxes"
    ):
        detected(tmp_path, entry, detection_threshold=0.5)


def test_no_person_at_all(tmp_path):
    data = content(annotation(1, 7, iscrowd=1), annotation(2, 7, keypoints=[0] * 9))
    with pytest.raises(InputError, match=r"no person can be used: 1 crowds, 1 without keypoints"):
        opened(tmp_path, data)


def test_spawned_workers_can_have_them(tmp_path):
    samples = pickle.loads(pickle.dumps(opened(tmp_path)))
    assert samples[0][0].getpixel((0, 0)) == (70, 70, 70)
    assert len(samples.ground_truth()["annotations"]) == 3


@pytest.mark.reference
def test_real_annotations(reference):
    root = reference / "data" / "coco_keypoints_mini"
    for split, persons, left_out in (("train", 196, (9, 124, 0, 0)), ("val", 164, (5, 81, 0, 0))):
        samples = CocoKeypoints(
            root / f"annotations/person_keypoints_{split}2017.json", root / f"{split}2017"
        )
        assert (len(samples), tuple(samples.left_out.values())) == (persons, left_out)
        image, person = samples[len(samples) - 1]
        assert (person.keypoints[person.visibility > 0] < image.size).all()


@pytest.mark.reference
def test_real_detections(reference):
    root = reference / "data" / "coco_keypoints_mini"
    paths = root / "annotations/person_keypoints_val2017.json", root / "val2017"
    found = root / "annotations/person_detections_4_images.json"
    samples = CocoKeypoints(*paths, detections=found, detection_threshold=0.5)
    scores = [entry["score"] for entry in json.loads(found.read_text())]
    assert len(samples) == sum(score >= 0.5 for score in scores)
