"""Drawn people: articulated figures with COCO's 17 keypoints, and pictures of several of them."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ffconv.data.keypoint_sets import COCO_PERSON

WIDTH, HEIGHT = 320, 240

Colour = tuple[int, int, int]


class Shape(NamedTuple):
    """A filled outline (M, 2), or with one point a disc, with two a rod; ``radius`` counts for these."""

    points: np.ndarray
    colour: Colour
    radius: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A drawn person: keypoints (17, 2) in pixels, its shapes from back to front, and where it looks."""

    keypoints: np.ndarray
    shapes: tuple[Shape, ...]
    faces_us: bool


@dataclass(frozen=True)
class Scene:
    """What a picture shows: its background, its figures from back to front, and what stands before them."""

    background: tuple[Shape, ...]
    figures: tuple[Figure, ...]
    occluders: tuple[Shape, ...]
    sky: Colour
    ground: Colour


def random_scene(random: np.random.Generator) -> Scene:
    """Two to five figures, some hidden by others or by a block, some cut off by the picture's border."""
    count = int(random.integers(2, 6))
    places = (np.arange(count) + 0.5) / count * WIDTH + random.normal(0, 0.1 * WIDTH, count)
    figures = [_figure(random, place) for place in random.permutation(places)]
    return Scene(
        background=tuple(_block(random, 0.3) for _ in range(random.integers(3, 9))),
        figures=tuple(figures),
        occluders=tuple(_block(random, 0.25) for _ in range(random.integers(0, 4))),
        sky=_colour(random),
        ground=_colour(random),
    )


