from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from ffconv.data.keypoint_sets import KeypointSet
from ffconv.pictures import BLUE, GREEN, ORANGE
from ffconv.tasks.skeletons import Skeleton, draw_skeletons

# A cross: left arm 0, right arm 1, head 2, foot 3; both arms hang on the head.
CROSS = KeypointSet(("left", "right", "head", "foot"), ((0, 2), (1, 2), (2, 3)), ((0, 1),), (0.1,) * 4)
POINTS = np.array([[20.0, 50.0], [80.0, 50.0], [50.0, 20.0], [50.0, 80.0]])
GREY = (128, 128, 128)


def drawn(shown: list[bool], points: np.ndarray = POINTS) -> Image.Image:
    return draw_skeletons(Image.new("RGB", (100, 100), GREY), [Skeleton(points, np.array(shown))], CROSS)


def colour(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    return picture.getpixel((x, y))  # pyright: ignore[reportReturnType]


def test_keypoints_have_their_sides_colours():
    picture = drawn([True] * 4)
    found = [colour(picture, x, y) for x, y in POINTS]
    assert found == [ImageColor.getrgb(name) for name in (BLUE, ORANGE, GREEN, GREEN)]


def test_edges_join_their_ends():
    picture = drawn([True] * 4)
    assert colour(picture, 50, 50) == ImageColor.getrgb(GREEN)  # head to foot
    assert colour(picture, 35, 35) != GREY  # left to head


def test_what_is_not_shown_takes_its_edges_along():
    picture = drawn([True, True, True, False])
    assert colour(picture, 50, 80) == colour(picture, 50, 50) == GREY
    assert colour(picture, 35, 35) != GREY


def test_nobody_shown_changes_nothing():
    assert np.array_equal(np.asarray(drawn([False] * 4)), np.full((100, 100, 3), 128))


def test_the_picture_itself_is_left_alone():
    image = Image.new("RGB", (100, 100), GREY)
    draw_skeletons(image, [Skeleton(POINTS, np.ones(4, bool))], CROSS)
    assert np.array_equal(np.asarray(image), np.full((100, 100, 3), 128))


def test_points_outside_the_picture_are_no_fault():
    picture = drawn([True] * 4, POINTS - np.array([70.0, 0.0]))
    assert colour(picture, 10, 50) == ImageColor.getrgb(ORANGE)


@pytest.mark.parametrize(("size", "width"), [(60, 2), (360, 6)])
def test_lines_are_as_wide_as_suits_the_persons_size(size: int, width: int):
    points = (POINTS - 20) * size / 60
    picture = draw_skeletons(Image.new("RGB", (400, 400), GREY), [Skeleton(points, np.ones(4, bool))], CROSS)
    row = [
        picture.getpixel((x, round(0.75 * size))) for x in range(size)
    ]  # across the edge from head to foot
    assert sum(pixel == ImageColor.getrgb(GREEN) for pixel in row) == pytest.approx(width, abs=1)


@pytest.mark.parametrize("lift", [0.0, 20.0])
def test_a_label_stands_above_the_person_and_inside_the_picture(lift: float):
    image = Image.new("RGB", (100, 100), GREY)
    skeleton = Skeleton(POINTS - [0, lift], np.ones(4, bool), "0.87")
    plain = draw_skeletons(image, [skeleton._replace(label="")], CROSS)
    changed = (np.asarray(draw_skeletons(image, [skeleton], CROSS)) != np.asarray(plain)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 0
    assert rows.max() < 20  # above the head, or over it at the picture's edge
    assert (columns.min() + columns.max()) / 2 == pytest.approx(50, abs=3)
