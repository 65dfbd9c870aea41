"""Files in COCO's format, whole and broken."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from coco_files import NAMES, annotation, content, write
from ffconv.data.coco_format import read_annotations, read_detections
from ffconv.data.keypoint_sets import KeypointConfig
from ffconv.errors import InputError


def read(folder, data, **options):
    return read_annotations(write(folder, data), **options)


def test_what_a_file_says(tmp_path):
    file = read(tmp_path, content())
    assert (file.category_id, file.category_name, file.keypoint_set.names) == (5, "puppet", NAMES)
    assert [(number, image.file_name) for number, image in file.images.items()] == [
        (7, "7.png"),
        (3, "3.png"),
    ]
    first = file.annotations[0]
    assert (first.image_id, first.area, first.crowd) == (7, 300.0, False)
    np.testing.assert_array_equal(first.box, [10, 5, 21, 31])
    np.testing.assert_array_equal(first.keypoints, [[20, 10], [28, 30], [0, 0]])
    np.testing.assert_array_equal(first.visibility, [2, 1, 0])


def test_other_categories_are_passed_over(tmp_path):
    chair = {"id": 9, "image_id": 7, "category_id": 2, "bbox": [0, 0, 5, 5]}
    assert len(read(tmp_path, content(annotation(1, 7), chair)).annotations) == 1


def test_area_is_estimated_where_there_is_none(tmp_path):
    alone = annotation(1, 7)
    del alone["area"], alone["iscrowd"], alone["id"]
    assert read(tmp_path, content(alone)).annotations[0].area == pytest.approx(0.53 * 21 * 31)


def test_a_crowd_needs_no_keypoints(tmp_path):
    crowd = annotation(1, 7, iscrowd=1)
    del crowd["keypoints"]
    found = read(tmp_path, content(crowd)).annotations[0]
    assert found.crowd
    assert not found.visibility.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": [], "num_keypoints": 0, "bbox": [0, 0, 0, 0]},
        {"keypoints": None, "num_keypoints": 0},
        {"keypoints": [0] * 9, "num_keypoints": 0, "bbox": [900, 5, 9, 9], "area": math.nan},
        {"keypoints": [math.nan, math.nan, 0] * 3, "num_keypoints": 0, "bbox": None},
        {"iscrowd": 1, "keypoints": [], "bbox": [0, 0, math.nan, 5]},
    ],
)
def test_annotations_without_labelled_keypoints_need_nothing_else(tmp_path, changes):
    file = read(tmp_path, content(annotation(1, 7), annotation(2, 7, **changes)))
    assert not file.annotations[1].visibility.any()
    assert np.isfinite(file.annotations[1].keypoints).all()
    assert np.isfinite([*file.annotations[1].box, file.annotations[1].area]).all()


def test_annotations_of_unlisted_images_are_counted(tmp_path):
    file = read(tmp_path, content(annotation(1, 7), annotation(2, 99), annotation(3, 98)))
    assert (len(file.annotations), file.unlisted) == (1, 2)


def test_any_visibility_above_zero_is_a_label(tmp_path):
    pseudo = annotation(1, 7, keypoints=[20, 10, 0.37, 28, 30, 0.9, 5, 5, -1])
    del pseudo["num_keypoints"]
    found = read(tmp_path, content(pseudo)).annotations[0]
    np.testing.assert_array_equal(found.visibility, [0.37, 0.9, -1])
    assert found.num_keypoints == 2


def test_test_set_without_annotations(tmp_path):
    data = content()
    del data["annotations"]
    assert read(tmp_path, data).annotations == ()


def test_names_by_configuration_where_no_category_has_any(tmp_path):
    data = content(annotation(1, 7))
    del data["categories"][0], data["categories"][0]["keypoints"]
    file = read(tmp_path, data, config=KeypointConfig(names=["a", "b", "c"]))
    assert file.keypoint_set.names == ("a", "b", "c")


def test_category_by_name(tmp_path):
    data = content()
    data["categories"][0]["keypoints"] = ["seat"]
    data["annotations"] = [annotation(1, 7, category_id=2, keypoints=[20, 10, 2])]
    assert read(tmp_path, data, category="chair").keypoint_set.names == ("seat",)


def broken(**changes):
    return {**content(), **changes}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "is not in COCO's format: holds no object"),
        (broken(images=None), "is not in COCO's format: holds no list of images"),
        (broken(annotations={}), "holds no list of annotations"),
        (broken(categories=[{"name": "x"}]), "a category has no id"),
        (
            broken(categories=[{"id": 1, "name": "cat"}]),
            r"has no keypoints: no category lists any \(its categories: cat\)",
        ),
        (broken(images=[{"id": 7, "width": 3, "height": 3}]), "image 7: has no file_name"),
        (
            content(annotation(4, 7, keypoints=[1, 2])),
            "keypoints holds 2 numbers, but must hold 9, 3 for each of 3",
        ),
        (content(annotation(4, 7, keypoints=[math.nan] * 9)), "annotation 4: keypoints must be finite"),
        (content(annotation(4, 7, keypoints=[math.nan, 3, 2] * 3)), "annotation 4: keypoints must be finite"),
        (content(annotation(4, 7, keypoints=[])), "keypoints holds 0 numbers, but must hold 9"),
        (content(annotation(4, 7, bbox=[0, 0, math.inf, 5])), "annotation 4: bbox must be finite"),
        (content(annotation(4, 7, area=math.nan)), "annotation 4: area must be finite"),
        (content(annotation(4, 7, bbox=None)), "annotation 4: bbox holds 1 numbers, but must hold 4"),
        (content(annotation(4, 7, bbox=["a", 0, 1, 2])), "annotation 4: cannot be read"),
        (
            content(annotation(4, 7, bbox=[70, 5, 9, 9])),
            r"annotation 4: bbox \[70, 5, 9, 9\] lies outside its image of 64 x 48 pixels",
        ),
        (content(annotation(4, 7, bbox=[-20, 5, 9, 9])), "lies outside its image"),
        (
            broken(images=2 * [{"id": 7, "file_name": "7.png", "width": 64, "height": 48}]),
            "image 7: another image has the same id$",
        ),
        (broken(annotations=["x"]), "annotation x: cannot be read"),
    ],
)
def test_what_is_at_fault_is_named_in_one_line(tmp_path, data, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "annotations.json"))
    assert "\n" not in str(caught.value)


def test_missing_entry_is_named(tmp_path):
    without = annotation(4, 7)
    del without["bbox"]
    with pytest.raises(InputError, match=r"annotation 4: has no bbox$"):
        read(tmp_path, content(without))


def test_unknown_category(tmp_path):
    with pytest.raises(
        InputError, match=r"has no category data.category='dog' \(its categories: chair, puppet\)"
    ):
        read(tmp_path, content(), category="dog")


def test_several_categories_with_keypoints(tmp_path):
    data = content()
    data["categories"][0]["keypoints"] = ["seat"]
    with pytest.raises(
        InputError, match=r"several categories have keypoints \(chair, puppet\): set data.category"
    ):
        read(tmp_path, data)


@pytest.mark.parametrize("text", ["{", "", "Hello", '{"images": [\n1,\n]}'])
def test_text_that_is_not_json(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x.json: is not JSON: .* in line \d$"):
        read_annotations(path)


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"x.json: is not JSON"):
        read_annotations(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone.json: No such file"):
        read_annotations(tmp_path / "gone.json")


def detections(folder, *entries, threshold=0.0):
    path = folder / "detections.json"
    path.write_text(json.dumps(list(entries)))
    return read_detections(path, read(folder, content()), threshold)


def detection(score, **changes):
    return {"image_id": 7, "category_id": 5, "bbox": [1, 2, 30, 40], "score": score, **changes}


def test_detections_of_the_category_from_the_threshold_on(tmp_path):
    entries = (detection(0.2), detection(0.5), detection(0.9, category_id=2), detection(0.7))
    assert [found.score for found in detections(tmp_path, *entries, threshold=0.5)] == [0.5, 0.7]


def test_detection_keeps_its_box(tmp_path):
    found = detections(tmp_path, detection(0.5, bbox=[-3.5, 2, 30, 40]))[0]
    np.testing.assert_array_equal(found.box, [-3.5, 2, 30, 40])


def test_detections_without_extent_are_passed_over(tmp_path):
    assert detections(tmp_path, detection(0.5, bbox=[3, 4, 0, 9])) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (detection(math.nan), "result 0: score must be finite"),
        (detection(0.5, bbox=[0, 0, math.nan, 1]), "result 0: bbox must be finite"),
        (detection(0.5, image_id=99), "result 0: image 99 is not among the images"),
        (detection(0.5, bbox=[99, 0, 5, 5]), "result 0: bbox .* lies outside its image of 64 x 48"),
        ({"image_id": 7}, "result 0: has no category_id"),
    ],
)
def test_detections_at_fault(tmp_path, entry, message):
    with pytest.raises(InputError, match=message):
        detections(tmp_path, entry)


def test_detections_are_a_list(tmp_path):
    path = write(tmp_path, content())
    with pytest.raises(InputError, match=r"is not in COCO's result format: must be a list"):
        read_detections(path, read_annotations(path))


@pytest.mark.parametrize("name", ["../7.png", "/etc/7.png", "a/../../7.png", "..\\7.png", "a\0.png"])
def test_an_image_outside_the_folder_is_refused(tmp_path, name):
    data = content(annotation(1, 7))
    data["images"][0]["file_name"] = name
    with pytest.raises(InputError, match=r"image 7: file_name=.* must be a path below the folder of images"):
        read(tmp_path, data)


def test_images_may_lie_in_folders_below(tmp_path):
    data = content(annotation(1, 7))
    data["images"][0]["file_name"] = "camera..1/./7.png"
    assert read(tmp_path, data).images[7].file_name == "camera..1/./7.png"
