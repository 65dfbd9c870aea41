"""COCO-format files: annotations of keypoints and a detector's results, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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
        visibility: (K,) a keypoint above 0 is labelled: 1 hidden, 2 visible, or a score as in pseudo-labels.
        area: of its segment, in pixels.
        crowd: whether it stands for many objects that nobody is expected to tell apart.
        num_keypoints: labelled keypoints by the file; an annotation with 0 is ignored in evaluation.
    """

    image_id: int
    box: np.ndarray
    keypoints: np.ndarray
    visibility: np.ndarray
    area: float
    crowd: bool
    num_keypoints: int


@dataclass(frozen=True)
class Detection:
    """A detector's box (4,), left, top, width, height in pixels, with its image and score."""

    image_id: int
    box: np.ndarray
    score: float


@dataclass(frozen=True)
class KeypointFile:
    """Images and annotations of the one category whose keypoints are used.

    Args:
        path: the file.
        category_id: ``id`` of the category.
        category_name: its name.
        keypoint_set: its keypoints.
        images: by their ids.
        annotations: those of these images.
        unlisted: number of annotations of other images, which the file does not list.
    """

    path: Path
    category_id: int
    category_name: str
    keypoint_set: KeypointSet
    images: dict[int, ImageEntry]
    annotations: tuple[Annotation, ...]
    unlisted: int = 0


def read_annotations(
    path: str | Path, config: KeypointConfig | None = None, *, category: str = ""
) -> KeypointFile:
    """Read and check an annotation file.

    Missing entries are filled in: ``iscrowd`` 0, ``area`` .53 of the box, ``num_keypoints`` the number of
    keypoints with a visibility above 0, no ``annotations`` (as in files of a test set) none. An annotation
    that COCO's evaluation ignores, a crowd or one without a labelled keypoint, needs neither keypoints nor a
    box inside its image; one of an image that is not listed is counted and left out.

    Args:
        path: the file.
        config: what replaces the file's description of its keypoints.
        category: name of the category, needed where several have keypoints.

    Raises:
        InputError: naming the file and the first entry at fault: for a file that is missing, not JSON, not in
            COCO's format or without keypoints, for two images of one id, and for an annotation with labelled
            keypoints if coordinates are not finite, the number of keypoints is not the category's, or its box
            lies wholly outside its image.
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
            images[number] = ImageEntry(_inside(str(entry["file_name"]), name), *size)
    annotations: list[Annotation] = []
    unlisted = 0
    for entry in _entries(content, "annotations", path) if "annotations" in content else ():
        name = f"{path}: annotation {_id(entry)}"
        with _named(name):
            if entry["category_id"] != chosen["id"]:
                continue
            if int(entry["image_id"]) not in images:
                unlisted += 1
                continue
            annotations.append(_annotation(entry, len(keypoint_set), name))
            if (annotations[-1].visibility > 0).any() and not annotations[-1].crowd:
                _require_inside(annotations[-1], images, name)
    name = str(chosen.get("name", ""))
    return KeypointFile(path, int(chosen["id"]), name, keypoint_set, images, tuple(annotations), unlisted)


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
    crowd = bool(entry.get("iscrowd", 0))
    given = entry.get("keypoints") or []
    stated = int(entry["num_keypoints"]) if entry.get("num_keypoints") is not None else None
    optional = crowd or not stated  # keypoints of crowds, and of objects without labelled ones
    triples = _triples([0] * (3 * count) if optional and not given else given, count, name)
    labelled = int((triples[:, 2] > 0).sum())
    if crowd or not (labelled or stated):
        box = _numbers_or_zeros(entry.get("bbox"), 4)
        area = _numbers_or_zeros([entry.get("area", AREA_OF_BOX * box[2] * box[3])], 1)
    else:
        box = finite_numbers(entry["bbox"], 4, name, "bbox")
        area = finite_numbers([entry.get("area", AREA_OF_BOX * box[2] * box[3])], 1, name, "area")
    return Annotation(
        image_id=int(entry["image_id"]),
        box=box,
        keypoints=triples[:, :2],
        visibility=triples[:, 2],
        area=float(area[0]),
        crowd=crowd,
        num_keypoints=labelled if stated is None else stated,
    )


def _triples(given: Any, count: int, name: str) -> np.ndarray:
    """Return (K, 3) x, y, visibility; coordinates of unlabelled keypoints that are not finite become 0."""
    numbers = np.array(given, dtype=np.float64)
    if numbers.shape == (3 * count,):
        triples = numbers.reshape(count, 3)
        triples[triples[:, 2] <= 0, :2] = np.nan_to_num(triples[triples[:, 2] <= 0, :2], posinf=0, neginf=0)
    return finite_numbers(numbers, 3 * count, name, "keypoints").reshape(count, 3)


def _numbers_or_zeros(values: Any, count: int) -> np.ndarray:
    try:
        return finite_numbers(values, count, "", "")
    except (TypeError, ValueError):
        return np.zeros(count)


def finite_numbers(values: Any, count: int, name: str, what: str) -> np.ndarray:
    """Return a file's numbers as (count,) float64.

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


def _inside(file_name: str, name: str) -> str:
    """Return a path below the folder of images; one that leaves it is refused."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    require(
        not path.is_absolute() and ".." not in path.parts and "\0" not in file_name,
        f"{name}: file_name={file_name!r} must be a path below the folder of images",
    )
    return file_name


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
