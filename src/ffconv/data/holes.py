"""Geometry of holes: drawn from boxes and polygons, grown, feathered, and cut out with a margin.

A hole is an (H, W) bool array, True inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ffconv.errors import require

#: A crop shows at least so many pixels of the photograph on each side of its hole.
SMALLEST_MARGIN = 128

_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong together


class Box(NamedTuple):
    """A rectangle of pixels; the last two are one past its end, as in ``PIL.Image.crop``."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns, to index an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


def draw_holes(
    size: tuple[int, int],
    *,
    boxes: Sequence[Sequence[float]] = (),
    polygons: Sequence[Sequence[float]] = (),
) -> np.ndarray:
    """Draw filled boxes and polygons.

    Args:
        size: Width and height of the image.
        boxes: Each (x0, y0, x1, y1) in pixels; x1 and y1 are one past the last pixel.
        polygons: Each (x0, y0, x1, y1, x2, y2, ...), the corners in order.

    Raises:
        InputError: For a shape with another number of coordinates, or one that covers no pixel of the image.

    Example:
        >>> draw_holes((4, 2), boxes=[(1, 0, 3, 1)]).astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    canvas = np.zeros((size[1], size[0]), dtype=bool)
    for box in boxes:
        shape = f"box {_listed(box)}"
        require(len(box) == 4, f"{shape} must be four numbers, x0 y0 x1 y1")
        x0, y0, x1, y1 = (round(value) for value in box)
        require(x0 < x1 and y0 < y1, f"{shape} must have x0 < x1 and y0 < y1")
        part = canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        require(part.size > 0, f"{shape} lies outside the image of {size[0]}x{size[1]} px")
        part[:] = True
    for polygon in polygons:
        shape = f"polygon {_listed(polygon)}"
        enough = len(polygon) >= 6 and len(polygon) % 2 == 0
        require(enough, f"{shape} must be an even number of coordinates, at least six: x0 y0 x1 y1 x2 y2")
        drawn = Image.new("1", size)
        ImageDraw.Draw(drawn).polygon(list(polygon), fill=1)
        inside = np.array(drawn)
        require(bool(inside.any()), f"{shape} lies outside the image of {size[0]}x{size[1]} px")
        canvas |= inside
    return canvas


def _listed(shape: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in shape)


def grow_hole(hole: np.ndarray, *, dilate: int, feather: int) -> tuple[np.ndarray, np.ndarray]:
    """Grow a hole by a disc, and weigh its pixels for blending.

    Args:
        hole: As marked, with a pixel inside.
        dilate: Radius of the disc in pixels.
        feather: Over so many pixels, the outermost of the grown hole, the weight falls towards 0; at most
            `dilate`, so that the hole as marked has weight 1.

    Returns:
        The grown hole, and the weight of the filling at each pixel, float32: 1 in the marked hole, 0 outside
        the grown one.
    """
    weight = hole.astype(np.float32)
    if dilate == 0:
        return hole, weight
    height, width = hole.shape
    around = _expand(bounding_box(hole), dilate, (width, height))
    distance = np.asarray(ndimage.distance_transform_edt(~hole[around.slices]))
    grown = hole.copy()
    grown[around.slices] = distance <= dilate
    ramp = np.clip((dilate + 1 - distance) / (feather + 1), 0, 1)
    weight[around.slices] = np.where(grown[around.slices], ramp, 0)
    return grown, weight


def crop_around(hole: np.ndarray, margin: int | None = None) -> list[Box]:
    """Rectangles around the connected parts of a hole; those that touch or overlap are joined into one.

    Args:
        hole: With a pixel inside.
        margin: Pixels on each side of a part; None takes half the longer side of the part, at least 128.

    Returns:
        Rectangles without common pixels, inside the image, from top to bottom.

    Example:
        >>> hole = np.zeros((10, 40), dtype=bool)
        >>> hole[4, [5, 9, 30]] = True
        >>> crop_around(hole, margin=2)
        [Box(left=3, top=2, right=12, bottom=7), Box(left=28, top=2, right=33, bottom=7)]
    """
    size = hole.shape[1], hole.shape[0]
    boxes = []
    for box in _parts(hole):
        own = max(SMALLEST_MARGIN, max(box.size) // 2) if margin is None else margin
        boxes.append(_expand(box, own, size))
    while True:
        canvas = np.zeros_like(hole)
        for box in boxes:
            canvas[box.slices] = True
        joined = _parts(canvas)
        if len(joined) == len(boxes):
            return joined
        boxes = joined


def bounding_box(hole: np.ndarray) -> Box:
    """The smallest rectangle around a hole with a pixel inside."""
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _parts(hole: np.ndarray) -> list[Box]:
    """The bounding boxes of the connected parts."""
    labels: Any = ndimage.label(hole, structure=_NEIGHBOURS)
    return [
        Box(columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(labels[0])
    ]


def _expand(box: Box, margin: int, size: tuple[int, int]) -> Box:
    return Box(
        max(box.left - margin, 0),
        max(box.top - margin, 0),
        min(box.right + margin, size[0]),
        min(box.bottom + margin, size[1]),
    )
