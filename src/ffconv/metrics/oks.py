"""Object Keypoint Similarity, and the suppression of duplicates by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def object_keypoint_similarity(
    keypoints: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: Sequence[float]
) -> np.ndarray:
    """How alike poses are, from 0 to 1: the mean over the keypoints of exp(-d^2 / (2 A (2 sigma)^2)).

    Args:
        keypoints: (K, 2) in pixels.
        others: (M, K, 2) in pixels.
        areas: (M,) in pixels, the A by which each pair is judged.
        sigmas: K of them (`KeypointSet.sigmas`).

    Returns:
        (M,).
    """
    squares = np.square(others - keypoints).sum(axis=2)
    variances = np.square(2 * np.asarray(sigmas))
    # As COCO's evaluation does, so that an empty area divides nothing by 0.
    return np.exp(-squares / variances / (areas[:, None] + np.spacing(1)) / 2).mean(axis=1)


def suppress_duplicates(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    *,
    sigmas: Sequence[float],
    threshold: float = 0.9,
) -> np.ndarray:
    """Non-maximum suppression by Object Keypoint Similarity, as SimpleBaseline's released code has it.

    From the highest score down, a pose is kept unless it is more alike than ``threshold`` to one kept before;
    the area that a pair is judged by is the mean of both. Of equal scores the earlier pose comes first.

    Args:
        keypoints: (M, K, 2) in pixels, of one image.
        scores: (M,).
        areas: (M,) in pixels, of the poses' crops.
        sigmas: K of them.
        threshold: similarity above which a pose counts as the same one.

    Returns:
        Numbers of the poses that are kept, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        both = (areas[best] + areas[order]) / 2
        alike = object_keypoint_similarity(keypoints[best], keypoints[order], both, sigmas)
        order = order[alike <= threshold]
    return np.array(kept, dtype=np.int64)
