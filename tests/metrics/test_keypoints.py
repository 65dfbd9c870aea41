"""COCO's keypoint evaluation, against COCO's own code and over real processes."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import two_processes
from coco_files import annotation, content, write
from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.figures import Figures
from ffconv.data.keypoint_sets import KeypointConfig
from ffconv.data.pose_samples import PersonSamples
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.errors import InputError
from ffconv.metrics.keypoints import PoseMetrics, coco_scores, person_scores, write_results

CONFIG = PoseTransformConfig(input_size=(64, 48))


def official(truth: dict[str, Any], results: list[dict[str, Any]], sigmas) -> list[float]:
    """Return COCO's own AP, AP50, AP75, APM, APL, AR in percent, NaN where nobody has that size."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCO()
        judge.dataset = copy.deepcopy(truth)
        judge.createIndex()
        evaluation = COCOeval(judge, judge.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if value == -1 else 100 * float(value) for value in evaluation.stats[:6]]


def perturbed(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """Annotated poses with errors of many sizes, misses, extra poses, poses in crowds, and tied scores."""
    random = np.random.default_rng(seed)
    results = []
    for entry in truth["annotations"]:
        if random.random() < 0.15:
            continue
        count = len(entry["keypoints"]) // 3
        points = np.array(entry["keypoints"], dtype=float).reshape(-1, 3)[:, :2]
        if not entry["num_keypoints"]:  # crowds and persons without keypoints: somewhere in the box
            points = np.array(entry["bbox"][:2]) + random.random((count, 2)) * entry["bbox"][2:]
        for _ in range(random.choice([1, 1, 1, 2])):
            error = random.exponential(0.07) * np.sqrt(entry["area"])
            moved = np.column_stack([points + random.normal(0, error, (count, 2)), np.ones(count)])
            score = round(float(random.random()), 1)
            results.append(result(entry["image_id"], entry["category_id"], moved, score))
    for image in truth["images"]:
        points = np.column_stack([random.uniform(0, 200, (count, 2)), np.ones(count)])
        results.append(result(image["id"], truth["categories"][0]["id"], points, round(random.random(), 1)))
    return results


def result(image: int, category: int, triples: np.ndarray, score: float) -> dict[str, Any]:
    keypoints = triples.flatten().tolist()
    return {"image_id": image, "category_id": category, "keypoints": keypoints, "score": float(score)}


def assert_official(truth: dict[str, Any], results: list[dict[str, Any]], sigmas) -> None:
    expected = official(truth, results, sigmas)
    found = list(coco_scores(truth, results, sigmas).as_dict().values())
    assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)


def with_crowds(truth: dict[str, Any]) -> dict[str, Any]:
    """Every ninth annotation becomes a crowd, as COCO has them: without keypoints."""
    for entry in truth["annotations"][::9]:
        entry |= {"iscrowd": 1, "num_keypoints": 0, "keypoints": [0] * len(entry["keypoints"])}
    return truth


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_coco_s_own_code(seed):
    samples = Figures("val", 40)
    truth = with_crowds(samples.ground_truth())
    assert sum(not entry["num_keypoints"] for entry in truth["annotations"]) > 10
    results = perturbed(truth, seed)
    assert 5 < coco_scores(truth, results, samples.keypoint_set.sigmas).ap < 95
    assert_official(truth, results, samples.keypoint_set.sigmas)


def test_other_keypoints_with_other_sigmas(tmp_path):
    annotations = [annotation(n, 7 if n % 2 else 3, area=2000.0) for n in range(1, 9)]
    samples = CocoKeypoints(write(tmp_path, content(*annotations)), tmp_path / "images")
    truth = samples.ground_truth()
    results = perturbed(truth)
    scores = [coco_scores(truth, results, sigmas).ap for sigmas in ((0.05, 0.1, 0.2), (0.2, 0.1, 0.05))]
    assert scores[0] != scores[1]
    for sigmas in ((0.05, 0.1, 0.2), (0.2, 0.1, 0.05)):
        assert_official(truth, results, sigmas)


def judged_as_the_file_by_pycocotools(folder: Path, *annotations: dict[str, Any]) -> float:
    """Return the AP of noisy poses, after comparing all scores with pycocotools on the file itself."""
    data = content(*annotations)
    samples = CocoKeypoints(write(folder, data), folder / "images")
    results = perturbed(samples.ground_truth())
    sigmas = samples.keypoint_set.sigmas
    expected = official(data, results, sigmas)
    found = coco_scores(samples.ground_truth(), results, sigmas)
    assert list(found.as_dict().values()) == pytest.approx(expected, abs=1e-4, nan_ok=True)
    return found.ap


