"""Drawn people."""

from __future__ import annotations

import numpy as np
import pytest

from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.figure_drawing import HEIGHT, WIDTH, Figure, Scene, Shape, draw, random_scene, silhouettes
from ffconv.data.figures import Figures, write_figures
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.errors import InputError


def scenes(count: int = 60) -> list[Scene]:
    random = np.random.default_rng(0)
    return [random_scene(random) for _ in range(count)]


def test_pictures_depend_on_the_number_alone():
    few, many = Figures("train", 2), Figures("train", 5)
    np.testing.assert_array_equal(np.asarray(few[len(few) - 1][0]), np.asarray(many[len(few) - 1][0]))
    np.testing.assert_array_equal(few.person(0).keypoints, many.person(0).keypoints)


def test_splits_differ():
    assert not np.array_equal(np.asarray(Figures("train", 1)[0][0]), np.asarray(Figures("val", 1)[0][0]))


def test_several_persons_a_picture():
    assert 2 <= len(Figures("val", 40)) / 40 <= 5


def test_some_keypoints_are_hidden_and_some_outside():
    samples = Figures("val", 40)
    visibility = np.stack([samples.person(number).visibility for number in range(len(samples))])
    assert all(np.mean(visibility == value) > 0.03 for value in (0, 1))
    assert np.mean(visibility == 2) > 0.6


def test_some_figures_are_too_hidden_to_be_labelled():
    samples = Figures("train", 100)
    unlabelled = [entry for entry in samples.ground_truth()["annotations"] if not entry["num_keypoints"]]
    assert len(unlabelled) == samples.left_out["without keypoints"] > 0


def test_persons_of_medium_and_large_area():
    areas = np.array([entry["area"] for entry in Figures("val", 60).ground_truth()["annotations"]])
    assert np.mean((areas > 32**2) & (areas < 96**2)) > 0.5
    assert np.mean(areas > 96**2) > 0.05


def test_labelled_keypoints_lie_in_their_box():
    samples = Figures("val", 30)
    for number in range(len(samples)):
        person = samples.person(number)
        inside = person.keypoints[person.visibility > 0] - person.box[:2]
        assert (inside > -8).all()
        assert (inside < person.box[2:] + 8).all()


def test_left_is_on_the_right_of_who_faces_us():
    """Left and right can be told by the facing, and by nothing else: a mirrored figure is a possible one."""
    left, right = (COCO_PERSON.names.index(f"{side}_shoulder") for side in ("left", "right"))
    facing = set()
    for figure in (figure for scene in scenes() for figure in scene.figures):
        assert (figure.keypoints[left, 0] > figure.keypoints[right, 0]) == figure.faces_us
        facing.add(figure.faces_us)
    assert facing == {True, False}


def test_eyes_of_who_is_turned_away_are_hidden():
    samples = Figures("val", 40)
    shoulders = [COCO_PERSON.names.index(f"{side}_shoulder") for side in ("left", "right")]
    for person in map(samples.person, range(len(samples))):
        if (person.visibility[shoulders] > 0).all() and np.subtract(*person.keypoints[shoulders, 0]) < 0:
            assert person.visibility[:3].max() <= 1


def square(left: int, colour=(255, 255, 255)) -> Shape:
    """10 pixels wide, from row 50 to 59."""
    corners = np.array([(left, 50), (left + 9, 50), (left + 9, 59), (left, 59)], dtype=float)
    return Shape(corners, colour)


def test_what_stands_in_front_hides():
    figures = tuple(Figure(np.zeros((17, 2)), (square(left),), True) for left in (20, 25))
    scene = Scene((), figures, (square(32),), (0, 0, 0), (0, 0, 0))
    alone, seen = silhouettes(scene)
    assert alone.sum(axis=(1, 2)).tolist() == [100, 100]
    assert seen.sum(axis=(1, 2)).tolist() == [50, 70]


def test_silhouettes_are_what_is_drawn():
    figure = scenes(1)[0].figures[0]
    shapes = tuple(shape._replace(colour=(255, 255, 255)) for shape in figure.shapes)
    scene = Scene((), (Figure(figure.keypoints, shapes, True),), (), (0, 0, 0), (0, 0, 0))
    picture = np.asarray(draw(scene, np.random.default_rng(0)))[..., 0] > 128
    np.testing.assert_array_equal(picture, silhouettes(scene)[1][0])


def test_written_set_is_the_embedded_one(tmp_path):
    write_figures(tmp_path, "val", 3)
    written = CocoKeypoints(tmp_path / "annotations/person_keypoints_val.json", tmp_path / "val")
    embedded = Figures("val", 3)
    assert len(written) == len(embedded)
    for number in range(len(embedded)):
        (ours, person), (theirs, other) = embedded[number], written[number]
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        np.testing.assert_array_equal(person.keypoints, other.keypoints)
        np.testing.assert_array_equal(person.box, other.box)
    assert written.ground_truth() == embedded.ground_truth()
    assert written.keypoint_set == embedded.keypoint_set


def test_picture_s_size():
    assert Figures("train", 1)[0][0].size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("split", "count"), [("test", 1), ("train", 0)])
def test_values_outside_their_range(split, count):
    with pytest.raises(InputError, match="must"):
        Figures(split, count)
