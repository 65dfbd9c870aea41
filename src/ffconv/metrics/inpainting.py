"""How well holes are filled, exact for any batch size and any number of processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ffconv.metrics.reduction import sum_over_processes
from ffconv.metrics.similarity import masked_mean, psnr, ssim_map


@dataclass(frozen=True)
class HoleScore:
    """Means over the images with one kind of hole; NaN without images.

    Args:
        samples: number of images.
        hole_psnr: PSNR in dB over the pixels of the hole.
        psnr: PSNR in dB over the whole image, known pixels put back.
        hole_ssim: structural similarity around the pixels of the hole.
        ssim: structural similarity over the whole image.
        hole_l1: mean absolute difference inside the hole, in percent of the range.
    """

    samples: int
    hole_psnr: float
    psnr: float
    hole_ssim: float
    ssim: float
    hole_l1: float


@dataclass(frozen=True)
class InpaintingScores:
    """Scores of a whole set.

    Args:
        all: over all images.
        by_kind: over those with each kind of hole.
    """

    all: HoleScore
    by_kind: dict[str, HoleScore]

    def as_dict(self) -> dict[str, float]:
        """The means over all images, and the PSNR inside each kind of hole."""
        total = {name: value for name, value in vars(self.all).items() if name != "samples"}
        return total | {f"hole_psnr_{kind}": score.hole_psnr for kind, score in self.by_kind.items()}


class InpaintingMetrics:
    """Sums over images; ``compute`` adds them up over the processes of torch.distributed.

    Args:
        kinds: names of the kinds of holes.

    Example:
        >>> metrics = InpaintingMetrics(["thin"])
        >>> image, mask = torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
        >>> metrics.update(image + 0.1, image, mask, torch.zeros(1, dtype=torch.int64))
        >>> round(metrics.compute().all.hole_psnr, 3)
        20.0
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = tuple(kinds)
        self._sums = torch.zeros(len(self._kinds), 5, dtype=torch.float64)
        self._counts = torch.zeros(len(self._kinds), dtype=torch.int64)

    def update(self, predicted: Tensor, image: Tensor, mask: Tensor, kind: Tensor) -> None:
        """Adds a batch.

        Args:
            predicted: (N, 3, H, W), what the network gives; only its holes count.
            image: (N, 3, H, W), in [0, 1].
            mask: (N, 1, H, W), 1 inside the hole.
            kind: (N,), number of each hole's kind.
        """
        filled = torch.lerp(image, predicted.to(image.dtype), mask)
        similarity = ssim_map(filled, image)
        values = torch.stack(
            [
                psnr(filled, image, mask),
                psnr(filled, image),
                masked_mean(similarity, mask),
                similarity.mean((1, 2, 3)),
                100 * masked_mean((filled.double() - image.double()).abs(), mask),
            ],
            dim=1,
        )
        self._sums.index_add_(0, kind.cpu(), values.cpu())
        self._counts += torch.bincount(kind.cpu(), minlength=len(self._kinds))

    def compute(self) -> InpaintingScores:
        """The scores over all processes' batches; every process calls it and gets the same."""
        sums, counts = sum_over_processes([self._sums, self._counts])
        by_kind = {
            kind: _score(total, int(count))
            for kind, total, count in zip(self._kinds, sums, counts, strict=True)
        }
        return InpaintingScores(_score(sums.sum(0), int(counts.sum())), by_kind)


def _score(sums: Tensor, count: int) -> HoleScore:
    means = (sums / count).tolist() if count else [math.nan] * len(sums)
    return HoleScore(count, *means)