def test_visibility_between_zero_and_one_is_judged_as_by_coco_s_own_code(tmp_path):
    """As in files of pseudo-labels, where visibilities are scores."""
    keypoints = [20, 10, 0.37, 28, 30, 0.9, 15, 12, 0.0]
    labelled = [annotation(n, 7 if n % 2 else 3, area=900.0, keypoints=keypoints) for n in range(1, 9)]
    assert 0 < judged_as_the_file_by_pycocotools(tmp_path, *labelled) < 100


def test_annotations_that_cannot_count_are_ignored_as_by_coco_s_own_code(tmp_path):
    persons = [annotation(n, 7 if n % 2 else 3, area=2000.0) for n in range(1, 9)]
    nothing = {"keypoints": [0] * 9, "num_keypoints": 0}
    empty = annotation(9, 7, keypoints=[], num_keypoints=0, bbox=[0, 0, 0, 0], area=0)
    others = [
        annotation(10, 3, **nothing, area=1500.0),
        annotation(11, 3, **nothing, iscrowd=1),
        annotation(12, 7, num_keypoints=0, area=1800.0),  # labelled, but the file says that it does not count
        annotation(13, 99),
    ]
    assert 0 < judged_as_the_file_by_pycocotools(tmp_path, *persons, empty, *others) < 100


@pytest.mark.reference
def test_real_annotations_are_judged_as_by_coco_s_own_code(reference):
    root = reference / "data" / "coco_keypoints_mini"
    for split in ("train", "val"):
        samples = CocoKeypoints(
            root / f"annotations/person_keypoints_{split}2017.json", root / f"{split}2017"
        )
        truth = samples.ground_truth()
        assert_official(truth, perturbed(truth), samples.keypoint_set.sigmas)


def test_more_than_twenty_poses_an_image():
    """COCO counts the twenty best."""
    samples = Figures("val", 3)
    truth = samples.ground_truth()
    results = [pose for seed in range(12) for pose in perturbed(truth, seed)]
    assert_official(truth, results, samples.keypoint_set.sigmas)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    samples = Figures("val", 1)
    with pytest.raises(InputError, match=r"pip install 'ffconv\[keypoints\]'"):
        PoseMetrics(samples, CONFIG)  # before anything is predicted


def test_no_poses_are_all_misses():
    samples = Figures("val", 10)
    assert coco_scores(samples.ground_truth(), [], samples.keypoint_set.sigmas).ap == 0


def test_size_that_nobody_has_is_not_a_number(tmp_path):
    samples = CocoKeypoints(write(tmp_path, content(annotation(1, 7, area=2000.0))), tmp_path / "images")
    truth = samples.ground_truth()
    scores = coco_scores(truth, perturbed(truth, 1), samples.keypoint_set.sigmas)
    assert math.isnan(scores.ap_large)
    assert not math.isnan(scores.ap_medium)


def test_results_are_left_as_they_are():
    samples = Figures("val", 3)
    results = perturbed(samples.ground_truth())
    before = copy.deepcopy(results)
    coco_scores(samples.ground_truth(), results, samples.keypoint_set.sigmas)
    assert results == before


def test_score_is_the_mean_of_confident_keypoints_times_the_box_s():
    keypoints = np.array([[0.9, 0.5, 0.2, 0.1], [0.1, 0.0, 0.2, -0.4]])
    assert person_scores(keypoints, np.array([0.5, 1.0])).tolist() == pytest.approx([0.35, 0.0])


