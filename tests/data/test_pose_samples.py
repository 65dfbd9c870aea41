"""Persons: which annotations become samples, and what is evaluated."""

from __future__ import annotations

import numpy as np
import pytest

from coco_files import annotation, content, write
from ffconv.data.coco_format import read_annotations
from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.pose_samples import annotated_persons, coco_ground_truth


def selected(folder, *annotations):
    return annotated_persons(read_annotations(write(folder, content(*annotations))))


def test_box_ends_on_its_last_pixel(tmp_path):
    persons, _ = selected(tmp_path, annotation(1, 7))
    np.testing.assert_array_equal(persons[0].box, [10, 5, 20, 30])


def test_box_is_cut_to_the_image(tmp_path):
    persons, _ = selected(tmp_path, annotation(1, 7, bbox=[-4, 30, 100, 30]))
    np.testing.assert_array_equal(persons[0].box, [0, 30, 63, 17])


def test_annotated_person_has_the_score_of_certainty(tmp_path):
    persons, _ = selected(tmp_path, annotation(1, 7))
    assert persons[0].score == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iscrowd": 1}, "crowds"),
        ({"keypoints": [0] * 9}, "without keypoints"),
        ({"area": 0}, "degenerate boxes"),
        ({"bbox": [5, 5, 1, 1]}, "degenerate boxes"),
        ({"keypoints": [], "num_keypoints": 0, "bbox": [0, 0, 0, 0]}, "without keypoints"),
        ({"image_id": 99}, "of unlisted images"),
    ],
)
def test_what_is_left_out_is_counted(tmp_path, changes, reason):
    persons, left_out = selected(tmp_path, annotation(1, 7, **changes), annotation(2, 7))
    assert len(persons) == 1
    assert {name for name, count in left_out.items() if count} == {reason}


def test_pseudo_labels_are_labels(tmp_path):
    persons, _ = selected(tmp_path, annotation(1, 7, keypoints=[20, 10, 0.37, 28, 30, 0.2, 0, 0, 0]))
    np.testing.assert_array_equal(persons[0].visibility > 0, [True, True, False])


def test_ground_truth_has_what_is_no_sample(tmp_path):
    crowd = annotation(0, 3, iscrowd=1, keypoints=[0] * 9, num_keypoints=0)
    truth = coco_ground_truth(read_annotations(write(tmp_path, content(annotation(0, 7), crowd))))
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0, 1]
    assert [entry["num_keypoints"] for entry in truth["annotations"]] == [2, 0]
    assert truth["annotations"][0]["keypoints"] == [20, 10, 2, 28, 30, 1, 0, 0, 0]
    assert truth["annotations"][0]["bbox"] == [10, 5, 21, 31]
    assert truth["categories"][0]["skeleton"] == [[1, 2], [1, 3]]


def test_ground_truth_counts_from_one(tmp_path):
    """COCO's evaluation takes a match with annotation 0 for none."""
    truth = coco_ground_truth(read_annotations(write(tmp_path, content(annotation(0, 7), annotation(0, 3)))))
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2]


def many(folder) -> CocoKeypoints:
    data = content()
    data["images"] = [{"id": n, "file_name": "3.png", "width": 64, "height": 48} for n in range(20)]
    data["annotations"] = [annotation(1 + n, n // 2) for n in range(40)]
    return CocoKeypoints(write(folder, data), folder / "images")


def test_limit_takes_whole_images_spread_over_the_set(tmp_path):
    part = many(tmp_path).limited(10)
    assert [part.person(number).image_id for number in range(len(part))] == sorted([0, 4, 8, 12, 16] * 2)


def test_limit_limits_the_ground_truth(tmp_path):
    truth = many(tmp_path).limited(10).ground_truth()
    assert [image["id"] for image in truth["images"]] == [0, 4, 8, 12, 16]
    assert len(truth["annotations"]) == 10


def test_limit_that_is_no_limit(tmp_path):
    samples = many(tmp_path)
    assert samples.limited(40) is samples


def test_names_of_the_keypoints_are_the_classes(tmp_path):
    assert many(tmp_path).classes == ("head", "left hand", "right hand")
