"""COCO's keypoint evaluation, exact for any batch size and any number of processes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffconv.data.pose_samples import PersonSamples
from ffconv.data.pose_transforms import PoseTransformConfig, box_crop
from ffconv.errors import InputError
from ffconv.files import write_atomically
from ffconv.metrics.oks import suppress_duplicates
from ffconv.metrics.reduction import gather_over_processes

#: A keypoint counts for its person's score if its own is above this.
KEYPOINT_THRESHOLD = 0.2

#: One pose in COCO's result format.
Result = dict[str, Any]


@dataclass(frozen=True)
class PoseScores:
    """COCO's summary of a whole set, in percent; NaN where no person of that size is annotated.

    Args:
        ap: mean of the average precision at similarities .50, .55, ..., .95.
        ap50, ap75: average precision at similarity .50 and .75.
        ap_medium, ap_large: ``ap`` of persons of 32^2 to 96^2 pixels, and larger.
        ar: mean of the largest recall at the same similarities, with 20 poses an image.
        results: the poses that were judged, in COCO's result format.
    """

    ap: float
    ap50: float
    ap75: float
    ap_medium: float
    ap_large: float
    ar: float
    results: tuple[Result, ...] = ()

    def as_dict(self) -> dict[str, float]:
        """``{"AP", "AP50", "AP75", "APM", "APL", "AR"}``."""
        names = ("AP", "AP50", "AP75", "APM", "APL", "AR")
        values = (self.ap, self.ap50, self.ap75, self.ap_medium, self.ap_large, self.ar)
        return dict(zip(names, values, strict=True))


class PoseMetrics:
    """Collects poses over batches; ``compute`` judges those of all processes together.

    A person's score is its box's score times the mean of its keypoints' scores above .2 (0 without any); of
    poses more alike than .9 the best is kept.

    Args:
        samples: the persons that are looked at, with the ground truth of their images.
        transform: how their crops were made; the suppression of duplicates judges by the crops' areas.

    Raises:
        InputError: where faster-coco-eval is not installed.
    """

    def __init__(self, samples: PersonSamples, transform: PoseTransformConfig) -> None:
        require_coco_evaluation()  # before the work
        self._samples = samples
        self._transform = transform
        self._batches: list[tuple[Tensor, Tensor]] = []

    def update(self, keypoints: Tensor, scores: Tensor, index: Tensor) -> None:
        """Adds a batch. What is not a finite number counts as 0.

        Args:
            keypoints: (N, K, 2) x, y in pixels of the image.
            scores: (N, K).
            index: (N,) numbers of the persons in the samples.

        Raises:
            ValueError: for shapes that do not fit each other or the keypoints.
        """
        expected = (len(index), len(self._samples.keypoint_set))
        if keypoints.shape != (*expected, 2) or scores.shape != expected:
            shapes = f"{tuple(keypoints.shape)} and {tuple(scores.shape)}"
            raise ValueError(
                f"keypoints and scores of shapes {shapes} must be {(*expected, 2)} and {expected}"
            )
        poses = torch.cat([keypoints, scores[..., None]], dim=2).detach().float().cpu()
        self._batches.append((index.cpu(), poses.nan_to_num(0, 0, 0)))

    def compute(self) -> PoseScores:
        """The scores over all processes' persons; every process calls it and gets the same."""
        gathered = [batch for part in gather_over_processes(self._batches) for batch in part]
        results = self._results(gathered)
        truth = self._samples.ground_truth()
        return coco_scores(truth, results, self._samples.keypoint_set.sigmas)

    def _results(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Result]:
        """Poses with their final scores, in the order of images and persons, so that ties fall alike."""
        poses = {
            int(number): pose
            for index, part in batches
            for number, pose in zip(index, part.numpy(), strict=True)
        }
        found: list[Result] = []
        numbers = sorted(poses, key=lambda number: (self._samples.person(number).image_id, number))
        for image_id, group in groupby(numbers, key=lambda number: self._samples.person(number).image_id):
            members = list(group)
            persons = [self._samples.person(number) for number in members]
            stacked = np.stack([poses[number] for number in members]).astype(np.float64)
            scores = person_scores(stacked[..., 2], np.array([person.score for person in persons]))
            areas = np.array([box_crop(person.box, self._transform).sides.prod() for person in persons])
            sigmas = self._samples.keypoint_set.sigmas
            found += [
                self._result(image_id, stacked[kept], float(scores[kept]))
                for kept in suppress_duplicates(stacked[..., :2], scores, areas, sigmas=sigmas)
            ]
        return found

    def _result(self, image_id: int, pose: np.ndarray, score: float) -> Result:
        return {
            "image_id": image_id,
            "category_id": self._samples.category_id,
            "keypoints": pose.flatten().tolist(),
            "score": score,
        }


def require_coco_evaluation() -> None:
    """Raises InputError that says how to install faster-coco-eval, where it is missing."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError as error:
        raise InputError(
            "average precision needs the package faster-coco-eval: pip install 'ffconv[keypoints]'"
        ) from error


def person_scores(keypoint_scores: np.ndarray, box_scores: np.ndarray) -> np.ndarray:
    """(M, K), (M,) -> (M,): box score times the mean of the keypoint scores above .2; 0 without any."""
    counted = keypoint_scores > KEYPOINT_THRESHOLD
    total = np.where(counted, keypoint_scores, 0).sum(axis=1)
    return box_scores * total / np.maximum(counted.sum(axis=1), 1)


def coco_scores(
    ground_truth: dict[str, Any], results: Sequence[Result], sigmas: Sequence[float]
) -> PoseScores:
    """Run COCO's keypoint evaluation with faster-coco-eval, which gives pycocotools' numbers; in percent.

    Args:
        ground_truth: COCO format with one category, annotation ids from 1.
        results: COCO's result format, of images of the ground truth.
        sigmas: one a keypoint.

    Raises:
        InputError: where faster-coco-eval is not installed.
    """
    require_coco_evaluation()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(ground_truth)
    # The library writes boxes and areas into what it is given.
    found = truth.loadRes([dict(result) for result in results])
    evaluation = COCOeval_faster(truth, found, iouType="keypoints", kpt_oks_sigmas=list(sigmas))
    evaluation.params.catIds = [category["id"] for category in ground_truth["categories"]]
    evaluation.run()
    stats = evaluation.stats_as_dict
    values = {name: math.nan if value == -1 else 100 * value for name, value in stats.items()}
    return PoseScores(
        ap=values["AP_all"],
        ap50=values["AP_50"],
        ap75=values["AP_75"],
        ap_medium=values["AP_medium"],
        ap_large=values["AP_large"],
        ar=values["AR_all"],
        results=tuple(results),
    )


def write_results(results: Sequence[Result], path: str | Path) -> None:
    """Writes poses as the JSON list that COCO's evaluation server takes."""
    write_atomically(Path(path), json.dumps(list(results)).encode())
