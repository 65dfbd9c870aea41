"""The loss of heatmaps."""

from __future__ import annotations

import pytest
import torch

from ffconv.tasks.heatmap_loss import heatmap_loss


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heatmaps, targets = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    return heatmaps, targets, torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def per_keypoint(heatmaps: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(N, K): half the mean squared error of each keypoint."""
    squares = [[(heatmaps[n, k] - targets[n, k]).pow(2).sum() / 20 / 2 for k in range(3)] for n in range(2)]
    return torch.tensor(squares) * weights


def test_half_the_mean_squared_error_of_weighted_keypoints():
    batch = example()
    torch.testing.assert_close(heatmap_loss(*batch), per_keypoint(*batch).mean())


def test_hardest_keypoints_alone():
    batch = example()
    expected = per_keypoint(*batch).sort(dim=1, descending=True).values[:, :2].mean()
    torch.testing.assert_close(heatmap_loss(*batch, hardest=2), expected)


def test_all_keypoints_as_hardest_is_the_mean():
    batch = example()
    torch.testing.assert_close(heatmap_loss(*batch, hardest=3), heatmap_loss(*batch))


def test_keypoints_without_weight_have_no_gradient():
    heatmaps, targets, weights = example()
    heatmaps.requires_grad_()
    heatmap_loss(heatmaps, targets, weights).backward()
    assert torch.equal(heatmaps.grad.abs().sum(dim=(2, 3)) > 0, weights > 0)


@pytest.mark.parametrize("hardest", [0, 4])
def test_number_of_hardest_keypoints_out_of_range(hardest):
    with pytest.raises(ValueError, match=rf"hardest={hardest} must lie in \[1, 3\]"):
        heatmap_loss(*example(), hardest=hardest)
