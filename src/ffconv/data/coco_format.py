"""COCO-format files: annotations of keypoints and a detector's results, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffconv.data.keypoint_sets import KeypointConfig, KeypointSet, keypoint_set_of
from ffconv.errors import InputError, require
from ffconv.files import read_json

#: Area of a person over that of its box, for files that give the box alone: the usual stand-in of data sets
#: without segments.
AREA_OF_BOX = 0.53


@dataclass(frozen=True)
class ImageEntry:
    """An image of an annotation file: its name there, and its size in pixels."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Annotation:
    """One annotated object.

    Args:
        image_id: its image.
        box: (4,) left, top, width, height in pixels, as the file says.
        keypoints: (K, 2) x, y in pixels.
        visibility: (K,) 0 not labelled, 1 labelled but hidden, 2 visible.
        area: of its segment, in pixels.
        crowd: whether it stands for many objects that nobody is expected to tell apart.
    """

    image_id: int
    box: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    area: float
    crowd: bool


@dataclass(frozen=True)
class Detection:
    """A detector's box (4,), left, top, width, height in pixels, with its image and score."""

    image_id: int
    box: np.ndarray
    score: float


@dataclass(frozen=True)
class KeypointFile:
    """What an annotation file says of the one category whose keypoints are used."""

    path: Path
    category_id: int
    category_name: str
    keypoint_set: KeypointSet
    images: dict[int, ImageEntry]
    annotations: tuple[Annotation, ...]


def read_annotations(
    path: str | Path, config: KeypointConfig | None = None, *, category: str = ""
) -> KeypointFile:
    """Reads and checks an annotation file.

    Missing entries are filled in: ``iscrowd`` 0, ``area`` .53 of the box, no ``annotations`` (as in files of
    a test set) none, a crowd's ``keypoints`` unlabelled.

    Args:
        path: the file.
        config: what replaces the file's description of its keypoints.
        category: name of the category, needed where several have keypoints.

    Raises:
        InputError: naming the file and the first entry at fault: for a file that is missing, not JSON, not in
            COCO's format or without keypoints, for coordinates that are not finite, for a number of keypoints
            that is not the category's, for a box wholly outside its image, for two images of one id.
    """
    path, config = Path(path), config or KeypointConfig()
    content = read_json(path)
    require(isinstance(content, dict), f"{path}: is not in COCO's format: holds no object with images")
    chosen = _category(_entries(content, "categories", path), config, category, path)
    keypoint_set = keypoint_set_of(chosen, config, str(path))
    images: dict[int, ImageEntry] = {}
    for entry in _entries(content, "images", path):
        name = f"{path}: image {_id(entry)}"
        with _named(name):
            size, number = (int(entry["width"]), int(entry["height"])), int(entry["id"])
            require(number not in images, f"{name}: another image has the same id")
            images[number] = ImageEntry(str(entry["file_name"]), *size)
    annotations: list[Annotation] = []
    for entry in _entries(content, "annotations", path) if "annotations" in content else ():
        name = f"{path}: annotation {_id(entry)}"
        with _named(name):
            if entry["category_id"] == chosen["id"]:
                annotations.append(_annotation(entry, len(keypoint_set), name))
                _require_inside(annotations[-1], images, name)
    return KeypointFile(
        path, int(chosen["id"]), str(chosen.get("name", "")), keypoint_set, images, tuple(annotations)
    )


def read_detections(path: str | Path, file: KeypointFile, threshold: float = 0.0) -> list[Detection]:
    """A detector's boxes of the file's category, in COCO's result format, with at least a score.

    Boxes without width or height are left out.

    Args:
        path: JSON list of ``{"image_id", "category_id", "bbox", "score"}``.
        file: annotation file of the images.
        threshold: smallest score that is kept.

    Raises:
        InputError: as `read_annotations`; also for images the annotation file does not know.
    """
    content = read_json(Path(path))
    require(isinstance(content, list), f"{path}: is not in COCO's result format: must be a list of boxes")
    found: list[Detection] = []
    for number, entry in enumerate(content):
        name = f"{path}: result {number}"
        with _named(name):
            if entry["category_id"] != file.category_id:
                continue
            box = finite_numbers(entry["bbox"], 4, name, "bbox")
            score = float(finite_numbers([entry["score"]], 1, name, "score")[0])
            detection = Detection(int(entry["image_id"]), box, score)
        if score < threshold or box[2:].min() <= 0:
            continue
        _require_inside(detection, file.images, name)
        found.append(detection)
    return found


def _entries(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = content.get(key)
    if not isinstance(found, list):
        raise InputError(f"{path}: is not in COCO's format: holds no list of {key}")
    return found


def _category(entries: list[Any], config: KeypointConfig, wanted: str, path: Path) -> dict[str, Any]:
    """The one category that has keypoints, or the one that is asked for."""
    require(
        all(isinstance(entry, dict) and "id" in entry for entry in entries), f"{path}: a category has no id"
    )
    names = ", ".join(str(entry.get("name")) for entry in entries) or "none"
    chosen = [entry for entry in entries if not wanted or entry.get("name") == wanted]
    require(bool(chosen), f"{path}: has no category data.category={wanted!r} (its categories: {names})")
    if len(chosen) > 1 or not config.names:
        chosen = [entry for entry in chosen if entry.get("keypoints")]
    require(bool(chosen), f"{path}: has no keypoints: no category lists any (its categories: {names})")
    require(len(chosen) == 1, f"{path}: several categories have keypoints ({names}): set data.category")
    return chosen[0]


def _annotation(entry: Mapping[str, Any], count: int, name: str) -> Annotation:
    box = finite_numbers(entry["bbox"], 4, name, "bbox")
    crowd = bool(entry.get("iscrowd", 0))
    given = entry["keypoints"] if not crowd else entry.get("keypoints") or [0] * (3 * count)
    triples = finite_numbers(given, 3 * count, name, "keypoints").reshape(count, 3)
    area = finite_numbers([entry.get("area", AREA_OF_BOX * box[2] * box[3])], 1, name, "area")
    visibility = triples[:, 2].astype(np.int8)
    return Annotation(int(entry["image_id"]), box, triples[:, :2], visibility, float(area[0]), crowd)


def finite_numbers(values: Any, count: int, name: str, what: str) -> np.ndarray:
    """A file's numbers as (count,) float64.

    Args:
        values: what the file holds.
        count: how many there must be.
        name: the entry they belong to, for the message.
        what: their field.

    Raises:
        InputError: if they are not so many finite numbers.
    """
    numbers = np.asarray(values, dtype=np.float64)
    require(
        numbers.shape == (count,),
        f"{name}: {what} holds {numbers.size} numbers, but must hold {count}"
        + (f", 3 for each of {count // 3} keypoints" if what == "keypoints" else ""),
    )
    require(
        bool(np.isfinite(numbers).all()), f"{name}: {what} must be finite numbers, but holds NaN or infinity"
    )
    return numbers


def _require_inside(found: Annotation | Detection, images: Mapping[int, ImageEntry], name: str) -> None:
    """A box may stick out of its image, but not lie wholly outside."""
    require(found.image_id in images, f"{name}: image {found.image_id} is not among the images")
    image = images[found.image_id]
    left, top, width, height = found.box
    overlaps = left < image.width and top < image.height and left + width >= 0 and top + height >= 0
    box = ", ".join(f"{side:g}" for side in found.box)
    require(overlaps, f"{name}: bbox [{box}] lies outside its image of {image.width} x {image.height} pixels")


def _id(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else entry


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which entry is malformed."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{name}: has no {error.args[0]}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{name}: cannot be read ({error})") from error
