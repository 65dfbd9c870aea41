"""Truth through the whole chain: crop, heatmaps, decoding, way back, COCO's evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.figures import Figures
from ffconv.data.loading import LoaderSpec, eval_batches, train_batches
from ffconv.data.pose_samples import PersonSamples
from ffconv.data.pose_transforms import PoseTransformConfig, PreparePose, box_crop, to_image
from ffconv.metrics.keypoints import PoseMetrics, PoseScores


def real(reference, split: str) -> PersonSamples:
    root = reference / "data" / "coco_keypoints_mini"
    return CocoKeypoints(root / f"annotations/person_keypoints_{split}2017.json", root / f"{split}2017")


def judged(samples: PersonSamples, config: PoseTransformConfig) -> PoseScores:
    """The targets themselves as a network's heatmaps."""
    prepare = PreparePose(config, samples.keypoint_set, augment=False)
    metrics = PoseMetrics(samples, config)
    for batch in eval_batches(samples, prepare, spec=LoaderSpec(16)):
        keypoints, scores = config.heatmap_codec.decode(batch["target"])
        metrics.update(to_image(keypoints, batch["to_image"]), scores, batch["index"])
    return metrics.compute()


@pytest.mark.reference
@pytest.mark.parametrize("split", ["train", "val"])
def test_transform_there_and_back_loses_nothing(reference, split):
    samples, config = real(reference, split), PoseTransformConfig()
    metrics = PoseMetrics(samples, config)
    for number in range(len(samples)):
        person = samples.person(number)
        matrix = box_crop(person.box, config).to_input(config.input_size)
        back = torch.from_numpy(np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[None, :2]).float()
        # Unlabelled keypoints lie at (0, 0): in their box, persons with few labels are no duplicates.
        labelled = person.visibility > 0
        points = np.where(labelled[:, None], person.keypoints, person.box[:2])
        there = torch.from_numpy(points @ matrix[:, :2].T + matrix[:, 2]).float()
        found = to_image(there[None], back)
        assert np.abs(found[0].numpy() - points).max() < 1e-3
        metrics.update(found, torch.ones(1, 17), torch.tensor([number]))
    assert metrics.compute().ap == pytest.approx(100, abs=1e-10)


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("size", "sigma", "least"), [((256, 192), 2.0, 0.96), ((384, 288), 3.0, 0.97)])
def test_codecs_on_real_annotations(reference, split, size, sigma, least):
    samples = real(reference, split)
    scores = {
        name: judged(samples, PoseTransformConfig(input_size=size, sigma=sigma, codec=name)).ap
        for name in ("protocol", "unbiased")
    }
    assert scores["protocol"] >= 100 * least
    assert scores["unbiased"] >= 97.5  # keypoints far outside the crop are lost to any codec


def test_unbiased_codec_is_exact_where_nothing_is_cut_off():
    config = PoseTransformConfig(input_size=(64, 48), sigma=1.0, codec="unbiased")
    assert judged(Figures("val", 20), config).ap == pytest.approx(100, abs=0.1)


def test_protocol_s_rounding_costs_more_at_small_inputs():
    samples = Figures("val", 20)
    small, large = (
        judged(samples, PoseTransformConfig(input_size=size, sigma=sigma)).ap
        for size, sigma in (((64, 48), 1.0), ((128, 96), 1.5))
    )
    assert small < large < 100


def test_batches_are_the_same_for_any_number_of_workers():
    samples = Figures("train", 6)
    config = PoseTransformConfig(input_size=(64, 48), sigma=1.0)
    prepare = PreparePose(config, samples.keypoint_set, augment=True)
    alone, together = (
        list(train_batches(samples, prepare, spec=LoaderSpec(4, seed=1, workers=workers), epoch=2))
        for workers in (0, 2)
    )
    assert all(
        torch.equal(one[key], other[key]) for one, other in zip(alone, together, strict=True) for key in one
    )


def test_every_epoch_has_other_crops():
    samples = Figures("train", 6)
    prepare = PreparePose(PoseTransformConfig(input_size=(64, 48)), samples.keypoint_set, augment=True)
    matrices = [
        {
            int(number): matrix
            for batch in train_batches(samples, prepare, spec=LoaderSpec(4), epoch=epoch)
            for number, matrix in zip(batch["index"], batch["to_image"], strict=True)
        }
        for epoch in (0, 1)
    ]
    shared = set(matrices[0]) & set(matrices[1])
    assert shared
    assert all(not torch.equal(matrices[0][number], matrices[1][number]) for number in shared)
