"""Object Keypoint Similarity and the suppression of duplicates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ffconv.metrics.oks import object_keypoint_similarity, suppress_duplicates

SIGMAS = (0.05, 0.1, 0.2)


def poses(count: int, spread: float) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.array([[10, 10], [30, 20], [20, 40]]) + random.normal(0, spread, (count, 3, 2))


def test_similarity_by_its_formula():
    one, others, areas = poses(1, 0)[0], poses(4, 3), np.array([100.0, 400.0, 900.0, 50.0])
    found = object_keypoint_similarity(one, others, areas, SIGMAS)
    for pose, area, similarity in zip(others, areas, found, strict=True):
        terms = [
            math.exp(-(math.dist(a, b) ** 2) / (2 * area * (2 * sigma) ** 2))
            for a, b, sigma in zip(one, pose, SIGMAS, strict=True)
        ]
        assert similarity == pytest.approx(sum(terms) / 3)


def test_similarity_with_itself_is_one():
    one = poses(1, 0)
    assert object_keypoint_similarity(one[0], one, np.zeros(1), SIGMAS).tolist() == [1]


def test_best_of_duplicates_is_kept():
    doubled = poses(4, 0) + np.array([0, 0, 100, 100])[:, None, None]
    kept = suppress_duplicates(doubled, np.array([0.3, 0.8, 0.9, 0.7]), np.full(4, 400.0), sigmas=SIGMAS)
    assert kept.tolist() == [2, 1]


def test_area_of_a_pair_is_the_mean_of_both():
    """A shift that is above the threshold by the larger area, and below it by the mean."""
    pair = np.stack([poses(1, 0)[0], poses(1, 0)[0] + 0.6])
    areas = np.array([10.0, 100.0])
    alike = [
        object_keypoint_similarity(pair[0], pair[1:], np.array([area]), SIGMAS)[0] for area in (10, 55, 100)
    ]
    between = (alike[1] + alike[2]) / 2
    kept = suppress_duplicates(pair, np.array([1.0, 0.5]), areas, sigmas=SIGMAS, threshold=between)
    assert kept.tolist() == [0, 1]
    between = (alike[0] + alike[1]) / 2
    kept = suppress_duplicates(pair, np.array([1.0, 0.5]), areas, sigmas=SIGMAS, threshold=between)
    assert kept.tolist() == [0]


def test_first_of_equal_scores_is_kept():
    kept = suppress_duplicates(poses(3, 0), np.array([0.5, 0.5, 0.5]), np.full(3, 400.0), sigmas=SIGMAS)
    assert kept.tolist() == [0]


def test_suppressed_poses_suppress_nothing():
    """Of three in a chain the second falls to the first; the third stays, though it is near the second."""
    chain = np.stack([poses(1, 0)[0] + shift for shift in (0.0, 1.0, 2.0)])
    areas = np.full(3, 30.0)
    near = object_keypoint_similarity(chain[0], chain[1:], areas[1:], SIGMAS)
    threshold = near.mean()
    kept = suppress_duplicates(chain, np.array([0.9, 0.8, 0.7]), areas, sigmas=SIGMAS, threshold=threshold)
    assert kept.tolist() == [0, 2]


def test_nothing_to_suppress():
    assert suppress_duplicates(np.zeros((0, 3, 2)), np.zeros(0), np.zeros(0), sigmas=SIGMAS).tolist() == []
