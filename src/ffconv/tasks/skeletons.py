"""Draws keypoints and the edges between them into a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffconv.data.keypoint_sets import KeypointSet
from ffconv.pictures import BLUE, GREEN, ORANGE

_SMOOTH = 2  # drawn so many times larger, then made smaller, for smooth edges
_MIDDLE, _FIRST, _SECOND = GREEN, BLUE, ORANGE
_RIM = "black"
_GROUND = (0, 0, 0, 160)
_SMALLEST_TEXT = 9  # pixels


class Skeleton(NamedTuple):
    """One person.

    Args:
        keypoints: (K, 2) in pixels of the picture.
        shown: (K,) bool.
        label: text above the topmost keypoint that is shown, such as the person's score.
    """

    keypoints: np.ndarray
    shown: np.ndarray
    label: str = ""


def draw_skeletons(
    image: Image.Image, skeletons: Iterable[Skeleton], keypoint_set: KeypointSet
) -> Image.Image:
    """A copy of the picture with the skeletons, the first of each left-right pair blue, the second orange.

    Lines are as wide as suits the person's size. An edge is drawn where both its ends are shown.
    """
    colours = [_MIDDLE] * len(keypoint_set)
    for one, other in keypoint_set.flip_pairs:
        colours[one], colours[other] = _FIRST, _SECOND
    layer = Image.new("RGBA", (image.width * _SMOOTH, image.height * _SMOOTH))
    pen = ImageDraw.Draw(layer)
    for skeleton in skeletons:
        _draw(pen, skeleton, keypoint_set, colours)
    layer = layer.resize(image.size, Image.Resampling.BOX)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _draw(
    pen: ImageDraw.ImageDraw, skeleton: Skeleton, keypoint_set: KeypointSet, colours: list[str]
) -> None:
    shown = np.flatnonzero(skeleton.shown)
    if not len(shown):
        return
    # Pixel centres are whole numbers here, and halves in a picture twice as large.
    points = {int(k): tuple((skeleton.keypoints[k] + 0.5) * _SMOOTH) for k in shown}
    extent = np.ptp(skeleton.keypoints[shown], axis=0).max()
    width = _SMOOTH * float(np.clip(extent / 60, 1.5, 8))
    edges = [(a, b) for a, b in keypoint_set.skeleton if a in points and b in points]
    for rim in (True, False):  # all dark rims first, so that none cuts through another line
        for a, b in edges:
            colour = colours[a] if colours[a] == colours[b] else _MIDDLE
            thickness = round(1.6 * width if rim else width)
            pen.line([points[a], points[b]], fill=_RIM if rim else colour, width=thickness)
        for k, (x, y) in points.items():
            radius = 1.3 * width if rim else width
            corners = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(corners, fill=_RIM if rim else colours[k])
    if skeleton.label:
        _label(pen, skeleton.label, min(points.values(), key=lambda point: point[1]), 6 * width)


def _label(pen: ImageDraw.ImageDraw, text: str, above: tuple[float, float], size: float) -> None:
    """Write text on a dark ground, centred above a point, and inside the picture."""
    font = ImageFont.load_default(max(_SMOOTH * _SMALLEST_TEXT, size))
    _, _, width, height = pen.textbbox((0, 0), text, font=font, anchor="lt")
    margin = height / 3
    picture = pen.im.size
    left = min(max(margin, above[0] - width / 2), picture[0] - width - margin)
    top = max(margin, above[1] - height - 4 * margin)
    pen.rectangle((left - margin, top - margin, left + width + margin, top + height + margin), fill=_GROUND)
    pen.text((left, top), text, font=font, fill="white", anchor="lt")
