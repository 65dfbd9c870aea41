"""From a configuration to persons."""

from __future__ import annotations

import json

import pytest

from coco_files import annotation, content, write
from ffconv.data.figures import Figures, write_figures
from ffconv.data.keypoint_sets import KeypointConfig
from ffconv.data.pose_config import PoseDataConfig, open_persons
from ffconv.errors import InputError


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        write_figures(tmp_path, split, count)
    return tmp_path


def test_layout_of_coco(root):
    config = PoseDataConfig(str(root), train="train", val="val")
    assert len(open_persons(config, "train")) == len(Figures("train", 3))
    assert len(open_persons(config, "val")) == len(Figures("val", 2))


def test_annotations_elsewhere(root):
    (root / "annotations" / "person_keypoints_train.json").rename(root / "mine.json")
    config = PoseDataConfig(str(root), train="train", train_annotations="mine.json")
    assert len(open_persons(config, "train")) == len(Figures("train", 3))


def test_embedded_figures():
    samples = open_persons(PoseDataConfig(format="figures"), "val")
    assert isinstance(samples, Figures)
    assert len(samples) == len(Figures("val"))


def test_detections_are_for_validation_alone(root):
    found = root / "found.json"
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    found.write_text(json.dumps([box]))
    config = PoseDataConfig(str(root), train="train", val="val", detections=str(found))
    assert len(open_persons(config, "val")) == 1
    assert len(open_persons(config, "train")) == len(Figures("train", 3))


def test_detections_below_the_threshold_are_not_used(root):
    boxes = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": score} for score in (0.5, 0.1)
    ]
    (root / "found.json").write_text(json.dumps(boxes))
    config = PoseDataConfig(
        str(root), val="val", detections=str(root / "found.json"), detection_threshold=0.3
    )
    assert len(open_persons(config, "val")) == 1


def test_own_description_of_the_keypoints(tmp_path):
    write(tmp_path, content(annotation(1, 7)))
    config = PoseDataConfig(
        str(tmp_path),
        val="images",
        val_annotations="annotations.json",
        keypoints=KeypointConfig(names=["a", "b", "c"], sigmas=[0.1, 0.2, 0.3]),
        category="puppet",
    )
    assert open_persons(config, "val").keypoint_set.sigmas == (0.1, 0.2, 0.3)


def test_missing_images_stop_unless_they_are_skipped(root):
    (root / "val" / "000001.png").unlink()
    config = PoseDataConfig(str(root), val="val")
    with pytest.raises(InputError, match=r"1 of 2 images are missing: 000001.png"):
        open_persons(config, "val")
    config = PoseDataConfig(str(root), val="val", on_error="skip")
    assert len(open_persons(config, "val")) == len(Figures("val", 2))


def test_path_must_be_given():
    with pytest.raises(InputError, match=r"data\.path is not given: .* --data\.format figures"):
        open_persons(PoseDataConfig(), "train")


@pytest.mark.parametrize(("field", "value"), [("format", "voc"), ("on_error", "ignore"), ("workers", -1)])
def test_values_outside_their_range(field, value):
    with pytest.raises(InputError, match=rf"^data\.{field}="):
        PoseDataConfig(**{field: value})


def test_detections_of_figures_are_refused():
    with pytest.raises(InputError, match=r"data\.detections='x.json' needs data\.format=coco"):
        PoseDataConfig(format="figures", detections="x.json")
