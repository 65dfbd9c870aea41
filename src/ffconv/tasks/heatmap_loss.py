"""Loss of predicted heatmaps."""

from __future__ import annotations

from torch import Tensor


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor, *, hardest: int | None = None) -> Tensor:
    """Half the mean squared error, with keypoints of weight 0 as if they were right.

    Reference: Xiao, Wu, Wei, ECCV 2018, and its released code; online hard keypoint mining: Chen et al.,
    Cascaded Pyramid Network for Multi-Person Pose Estimation, CVPR 2018.

    Args:
        heatmaps: (N, K, H, W), predicted.
        targets: (N, K, H, W).
        weights: (N, K).
        hardest: mines hard keypoints: of each sample the mean goes over this many keypoints, those of the
            largest error; None takes all.

    Returns:
        Scalar.

    Raises:
        ValueError: for more hard keypoints than there are, or fewer than one.
    """
    errors = (weights[:, :, None, None] * (heatmaps - targets)).square().mean(dim=(2, 3)) / 2
    if hardest is None:
        return errors.mean()
    count = errors.shape[1]
    if not 1 <= hardest <= count:
        raise ValueError(f"hardest={hardest} must lie in [1, {count}], the number of keypoints")
    return errors.topk(hardest, dim=1).values.mean()
