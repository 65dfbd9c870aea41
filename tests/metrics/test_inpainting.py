"""Scores of filled holes, by hand and over real processes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import two_processes
from ffconv.metrics.inpainting import InpaintingMetrics, InpaintingScores
from ffconv.metrics.similarity import psnr, ssim_map

KINDS = ("thin", "medium", "thick")
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def filled(count: int = 7) -> Batch:
    """Predictions, images, masks and kinds; no image has a thick hole."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, 16, 16, generator=generator)
    predicted = torch.rand(count, 3, 16, 16, generator=generator)
    mask = (torch.rand(count, 1, 16, 16, generator=generator) < 0.4).float()
    return predicted, image, mask, torch.arange(count) % 2


def scores(sizes: list[int]) -> InpaintingScores:
    metrics = InpaintingMetrics(KINDS)
    for batch in zip(*(part.split(sizes) for part in filled()), strict=True):
        metrics.update(*batch)
    return metrics.compute()


def test_scores_are_means_over_the_images():
    predicted, image, mask, _ = filled()
    whole = image * (1 - mask) + predicted * mask
    found = scores([7]).all
    assert found.hole_psnr == pytest.approx(psnr(whole, image, mask).mean().item())
    assert found.psnr == pytest.approx(psnr(whole, image).mean().item())
    assert found.ssim == pytest.approx(ssim_map(whole, image).mean().item())


def test_hole_scores_are_taken_inside_the_holes():
    predicted, image, mask, _ = filled()
    whole = image * (1 - mask) + predicted * mask
    similarity = [ssim_map(whole, image)[i][mask[i] > 0].mean().item() for i in range(7)]
    error = [(predicted - image).abs()[i][:, mask[i, 0] > 0].mean().item() for i in range(7)]
    found = scores([7]).all
    assert found.hole_ssim == pytest.approx(sum(similarity) / 7)
    assert found.hole_l1 == pytest.approx(100 * sum(error) / 7, rel=1e-5)


def test_what_the_network_draws_outside_the_holes_does_not_count():
    predicted, image, mask, kind = filled()
    metrics = InpaintingMetrics(KINDS)
    metrics.update(predicted * mask, image, mask, kind)
    assert metrics.compute().as_dict()["psnr"] == pytest.approx(scores([7]).as_dict()["psnr"])


def test_batches_do_not_matter():
    first, second = scores([7]).as_dict(), scores([3, 4]).as_dict()
    assert first == pytest.approx(second, nan_ok=True)


def test_kinds_are_apart():
    predicted, image, mask, kind = filled()
    own = kind == 1
    whole = image * (1 - mask) + predicted * mask
    medium = scores([7]).by_kind["medium"]
    assert medium.samples == 3
    assert medium.hole_psnr == pytest.approx(psnr(whole, image, mask)[own].mean().item())


def test_a_kind_without_images_has_no_score():
    thick = scores([7]).by_kind["thick"]
    assert thick.samples == 0
    assert math.isnan(thick.hole_psnr)


def test_names_of_the_values():
    assert list(scores([7]).as_dict()) == [
        *("hole_psnr", "psnr", "hole_ssim", "ssim", "hole_l1"),
        *("hole_psnr_thin", "hole_psnr_medium", "hole_psnr_thick"),
    ]


def _share(rank: int) -> dict[str, float]:
    metrics = InpaintingMetrics(KINDS)
    metrics.update(*(part[rank::2] for part in filled()))
    return metrics.compute().as_dict()


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path):
    expected = scores([7]).as_dict()
    for found in two_processes.results(_share, tmp_path):
        assert found == pytest.approx(expected, nan_ok=True)