def predictions(samples: PersonSamples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy poses of all persons, with scores."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.from_numpy(np.stack([samples.person(n).keypoints for n in range(len(samples))])).float()
    noise = (
        4
        * torch.randn(truth.shape, generator=generator)
        * torch.rand(len(samples), 1, 1, generator=generator)
    )
    return truth + noise, torch.rand(truth.shape[:2], generator=generator), torch.arange(len(samples))


def metrics_of(samples: PersonSamples, parts) -> PoseMetrics:
    metrics = PoseMetrics(samples, CONFIG)
    for part in parts:
        metrics.update(*part)
    return metrics


def test_exact_poses_are_perfect():
    samples = Figures("val", 20)
    _, scores, index = predictions(samples)
    exact = torch.from_numpy(np.stack([samples.person(n).keypoints for n in range(len(samples))]))
    boxes = torch.from_numpy(np.stack([samples.person(n).box for n in range(len(samples))]))
    labelled = torch.tensor([(samples.person(n).visibility > 0).tolist() for n in range(len(samples))])
    exact = torch.where(labelled[..., None], exact, boxes[:, None, :2])
    result_ = metrics_of(samples, [(exact, torch.ones_like(scores), index)]).compute()
    assert list(result_.as_dict().values()) == pytest.approx([100] * 6)


@pytest.mark.parametrize("tied", [False, True])
def test_batches_change_nothing(tied):
    samples = Figures("val", 20)
    keypoints, scores, index = predictions(samples)
    whole = keypoints, torch.ones_like(scores) if tied else scores, index
    expected = metrics_of(samples, [whole]).compute()
    shuffled = torch.randperm(len(samples))
    parts = zip(*(part[shuffled].split(7) for part in whole), strict=True)
    found = metrics_of(samples, parts).compute()
    assert found.as_dict() == expected.as_dict()
    assert found.results == expected.results


def test_results_are_poses_with_their_scores():
    samples = Figures("val", 2).limited(1)
    keypoints, scores, index = predictions(samples)
    found = metrics_of(samples, [(keypoints, scores, index)]).compute().results
    number = next(n for n in index.tolist() if keypoints[n, 0, 0].item() == found[0]["keypoints"][0])
    triples = torch.cat([keypoints, scores[..., None]], dim=2)[number]
    assert found[0]["keypoints"] == triples.flatten().tolist()
    assert found[0]["score"] == pytest.approx(scores[number][scores[number] > 0.2].mean().item())
    assert (found[0]["image_id"], found[0]["category_id"]) == (samples.person(number).image_id, 1)


def test_duplicates_are_suppressed_by_the_keypoints_own_sigmas(tmp_path):
    """Two boxes of one person: poses a few pixels apart are one with coarse sigmas, two with fine ones."""
    path = write(tmp_path, content(annotation(1, 7), annotation(2, 7)))
    poses = (
        torch.tensor([[[20.0, 10], [28, 30], [15, 25]]]).repeat(2, 1, 1)
        + torch.tensor([0.0, 3])[:, None, None]
    )
    for sigma, expected in ((0.3, 1), (0.01, 2)):
        samples = CocoKeypoints(path, tmp_path / "images", keypoints=KeypointConfig(sigmas=[sigma] * 3))
        metrics = metrics_of(samples, [(poses, torch.ones(2, 3), torch.arange(2))])
        assert len(metrics.compute().results) == expected


def test_numbers_that_are_none_count_as_nought():
    samples = Figures("val", 2)
    keypoints, scores, index = predictions(samples)
    nothing = torch.full_like(keypoints, float("nan")), torch.full_like(scores, float("nan")), index
    found = metrics_of(samples, [nothing]).compute()
    assert found.ap == 0
    assert all(pose["score"] == 0 for pose in found.results)


def test_shapes_that_do_not_fit():
    samples = Figures("val", 2)
    with pytest.raises(ValueError, match=r"must be \(3, 17, 2\) and \(3, 17\)"):
        PoseMetrics(samples, CONFIG).update(torch.zeros(3, 16, 2), torch.zeros(3, 16), torch.arange(3))


def test_written_results_are_what_was_judged(tmp_path):
    from pycocotools.coco import COCO

    samples = Figures("val", 5)
    found = metrics_of(samples, [predictions(samples)]).compute()
    write_results(found.results, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert [set(entry) for entry in written] == [{"image_id", "category_id", "keypoints", "score"}] * len(
        written
    )
    expected = official(samples.ground_truth(), written, samples.keypoint_set.sigmas)
    assert list(found.as_dict().values()) == pytest.approx(expected, abs=1e-4)
    (tmp_path / "truth.json").write_text(json.dumps(samples.ground_truth()))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(tmp_path / "truth.json")).loadRes(str(tmp_path / "results.json"))
    assert len(loaded.anns) == len(written)


def _shares(rank: int) -> list[dict[str, float]]:
    """Scores of two very uneven shares: all but four persons, whose images are shared; all or nothing."""
    samples = Figures("val", 10)
    count = len(samples)
    found = []
    for border in (count - 4, count):
        share = slice(0, border) if rank == 0 else slice(border, None)
        parts = [tuple(part[share] for part in predictions(samples))] if border < count or rank == 0 else []
        found.append(metrics_of(samples, parts).compute().as_dict())
    return found


def test_two_processes_score_as_one(tmp_path: Path):
    samples = Figures("val", 10)
    expected = metrics_of(samples, [predictions(samples)]).compute().as_dict()
    assert two_processes.results(_shares, tmp_path) == [[expected] * 2] * 2
