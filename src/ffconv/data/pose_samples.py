"""Persons in images, one a sample, wherever they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ffconv.data.coco_format import Annotation, Detection, ImageEntry, KeypointFile
from ffconv.data.keypoint_sets import KeypointSet
from ffconv.errors import InputError

#: Reason for annotations whose image is missing from the file's list of images.
UNLISTED = "of unlisted images"


@dataclass(frozen=True)
class Person:
    """One person, or other object with keypoints, to be looked at.

    Args:
        image_id: its image.
        box: (4,) left, top, width, height in pixels.
        score: of the box; 1 for an annotated one.
        keypoints: (K, 2) x, y in pixels of the image, whose first pixel's centre is (0, 0).
        visibility: (K,) a keypoint above 0 is labelled; all 0 for a detected box.
    """

    image_id: int
    box: np.ndarray
    score: float
    keypoints: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True)
class PersonSource:
    """Where the persons of a `PersonSamples` come from.

    Args:
        keypoint_set: what their keypoints are.
        category_id: what they are called in results.
        read_image: gives the RGB image with an id.
        ground_truth: gives all annotations in COCO's format, for the evaluation.
        left_out: how many annotations are no sample, by the reason.
    """

    keypoint_set: KeypointSet
    category_id: int
    read_image: Callable[[int], Image.Image]
    ground_truth: Callable[[], dict[str, Any]]
    left_out: Mapping[str, int]


class PersonSamples:
    """A map-style source: ``samples[index]`` is ``(PIL RGB image, Person)``.

    Args:
        persons: at least one.
        source: where they come from.

    Raises:
        InputError: if there are no persons.
    """

    def __init__(self, persons: Iterable[Person], source: PersonSource) -> None:
        listed = list(persons)
        if not listed:
            reasons = left_out_words(source.left_out) or "there are no annotations or boxes"
            raise InputError(f"no person can be used: {reasons}")
        self.source = source
        # Few large arrays: counting references to many small objects copies a forked worker's pages.
        self._image_ids = np.array([person.image_id for person in listed])
        self._boxes = np.stack([person.box for person in listed])
        self._scores = np.array([person.score for person in listed])
        self._keypoints = np.stack([person.keypoints for person in listed])
        self._visibility = np.stack([person.visibility for person in listed])

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the keypoints."""
        return self.keypoint_set.names

    @property
    def keypoint_set(self) -> KeypointSet:
        """What the keypoints are."""
        return self.source.keypoint_set

    @property
    def category_id(self) -> int:
        """What the persons are called in results."""
        return self.source.category_id

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many annotations are no sample, by the reason."""
        return self.source.left_out

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, Person]:
        person = self.person(index)
        return self.source.read_image(person.image_id), person

    def person(self, index: int) -> Person:
        """A sample without its image."""
        return Person(
            int(self._image_ids[index]),
            self._boxes[index],
            float(self._scores[index]),
            self._keypoints[index],
            self._visibility[index],
        )

    def ground_truth(self) -> dict[str, Any]:
        """All annotations of the images, also those that are no sample, in COCO's format."""
        return self.source.ground_truth()

    def limited(self, count: int) -> PersonSamples:
        """About ``count`` persons: whole images, evenly spread, with the ground truth of these alone."""
        if len(self) <= count:
            return self
        images = np.array(list(dict.fromkeys(self._image_ids.tolist())))
        kept = max(1, round(count * len(images) / len(self)))
        chosen = images[np.arange(kept) * len(images) // kept].tolist()
        fields = {**vars(self.source), "ground_truth": partial(_of_images, self.source.ground_truth, chosen)}
        persons = (self.person(int(index)) for index in np.flatnonzero(np.isin(self._image_ids, chosen)))
        return PersonSamples(persons, PersonSource(**fields))


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Return the counts in words, empty where nothing was left out.

    Example:
        >>> left_out_words({"crowds": 9, "without keypoints": 124, "degenerate boxes": 0})
        '9 crowds, 124 without keypoints'
    """
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def annotated_persons(file: KeypointFile) -> tuple[list[Person], dict[str, int]]:
    """Return the annotations that are samples in SimpleBaseline's protocol, and how many are not, by reason.

    Crowds, objects without a labelled keypoint and objects without area are left out. A box is cut to its
    image, and its sides are one pixel shorter than annotated: from the first pixel's centre to the last
    one's.
    """
    persons: list[Person] = []
    left_out = Counter({"crowds": 0, "without keypoints": 0, "degenerate boxes": 0, UNLISTED: file.unlisted})
    for annotation in _by_image(file):
        box = _clean_box(annotation.box, file.images[annotation.image_id])
        if annotation.crowd:
            left_out["crowds"] += 1
        elif not (annotation.visibility > 0).any():
            left_out["without keypoints"] += 1
        elif annotation.area <= 0 or box is None:
            left_out["degenerate boxes"] += 1
        else:
            keypoints = annotation.keypoints, annotation.visibility
            persons.append(Person(annotation.image_id, box, 1.0, *keypoints))
    return persons, dict(left_out)


def detected_persons(detections: Iterable[Detection], count: int) -> list[Person]:
    """A detector's boxes as they are, without labels for their ``count`` keypoints."""
    unlabelled = np.zeros((count, 2)), np.zeros(count, dtype=np.int8)
    return [Person(found.image_id, found.box, found.score, *unlabelled) for found in detections]


def coco_ground_truth(file: KeypointFile) -> dict[str, Any]:
    """A file's category as COCO's evaluation takes it, with new annotation ids from 1.

    (The evaluation marks what is not matched by 0, so an annotation with that id would be lost.)
    """
    annotations = [
        {
            "id": number,
            "image_id": annotation.image_id,
            "category_id": file.category_id,
            "bbox": annotation.box.tolist(),
            "area": annotation.area,
            "iscrowd": int(annotation.crowd),
            "keypoints": _triples(annotation),
            "num_keypoints": annotation.num_keypoints,
        }
        for number, annotation in enumerate(file.annotations, start=1)
    ]
    keypoint_set = file.keypoint_set
    category = {
        "id": file.category_id,
        "name": file.category_name,
        "keypoints": list(keypoint_set.names),
        "skeleton": [[one + 1, other + 1] for one, other in keypoint_set.skeleton],
    }
    images = [{"id": number, **vars(image)} for number, image in file.images.items()]
    return {"images": images, "annotations": annotations, "categories": [category]}


def _of_images(ground_truth: Callable[[], dict[str, Any]], chosen: Collection[int]) -> dict[str, Any]:
    content, chosen = ground_truth(), set(chosen)
    images = [image for image in content["images"] if image["id"] in chosen]
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
    return {**content, "images": images, "annotations": annotations}


def _by_image(file: KeypointFile) -> list[Annotation]:
    position = {number: place for place, number in enumerate(file.images)}
    return sorted(file.annotations, key=lambda annotation: position[annotation.image_id])


def _clean_box(box: np.ndarray, image: ImageEntry) -> np.ndarray | None:
    """Left, top, width, height within the image, or None where there is no extent."""
    first = np.maximum(box[:2], 0)
    last = np.minimum(box[:2] + np.maximum(box[2:] - 1, 0), (image.width - 1, image.height - 1))
    sides = last - first
    return np.concatenate([first, sides]) if sides.min() >= 0 and sides.max() > 0 else None


def _triples(annotation: Annotation) -> list[float]:
    triples = np.concatenate([annotation.keypoints, annotation.visibility[:, None]], axis=1)
    return triples.flatten().tolist()
