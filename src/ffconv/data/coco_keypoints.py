"""Persons of a COCO-format annotation file and a folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ffconv.data.coco_format import ImageEntry, KeypointFile, read_annotations, read_detections
from ffconv.data.decoding import read_image
from ffconv.data.keypoint_sets import KeypointConfig
from ffconv.data.pose_samples import (
    UNLISTED,
    Person,
    PersonSamples,
    PersonSource,
    annotated_persons,
    coco_ground_truth,
    detected_persons,
)
from ffconv.data.samples import UnreadableSample, some
from ffconv.errors import InputError, require


class CocoKeypoints(PersonSamples):
    """The persons of an annotation file, by annotated boxes or by a detector's.

    Args:
        annotations: annotation file.
        folder: folder of the images.
        keypoints: what replaces the file's description of its keypoints.
        category: name of the category, needed where several have keypoints.
        detections: result file of a detector, whose boxes take the annotated ones' place.
        detection_threshold: smallest score of a box that is used.
        check_files: whether missing images are looked for now, not when they are read.

    Raises:
        InputError: for files that are missing, malformed or hold no person.
    """

    def __init__(
        self,
        annotations: str | Path,
        folder: str | Path,
        *,
        keypoints: KeypointConfig | None = None,
        category: str = "",
        detections: str | Path = "",
        detection_threshold: float = 0.0,
        check_files: bool = True,
    ) -> None:
        file = read_annotations(annotations, keypoints, category=category)
        if detections:
            boxes = read_detections(detections, file, detection_threshold)
            persons = detected_persons(boxes, len(file.keypoint_set))
            left_out = {UNLISTED: file.unlisted}
        else:
            persons, left_out = annotated_persons(file)
        images = CocoImages(Path(folder), file.images, persons)
        if check_files:
            images.require_files()
        truth = partial(_ground_truth, annotations, keypoints, category)
        source = PersonSource(file.keypoint_set, file.category_id, images, truth, left_out)
        try:
            super().__init__(persons, source)
        except InputError as error:
            raise InputError(f"{detections or annotations}: {error}") from error


class CocoImages:
    """Gives the image with an id, as it is stored or, where its annotation says so, upright.

    COCO's annotations count pixels as the file stores them; a label tool that turns images by their EXIF
    orientation counts those of the upright image. The annotated size tells which.
    """

    def __init__(self, folder: Path, images: dict[int, ImageEntry], persons: Iterable[Person]) -> None:
        self._folder = folder
        used = sorted({person.image_id for person in persons})
        entries = [images[number] for number in used]
        # Arrays, as `PersonSamples` holds them, for the same reason.
        self._ids = np.array(used)
        self._files = np.array([os.fsencode(entry.file_name) for entry in entries])
        self._sizes = np.array([(entry.width, entry.height) for entry in entries])

    def __call__(self, image_id: int) -> Image.Image:
        position = int(np.searchsorted(self._ids, image_id))
        path = self._folder / os.fsdecode(self._files[position])
        expected = tuple(self._sizes[position].tolist())
        image = read_image(path, upright=False)
        if image.size != expected:
            image = read_image(path)
        if image.size != expected:
            sizes = [f"{width} x {height}" for width, height in (image.size, expected)]
            raise UnreadableSample(str(path), f"has {sizes[0]} pixels, but its annotation says {sizes[1]}")
        return image

    def require_files(self) -> None:
        """Looks for every image.

        Raises:
            InputError: listing the missing ones.
        """
        require(self._folder.is_dir(), f"{self._folder}: no such folder of images")
        present = {entry.name for entry in os.scandir(self._folder)}
        names = [os.fsdecode(file) for file in self._files]
        missing = [name for name in names if name not in present and not (self._folder / name).is_file()]
        if missing:
            raise InputError(
                f"{self._folder}: {len(missing)} of {len(names)} images are missing: {some(missing)}"
            )


def _ground_truth(path: str | Path, keypoints: KeypointConfig | None, category: str) -> dict[str, Any]:
    """Reads the file once more: only an evaluation needs all of it, and workers should not carry it."""
    file: KeypointFile = read_annotations(path, keypoints, category=category)
    return coco_ground_truth(file)
