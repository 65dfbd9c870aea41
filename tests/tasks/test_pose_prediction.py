from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ffconv.data.keypoint_sets import KeypointSet
from ffconv.data.pose_transforms import PoseTestConfig, PoseTransformConfig
from ffconv.tasks.person_boxes import PersonBox, Picture
from ffconv.tasks.pose import PoseEstimator
from ffconv.tasks.pose_prediction import FoundPerson, PosePredictor, coco_content

THREE = KeypointSet(("a", "b", "c"), ((0, 1), (1, 2)), (), (0.1,) * 3)
TRANSFORM = PoseTransformConfig(
    input_size=(64, 64), enlarge=1.0, codec="protocol", mean=(0, 0, 0), std=(1, 1, 1)
)
IMAGE = Image.new("RGB", (200, 100), "white")


class Peaks(nn.Module):
    """Sees the keypoints at fixed places of every crop, with these scores; remembers its batches' sizes."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = scores
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        heatmaps = torch.zeros(len(images), 3, 16, 16)
        for k, score in enumerate(self.scores):
            heatmaps[:, k, 4 * k + 2, 8] = score
        return heatmaps


def predictor(network: nn.Module, batch_size: int = 32, shown: float = 0.2) -> PosePredictor:
    estimator = PoseEstimator(network, THREE, TRANSFORM, PoseTestConfig(flip=False))
    return PosePredictor(estimator, torch.device("cpu"), batch_size=batch_size, shown=shown)


def box(left: float, score: float = 1.0, side: float = 64.0) -> PersonBox:
    return PersonBox(np.array([left, 10.0, side, side]), score)


def test_keypoints_are_where_the_box_is():
    (found,) = predictor(Peaks(0.9, 0.8, 0.7))(IMAGE, [box(100)])
    # Heatmap pixels 8 and 2, 6, 10 of a crop of the box's own scale.
    assert found.keypoints == pytest.approx(np.array([[132.0, 18], [132, 34], [132, 50]]), abs=1)
    assert found.keypoint_scores == pytest.approx([0.9, 0.8, 0.7])


def test_a_larger_box_has_wider_keypoints():
    small, large = (predictor(Peaks(1, 1, 1))(IMAGE, [box(0, side=side)])[0].keypoints for side in (32, 64))
    assert np.ptp(large[:, 1]) == pytest.approx(2 * np.ptp(small[:, 1]), rel=1e-3)


def test_score_is_the_boxs_times_the_mean_of_the_keypoints_above_the_threshold():
    (found,) = predictor(Peaks(0.9, 0.5, 0.1))(IMAGE, [box(0, score=0.5)])
    assert found.score == pytest.approx(0.5 * (0.9 + 0.5) / 2)


def test_of_boxes_on_one_person_the_best_is_kept_and_the_surest_comes_first():
    found = predictor(Peaks(1, 1, 1))(IMAGE, [box(0, 0.6), box(120, 0.7), box(0.2, 0.9)])
    assert [(person.box[0], round(person.score, 3)) for person in found] == [(0.2, 0.9), (120, 0.7)]


def test_batches_are_no_larger_than_asked():
    network = Peaks(1, 1, 1)
    predictor(network, batch_size=2)(IMAGE, [box(40 * n, side=16) for n in range(5)])
    assert network.batches == [2, 2, 1]


def test_no_boxes_no_persons():
    network = Peaks(1, 1, 1)
    assert predictor(network)(IMAGE, []) == []
    assert network.batches == []


def test_keypoints_below_the_threshold_are_neither_drawn_nor_labelled():
    asked = predictor(Peaks(0.9, 0.9, 0.1))
    persons = asked(IMAGE, [box(100)])
    drawn = asked.draw(IMAGE, persons)
    places = [tuple(int(side) for side in point) for point in persons[0].keypoints]
    assert [drawn.getpixel(place) == (255, 255, 255) for place in places] == [False, False, True]
    (annotation,) = asked.annotations(Picture("x.png", 7, IMAGE), persons)
    assert (annotation["keypoints"][2::3], annotation["num_keypoints"]) == ([2, 2, 0], 2)
    assert (annotation["image_id"], annotation["bbox"]) == (7, [100, 10, 64, 64])


def test_content_is_cocos_with_ids_and_the_skeleton_counted_from_1():
    found = FoundPerson(np.zeros(4), np.zeros((3, 2)), np.ones(3), 0.5)
    entries = predictor(Peaks(1, 1, 1)).annotations(Picture("x.png", 1, IMAGE), [found, found])
    content = coco_content([{"id": 1}], entries, THREE)
    assert [entry["id"] for entry in content["annotations"]] == [1, 2]
    (category,) = content["categories"]
    assert (category["keypoints"], category["skeleton"]) == (["a", "b", "c"], [[1, 2], [2, 3]])


def test_flip_doubles_the_work():
    network = Peaks(1, 1, 1)
    asked = PoseEstimator(network, THREE, TRANSFORM, PoseTestConfig(flip=True))
    PosePredictor(asked, torch.device("cpu"))(IMAGE, [box(0)])
    assert network.batches == [1, 1]
