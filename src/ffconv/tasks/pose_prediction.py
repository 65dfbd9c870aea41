"""Keypoints of the persons of a picture, drawn, and written in COCO's format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ffconv.data.keypoint_sets import KeypointSet
from ffconv.data.pose_transforms import box_crop, crop_image
from ffconv.errors import require
from ffconv.interop.checkpoint_info import PoseInfo
from ffconv.metrics.keypoints import person_scores
from ffconv.metrics.oks import suppress_duplicates
from ffconv.tasks.networks import Trained
from ffconv.tasks.person_boxes import PERSON, PersonBox, Picture
from ffconv.tasks.pose import PoseEstimator
from ffconv.tasks.skeletons import Skeleton, draw_skeletons


@dataclass(frozen=True)
class FoundPerson:
    """A person with keypoints.

    Args:
        box: (4,) left, top, width, height in pixels.
        keypoints: (K, 2) x, y in pixels.
        keypoint_scores: (K,).
        score: Of the person: the box's times the mean of the keypoints' above the evaluation's threshold.
    """

    box: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    score: float


class PosePredictor:
    """Finds, and draws, the keypoints of the persons in pictures.

    Args:
        estimator: Its network on ``device``, in evaluation mode.
        device: Where it runs.
        batch_size: Persons at once.
        shown: Smallest score of a keypoint that is drawn, and counts as found in what is written.
    """

    def __init__(
        self, estimator: PoseEstimator, device: torch.device, *, batch_size: int = 32, shown: float = 0.2
    ) -> None:
        self._estimator, self._batch_size, self._shown = estimator, batch_size, shown
        self.device = device

    @property
    def keypoint_set(self) -> KeypointSet:
        """The keypoints that are found."""
        return self._estimator.keypoint_set

    def __call__(self, image: Image.Image, boxes: Sequence[PersonBox]) -> list[FoundPerson]:
        """The persons in these boxes, the surest first, one for boxes on the same person."""
        if not boxes:
            return []
        transform = self._estimator.transform
        crops = [box_crop(found.box, transform) for found in boxes]
        inputs = [crop_image(image, crop, transform) for crop in crops]
        images, matrices = (torch.stack(column) for column in zip(*inputs, strict=True))
        parts = [
            self._estimate(*part)
            for part in zip(images.split(self._batch_size), matrices.split(self._batch_size), strict=True)
        ]
        keypoints, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        totals = person_scores(scores, np.array([found.score for found in boxes]))
        areas = np.array([crop.sides.prod() for crop in crops])
        kept = suppress_duplicates(keypoints, totals, areas, sigmas=self.keypoint_set.sigmas)
        return [FoundPerson(boxes[i].box, keypoints[i], scores[i], float(totals[i])) for i in kept]

    def draw(self, image: Image.Image, persons: Sequence[FoundPerson]) -> Image.Image:
        """Return the picture with the persons' skeletons and scores."""
        skeletons = [
            Skeleton(found.keypoints, found.keypoint_scores >= self._shown, f"{found.score:.2f}")
            for found in persons
        ]
        return draw_skeletons(image, skeletons, self.keypoint_set)

    def annotations(self, picture: Picture, persons: Sequence[FoundPerson]) -> list[dict[str, Any]]:
        """The persons as COCO's annotations, ids left out; keypoints below the threshold are not labelled."""
        return [
            {
                "image_id": picture.number,
                "category_id": PERSON,
                "bbox": found.box.round(2).tolist(),
                "area": round(float(found.box[2] * found.box[3]), 2),
                "iscrowd": 0,
                "num_keypoints": int((found.keypoint_scores >= self._shown).sum()),
                "keypoints": _triples(found, self._shown),
                "keypoint_scores": found.keypoint_scores.round(4).tolist(),
                "score": round(found.score, 4),
            }
            for found in persons
        ]

    @torch.no_grad()
    def _estimate(self, images: torch.Tensor, matrices: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        keypoints, scores = self._estimator(images.to(self.device), matrices.to(self.device))
        return keypoints.cpu().double().numpy(), scores.cpu().double().numpy()


def pose_predictor(
    trained: Trained[PoseInfo],
    device: torch.device,
    *,
    flip: bool | None = None,
    batch_size: int = 32,
    shown: float = 0.2,
) -> PosePredictor:
    """Make the predictor of a checkpoint.

    Args:
        trained: Network, and what its checkpoint says of it.
        device: Where the network runs.
        flip: Average with the mirrored image's heatmaps; None does as the checkpoint's evaluation.
        batch_size: See :class:`PosePredictor`; so is shown.

    Raises:
        InputError: For a batch size below 1.
    """
    require(batch_size > 0, f"batch_size={batch_size} must be at least 1")
    network, info = trained
    test = info.test if flip is None else dataclasses.replace(info.test, flip=flip)
    estimator = PoseEstimator(network.to(device), info.keypoints, info.transform, test)
    return PosePredictor(estimator, device, batch_size=batch_size, shown=shown)


def coco_content(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], keypoint_set: KeypointSet
) -> dict[str, Any]:
    """A COCO annotation file: what `Picture`s and `PosePredictor.annotations` say, with ids."""
    category = {
        "id": PERSON,
        "name": "person",
        "keypoints": list(keypoint_set.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoint_set.skeleton],
        "sigmas": list(keypoint_set.sigmas),
    }
    numbered = [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)]
    return {"images": list(images), "categories": [category], "annotations": numbered}


def _triples(found: FoundPerson, shown: float) -> list[float]:
    visibility = np.where(found.keypoint_scores >= shown, 2, 0)
    return np.column_stack([found.keypoints.round(2), visibility]).flatten().tolist()
