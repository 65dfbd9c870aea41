"""Geometry of holes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ffconv.data.holes import Box, bounding_box, crop_around, draw_holes, grow_hole
from ffconv.errors import InputError


def hole(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    return draw_holes(size, boxes=boxes)


def test_boxes_are_half_open_and_clipped():
    drawn = hole((5, 4), (-3, 1, 2, 3), (4, 0, 99, 1))
    assert np.argwhere(drawn).tolist() == [[0, 4], [1, 0], [1, 1], [2, 0], [2, 1]]


def test_a_polygon_is_filled():
    drawn = draw_holes((20, 20), polygons=[(2, 2, 12, 2, 2, 12)])
    assert drawn[4, 4]
    assert not drawn[12, 12]
    assert bounding_box(drawn) == Box(2, 2, 13, 13)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"boxes": [(1, 2, 3)]}, "box 1 2 3 must be four numbers"),
        ({"boxes": [(5, 0, 5, 2)]}, "box 5 0 5 2 must have x0 < x1"),
        ({"boxes": [(8, 0, 9, 2)]}, "box 8 0 9 2 lies outside the image of 8x6 px"),
        ({"boxes": [(-4, 0, -1, 2)]}, "lies outside"),
        ({"polygons": [(1, 2, 3, 4)]}, "polygon 1 2 3 4 must be an even number of coordinates, at least six"),
        ({"polygons": [(1, 2, 3, 4, 5, 6, 7)]}, "must be an even number"),
        ({"polygons": [(20, 20, 30, 20, 30, 30)]}, "lies outside"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        draw_holes((8, 6), **shapes)


@pytest.mark.parametrize("dilate", [0, 1, 3, 40])
def test_dilation_is_a_disc_around_each_pixel(dilate: int):
    marked = hole((30, 24), (3, 4, 6, 9), (20, 20, 22, 24))
    grown, _ = grow_hole(marked, dilate=dilate, feather=0)
    rows, columns = np.indices(marked.shape)
    squares = [(rows - y) ** 2 + (columns - x) ** 2 for y, x in np.argwhere(marked)]
    assert np.array_equal(grown, np.min(squares, axis=0) <= dilate**2)


def test_feather_falls_over_the_outermost_pixels_of_the_grown_hole():
    marked = hole((21, 3), (10, 0, 11, 3))
    grown, weight = grow_hole(marked, dilate=4, feather=2)
    assert grown[1].nonzero()[0].tolist() == list(range(6, 15))
    np.testing.assert_allclose(weight[1, 5:11], [0, 1 / 3, 2 / 3, 1, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(weight[1], weight[1, ::-1])


@pytest.mark.parametrize(("dilate", "feather"), [(0, 0), (5, 0), (5, 5), (9, 3)])
def test_weights_are_1_in_the_marked_hole_and_above_0_just_in_the_grown_one(dilate: int, feather: int):
    marked = hole((40, 30), (5, 6, 12, 9), (30, 20, 31, 21))
    grown, weight = grow_hole(marked, dilate=dilate, feather=feather)
    assert (weight[marked] == 1).all()
    assert np.array_equal(weight > 0, grown)


def test_crops_stay_inside_the_image_and_have_the_margin():
    assert crop_around(hole((100, 80), (2, 30, 12, 40)), margin=20) == [Box(0, 10, 32, 60)]


@pytest.mark.parametrize(
    ("gap", "crops"), [(41, 2), (40, 1), (39, 1)], ids=["apart", "touching", "overlapping"]
)
def test_crops_that_touch_are_one(gap: int, crops: int):
    marked = hole((200, 60), (40, 20, 50, 30), (50 + gap, 25, 60 + gap, 30))
    found = crop_around(marked, margin=20)
    assert len(found) == crops
    assert sum(marked[box.slices].sum() for box in found) == marked.sum()


def test_crops_that_touch_after_they_were_joined_are_one():
    # The joined crop of the first two reaches the third, which neither of them touches alone.
    marked = hole((400, 400), (50, 50, 60, 60), (90, 90, 100, 100), (120, 50, 130, 55))
    assert crop_around(marked, margin=21) == [Box(29, 29, 151, 121)]


def test_the_margin_follows_the_size_of_the_hole():
    small, large = (crop_around(hole((3000, 3000), (1000, 1000, 1000 + side, 1010))) for side in (10, 600))
    assert small == [Box(872, 872, 1138, 1138)]
    assert large == [Box(700, 700, 1900, 1310)]


def test_crops_share_no_pixel_and_hold_every_hole():
    random = np.random.default_rng(0)
    for _ in range(30):
        marked = np.zeros((90, 120), dtype=bool)
        marked[random.integers(90, size=12), random.integers(120, size=12)] = True
        covered = np.zeros(marked.shape, dtype=int)
        for box in crop_around(marked, margin=int(random.integers(0, 12))):
            covered[box.slices] += 1
        assert covered.max() == 1
        assert (covered[marked] == 1).all()
