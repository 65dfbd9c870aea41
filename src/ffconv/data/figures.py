"""The embedded set of drawn people with COCO-format annotations, which needs no file."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ffconv.data.coco_format import Annotation, ImageEntry, KeypointFile
from ffconv.data.embedded import Split, require_split
from ffconv.data.figure_drawing import HEIGHT, WIDTH, Figure, Scene, draw, random_scene, silhouettes
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.data.pose_samples import PersonSamples, PersonSource, annotated_persons, coco_ground_truth
from ffconv.data.seeding import derive_seed
from ffconv.errors import require

#: Pictures of a split.
_COUNTS = {"train": 512, "val": 128}

#: A figure of which less is seen is annotated without keypoints, as people do with someone far behind.
_SEEN_ENOUGH = 0.35

#: Nose and eyes, which nobody sees of who is turned away.
_FACE = [COCO_PERSON.names.index(name) for name in ("nose", "left_eye", "right_eye")]


class Figures(PersonSamples):
    """Drawn people, two to five a picture: in front of each other, behind blocks, cut off by the border.

    Pictures and annotations are functions of (split, number) alone. A keypoint inside the picture is
    labelled, hidden or not, with the visibility that the drawing has; ``area`` is that of the whole
    silhouette.

    Args:
        split: "train" or "val"; the two share no picture.
        count: number of pictures; by default 512 and 128.

    Raises:
        InputError: for another split or a count below 1.
    """

    def __init__(self, split: Split, count: int | None = None) -> None:
        require_split(split)
        require(count is None or count >= 1, f"count={count} must be at least 1")
        count = count or _COUNTS[split]
        file = _annotated(split, count)
        persons, left_out = annotated_persons(file)
        truth = partial(_ground_truth, split, count)
        source = PersonSource(file.keypoint_set, file.category_id, partial(_picture, split), truth, left_out)
        super().__init__(persons, source)


def write_figures(folder: str | Path, split: Split, count: int) -> None:
    """Writes the first pictures of a split as a COCO-format data set.

    Args:
        folder: gets ``<split>/*.png`` and ``annotations/person_keypoints_<split>.json``, as ``data.path``
            with ``data.train=train`` and ``data.val=val`` takes them.
        split: "train" or "val".
        count: number of pictures.
    """
    root = Path(folder)
    content = _ground_truth(split, count)
    for name in (split, "annotations"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        _picture(split, image["id"]).save(root / split / image["file_name"])
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(
        json.dumps(content), encoding="utf-8"
    )


def _scene(split: Split, number: int) -> tuple[Scene, np.random.Generator]:
    random = np.random.default_rng(derive_seed("figures", split, number))
    return random_scene(random), random


def _picture(split: Split, number: int) -> Image.Image:
    return draw(*_scene(split, number))


def _ground_truth(split: Split, count: int) -> dict[str, Any]:
    return coco_ground_truth(_annotated(split, count))


@cache
def _annotated(split: Split, count: int) -> KeypointFile:
    numbers = range(1, count + 1)
    images = {number: ImageEntry(f"{number:06d}.png", WIDTH, HEIGHT) for number in numbers}
    found = [annotation for number in numbers for annotation in _annotations(split, number)]
    return KeypointFile(Path("figures"), 1, "person", COCO_PERSON, images, tuple(found))


def _annotations(split: Split, number: int) -> list[Annotation]:
    scene, _ = _scene(split, number)
    found: list[Annotation] = []
    for figure, alone, seen in zip(scene.figures, *silhouettes(scene), strict=True):
        if not alone.any():
            continue
        rows, columns = np.nonzero(alone.any(axis=1))[0], np.nonzero(alone.any(axis=0))[0]
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        enough = seen.sum() >= _SEEN_ENOUGH * alone.sum()
        visibility = _visibility(figure, seen) if enough else np.zeros(len(COCO_PERSON), np.int8)
        keypoints = np.where(visibility[:, None] > 0, figure.keypoints, 0)
        found.append(
            Annotation(
                image_id=number,
                box=np.array(box, dtype=np.float64),
                keypoints=keypoints,
                visibility=visibility,
                area=float(alone.sum()),
                crowd=False,
                num_keypoints=int(np.count_nonzero(visibility)),
            )
        )
    return found


def _visibility(figure: Figure, seen: np.ndarray) -> np.ndarray:
    """(17,): 2 where the figure is seen, 1 where others or its own head hide it, 0 outside the picture."""
    columns, rows = np.rint(figure.keypoints).astype(int).T
    inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    shown = seen[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)]
    if not figure.faces_us:
        shown[_FACE] = False
    return np.where(inside, 1 + shown, 0).astype(np.int8)