def draw(scene: Scene, random: np.random.Generator) -> Image.Image:
    """The RGB picture, (WIDTH, HEIGHT), with some noise."""
    blend = np.linspace(0, 1, HEIGHT)[:, None, None]
    column = (1 - blend) * np.array(scene.sky) + blend * np.array(scene.ground)
    picture = Image.fromarray(column.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    pencil = ImageDraw.Draw(picture)
    parts = (scene.background, *(figure.shapes for figure in scene.figures), scene.occluders)
    for shapes in parts:
        _paint(pencil, shapes)
    noise = random.integers(-10, 11, (HEIGHT, WIDTH, 1), dtype=np.int16)
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def silhouettes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Where each figure is seen alone, and where in the picture: both (figures, HEIGHT, WIDTH) bool."""
    alone = np.stack([_mask(figure.shapes) for figure in scene.figures])
    hidden = _mask(scene.occluders)
    seen = np.empty_like(alone)
    for number in reversed(range(len(alone))):
        seen[number] = alone[number] & ~hidden
        hidden = hidden | alone[number]
    return alone, seen


def _figure(random: np.random.Generator, place: float) -> Figure:
    """A person whose hips are at a horizontal place, facing the viewer or turned away.

    Nothing but the facing tells left from right, so that a mirrored figure is one as likely as its original.
    """
    height = random.uniform(0.4, 0.95) * HEIGHT
    hips = np.array([place, random.uniform(0.5, 0.62) * HEIGHT])
    facing = 1.0 if random.random() < 0.6 else -1.0  # a viewer sees the left of who faces them on the right
    keypoints = height * _pose(random, facing) + hips
    return Figure(keypoints, tuple(_body(random, keypoints, height, facing > 0)), facing > 0)


def _pose(random: np.random.Generator, facing: float) -> np.ndarray:
    """Keypoints (17, 2) of a person of height 1 about the middle of its hips."""
    lean = random.normal(0, 0.15)
    up, side = np.array([np.sin(lean), -np.cos(lean)]), np.array([np.cos(lean), np.sin(lean)])
    turn = random.uniform(0.6, 1.0)  # how wide the body is seen
    points: dict[str, np.ndarray] = {}
    head = 0.42 * up + random.normal(0, 0.015) * side
    look = random.uniform(-0.03, 0.03) * side
    points["nose"] = head + look - 0.01 * up
    for name, left in (("left", facing), ("right", -facing)):
        outward = left * side
        points[f"{name}_eye"] = head + look + 0.025 * outward + 0.015 * up
        points[f"{name}_ear"] = head + 0.055 * outward
        points[f"{name}_shoulder"] = 0.3 * up + 0.12 * turn * outward
        points[f"{name}_hip"] = 0.075 * turn * outward
        _limb(points, (f"{name}_shoulder", f"{name}_elbow", f"{name}_wrist"), 0.155, (outward, up),
              (random.uniform(0, 2.4), random.uniform(-0.4, 1.6)))  # fmt: skip
        _limb(points, (f"{name}_hip", f"{name}_knee", f"{name}_ankle"), 0.23, (outward, up),
              (random.uniform(-0.1, 0.8), random.uniform(-1.0, 0.1)))  # fmt: skip
    return np.stack([points[name] for name in COCO_PERSON.names])


def _limb(
    points: dict[str, np.ndarray],
    names: tuple[str, str, str],
    length: float,
    axes: tuple[np.ndarray, np.ndarray],
    angles: tuple[float, float],
) -> None:
    """Adds the two outer joints; the angles turn outward, from hanging down and from the part before."""
    outward, up = axes
    angle = 0.0
    for first, second, bend in zip(names, names[1:], angles, strict=False):
        angle += bend
        points[second] = points[first] + length * (np.sin(angle) * outward - np.cos(angle) * up)


def _body(
    random: np.random.Generator, keypoints: np.ndarray, height: float, faces_us: bool
) -> Iterable[Shape]:
    """Shapes from back to front: arms behind the body of who is turned away, before it otherwise."""
    at = dict(zip(COCO_PERSON.names, keypoints, strict=True))
    shirt, trousers, hair = _colour(random), _colour(random), _colour(random, brightest=0.4)
    skin = _hsv(random.uniform(0.04, 0.1), random.uniform(0.3, 0.6), random.uniform(0.5, 1.0))
    thick = 0.038 * height
    legs: list[Shape] = []
    arms: list[Shape] = []
    for side in ("left", "right"):
        hip, knee, ankle = (at[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        legs += [_rod(hip, knee, trousers, 1.15 * thick), _rod(knee, ankle, _shaded(trousers, 0.75), thick)]
        legs.append(Shape(ankle[None], (25, 25, 25), 1.1 * thick))
        shoulder, elbow, wrist = (at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        arms += [
            _rod(shoulder, elbow, _shaded(shirt, 0.7), 0.9 * thick),
            _rod(elbow, wrist, skin, 0.75 * thick),
        ]
        arms.append(Shape(wrist[None], _shaded(skin, 0.8), 0.85 * thick))
    trunk = _trunk(at, shirt, thick, faces_us)
    head = _head(at, (skin, hair), height, faces_us)
    return [*legs, *trunk, *head, *arms] if faces_us else [*arms, *legs, *trunk, *head]


def _trunk(at: dict[str, np.ndarray], shirt: Colour, thick: float, faces_us: bool) -> list[Shape]:
    """A shirt with round corners, which has a white strip in front."""
    corners = [at[name] for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    shapes = [Shape(np.stack(corners), shirt), *(_rod(one, other, shirt, thick) for one, other in edges)]
    if faces_us:
        chest, belly = (corners[0] + corners[1]) / 2, (corners[2] + corners[3]) / 2
        top, bottom = (chest + share * (belly - chest) for share in (0.15, 0.6))
        shapes.append(_rod(top, bottom, (245, 245, 245), 0.6 * thick))
    return shapes


def _head(
    at: dict[str, np.ndarray], colours: tuple[Colour, Colour], height: float, faces_us: bool
) -> list[Shape]:
    """Neck and hair, and a face if it can be seen; the colours are those of skin and hair."""
    skin, hair = colours
    middle = (at["left_ear"] + at["right_ear"]) / 2
    chest = (at["left_shoulder"] + at["right_shoulder"]) / 2
    shapes = [_rod(chest, middle, skin, 0.03 * height), Shape(middle[None], hair, 0.07 * height)]
    if faces_us:
        shapes.append(Shape((middle + np.array([0, 0.012 * height]))[None], skin, 0.056 * height))
        eyes = (at["left_eye"], at["right_eye"])
        shapes += [Shape(eye[None], (20, 20, 40), 0.012 * height) for eye in eyes]
        shapes.append(Shape(at["nose"][None], _shaded(skin, 0.6), 0.014 * height))
    return shapes


def _rod(one: np.ndarray, other: np.ndarray, colour: Colour, radius: float) -> Shape:
    return Shape(np.stack([one, other]), colour, radius)


def _block(random: np.random.Generator, largest: float) -> Shape:
    """A rectangle anywhere, its sides up to a share of the picture's."""
    size = np.array([WIDTH, HEIGHT])
    centre, half = random.uniform(0, size), random.uniform(0.05, largest, 2) * size / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + centre
    return Shape(corners, _colour(random))


def _mask(shapes: Iterable[Shape]) -> np.ndarray:
    canvas = Image.new("L", (WIDTH, HEIGHT))
    _paint(ImageDraw.Draw(canvas), [shape._replace(colour=(255, 255, 255)) for shape in shapes])
    return np.asarray(canvas) > 0


def _paint(pencil: ImageDraw.ImageDraw, shapes: Iterable[Shape]) -> None:
    for points, colour, radius in shapes:
        fill = colour if pencil.mode == "RGB" else 255
        corners = [(float(x), float(y)) for x, y in points]
        if len(corners) > 2:
            pencil.polygon(corners, fill=fill)
            continue
        if len(corners) == 2:
            pencil.line(corners, fill=fill, width=max(1, round(2 * radius)))
        for corner in corners:
            pencil.circle(corner, radius, fill=fill)


def _colour(random: np.random.Generator, brightest: float = 1.0) -> Colour:
    return _hsv(random.random(), random.uniform(0.2, 1.0), random.uniform(0.25, 1.0) * brightest)


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(factor * part) for part in colour)
    return red, green, blue
