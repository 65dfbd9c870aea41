"""Descriptions of keypoints."""

from __future__ import annotations

import pytest

from ffconv.data.keypoint_sets import (
    COCO_PERSON,
    DEFAULT_SIGMA,
    KeypointConfig,
    KeypointSet,
    keypoint_set_of,
    require_same_keypoints,
)
from ffconv.errors import InputError

PUPPET = {"name": "puppet", "keypoints": ["nose", "Left hand", "Right hand"], "skeleton": [[1, 2], [1, 3]]}


def read(**changes) -> KeypointSet:
    return keypoint_set_of(PUPPET, KeypointConfig(**changes), "file")


def test_sigmas_of_coco_are_those_of_its_evaluation():
    from pycocotools.cocoeval import Params

    assert COCO_PERSON.sigmas == pytest.approx(Params("keypoints").kpt_oks_sigmas)


def test_pairs_of_coco_are_left_and_right():
    names = [(COCO_PERSON.names[one], COCO_PERSON.names[other]) for one, other in COCO_PERSON.flip_pairs]
    assert len(names) == 8
    assert all(one.replace("left", "right") == other != one for one, other in names)


def test_edges_are_counted_from_nought():
    assert read().skeleton == ((0, 1), (0, 2))


def test_pairs_are_found_by_name():
    assert read().flip_pairs == ((1, 2),)


def test_flip_order_exchanges_pairs():
    assert read().flip_order == (0, 2, 1)


def test_sigmas_are_coco_s_for_its_names():
    assert read().sigmas == (COCO_PERSON.sigmas[0], DEFAULT_SIGMA, DEFAULT_SIGMA)


def test_sigmas_of_the_file_come_before():
    found = keypoint_set_of({**PUPPET, "sigmas": [0.1, 0.2, 0.3]}, KeypointConfig(), "file")
    assert found.sigmas == (0.1, 0.2, 0.3)


def test_configuration_comes_before_the_file():
    found = read(
        names=["a", "b", "c"], skeleton=[("b", "c")], flip_pairs=[("a", "c")], sigmas=[0.1, 0.2, 0.3]
    )
    assert found == KeypointSet(("a", "b", "c"), ((1, 2),), ((0, 2),), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["a", "a", "b"]}, "file: keypoints.names=.* must all be different"),
        ({"sigmas": [0.1]}, "file: keypoints.sigmas=.* must be 3 positive numbers"),
        ({"sigmas": [0.1, 0.1, 0.0]}, "must be 3 positive numbers"),
        (
            {"skeleton": [("nose", "tail")]},
            "keypoints.skeleton names 'tail', which is none of nose, Left hand",
        ),
        (
            {"flip_pairs": [("nose", "nose")]},
            r"keypoints.flip_pairs=\[\(0, 0\)\] must not name a keypoint twice",
        ),
        ({"names": ["a", "b"]}, "keypoints.skeleton=.* must name keypoints 0 to 1"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        read(**changes)


def test_malformed_skeleton_names_the_category():
    with pytest.raises(InputError, match=r"file: category 'puppet' cannot be read"):
        keypoint_set_of({**PUPPET, "skeleton": [1, 2]}, KeypointConfig(), "file")


def test_other_number_of_keypoints_is_refused():
    with pytest.raises(InputError, match=r"val: 3 keypoints, but the network has 17 \(nose, left_eye"):
        require_same_keypoints(COCO_PERSON, read(), "val")


def test_other_order_of_keypoints_is_refused():
    other = read(names=["nose", "Right hand", "Left hand"])
    with pytest.raises(
        InputError, match=r"val: keypoint 1 is 'Right hand', but the network's is 'Left hand'"
    ):
        require_same_keypoints(read(), other, "val")


def test_sigmas_may_differ():
    require_same_keypoints(read(), read(sigmas=[0.1, 0.2, 0.3]), "val")
