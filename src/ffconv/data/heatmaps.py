"""Keypoints as heatmaps and back, and the average of an image's heatmaps with its mirror image's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CodecName = Literal["protocol", "unbiased"]

#: Pixels of the input for one of a heatmap.
STRIDE = 4

#: A Gaussian ends at this many sigmas.
_REACH = 3

#: Half side of the window the unbiased codec fits its Gaussian to, in sigmas: of 0.5, 1, 1.5 and 2 the one
#: whose error under noise of 1 to 10 % of the height is small without outliers.
_FIT = 1


@dataclass(frozen=True)
class HeatmapCodec:
    """One Gaussian of height 1 a keypoint, cut off at 3 sigma.

    ``protocol`` is SimpleBaseline's: the Gaussian stands on the nearest pixel, decoding takes the highest
    pixel and goes a quarter pixel toward its higher neighbour along each axis; pixel i of a heatmap is pixel
    4 i of the input. Source: Xiao, Wu, Wei, Simple Baselines for Human Pose Estimation and Tracking, ECCV
    2018, and its released code. Deviation, outside the first pixel alone: the code rounds toward 0, and
    gives full weight to the empty heatmap of a Gaussian that ends just before; here all is rounded to the
    nearest, and an empty heatmap has no weight.

    ``unbiased`` loses nothing: the Gaussian stands on the keypoint itself, decoding fits a Gaussian to the
    surroundings of the highest pixel (least squares on the logarithm, weighted by the squared value; Guo, A
    Simple Algorithm for Fitting a Gaussian Function, IEEE Signal Processing Magazine 28, 2011). Pixel i of a
    heatmap covers pixels 4 i to 4 i + 3 of the input, so that a mirrored input has exactly the mirrored
    heatmap.

    Args:
        size: height and width of a heatmap in its own pixels.
        sigma: of the Gaussian in heatmap pixels.
        name: which of the two.
    """

    size: tuple[int, int]
    sigma: float = 2.0
    name: CodecName = "protocol"

    @property
    def flip_shift(self) -> int:
        """Pixels by which the heatmaps of a mirrored input are moved right to fit, see `flip_average`."""
        return 1 if self.name == "protocol" else 0

    def encode(self, keypoints: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """Target heatmaps and their weights.

        Args:
            keypoints: (K, 2) x, y in input pixels.
            labelled: (K,) bool.

        Returns:
            (K, H, W) float32 and (K,) float32: weight 1 where a keypoint is labelled and its Gaussian reaches
            into the heatmap, else 0 and an empty heatmap.
        """
        centres = (keypoints.double() - self._first) / STRIDE
        if self.name == "protocol":
            centres = (centres + 0.5).floor()
        reach = _REACH * self.sigma
        last = torch.tensor([self.size[1] - 1, self.size[0] - 1])
        inside = ((centres >= -reach) & (centres <= last + reach)).all(dim=1)
        weights = labelled & inside
        rows, columns = (
            self._bell(centres[:, axis], size) for axis, size in ((1, self.size[0]), (0, self.size[1]))
        )
        heatmaps = rows[:, :, None] * columns[:, None, :] * weights[:, None, None]
        return heatmaps.float(), weights.float()

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints of heatmaps.

        Args:
            heatmaps: (N, K, H, W), any floating type.

        Returns:
            (N, K, 2) float32 x, y in input pixels, and (N, K) float32, the highest value as its score.
            Without a positive value a keypoint lies at the first pixel.
        """
        heatmaps = heatmaps.float()
        scores, places = heatmaps.flatten(2).max(dim=2)
        width = heatmaps.shape[3]
        peaks = torch.stack([places % width, places // width], dim=2)
        refined = self._quarter_step if self.name == "protocol" else self._fitted_centre
        positions = torch.where((scores > 0)[:, :, None], refined(heatmaps, peaks), 0.0)
        return positions * STRIDE + self._first, scores

    @property
    def _first(self) -> float:
        """Where the first pixel of a heatmap lies in the input."""
        return 0.0 if self.name == "protocol" else (STRIDE - 1) / 2

    def _bell(self, centres: Tensor, size: int) -> Tensor:
        """(K,) -> (K, size): one axis of the Gaussians."""
        distances = torch.arange(size) - centres[:, None]
        bell = torch.exp(-(distances**2) / (2 * self.sigma**2))
        return torch.where(distances.abs() <= _REACH * self.sigma, bell, 0.0)

    def _quarter_step(self, heatmaps: Tensor, peaks: Tensor) -> Tensor:
        """(N, K, H, W), (N, K, 2) -> (N, K, 2): a quarter pixel uphill, away from the borders."""
        height, width = heatmaps.shape[2:]
        x, y = peaks.unbind(dim=2)
        inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        crosswise = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], device=peaks.device)
        neighbours = peaks.where(inside[:, :, None], 1)[:, :, None] + crosswise
        right, left, below, above = _values_at(heatmaps, neighbours).unbind(dim=2)
        slopes = torch.stack([right - left, below - above], dim=2)
        return peaks + 0.25 * slopes.sign() * inside[:, :, None]

    def _fitted_centre(self, heatmaps: Tensor, peaks: Tensor) -> Tensor:
        """(N, K, H, W), (N, K, 2) -> (N, K, 2): centre of the Gaussian fitted around each peak.

        log h = c + b . d - a |d|^2 has its maximum at d = b / (2 a). The centre lies within a sigma of the
        peak or, where the peak is on a border, up to 3 sigma outside.
        """
        height, width = heatmaps.shape[2:]
        radius = min(math.ceil(_FIT * self.sigma), (min(height, width) - 1) // 2)
        steps = torch.arange(-radius, radius + 1, device=peaks.device)
        window = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=2).flatten(0, 1)  # (M, 2)
        last = torch.tensor([width - 1, height - 1], device=peaks.device)
        middles = torch.minimum(peaks.clamp_min(radius), last - radius)
        pixels = middles[:, :, None] + window  # (N, K, M, 2)
        values = _values_at(heatmaps, pixels).clamp_min(1e-6)
        steps = (pixels - peaks[:, :, None]) / self.sigma
        squares = steps.square().sum(dim=3, keepdim=True)
        terms = torch.cat([torch.ones_like(squares), steps, -squares], dim=3)  # (N, K, M, 4)
        weighted = (terms * values.square()[..., None])[..., None]
        # Sums, not matrix products, which autocast would take in low precision.
        normal = (weighted * terms[..., None, :]).sum(dim=2)
        right = (weighted * values.log()[..., None, None]).sum(dim=2)
        solved, _ = torch.linalg.solve_ex(normal, right)
        slope, curvature = solved[..., 1:3, 0], solved[..., 3:, 0]
        centres = peaks + slope / (2 * curvature) * self.sigma
        outside = _REACH * self.sigma
        lowest = torch.where(peaks == 0, -outside, peaks - self.sigma)
        highest = torch.where(peaks == last, last + outside, peaks + self.sigma)
        peaked = (curvature > 0) & centres.isfinite()
        return torch.where(peaked, centres.clamp(lowest, highest), peaks)


def _values_at(heatmaps: Tensor, pixels: Tensor) -> Tensor:
    """(N, K, H, W), (N, K, M, 2) x, y -> (N, K, M)."""
    places = pixels[..., 1] * heatmaps.shape[3] + pixels[..., 0]
    return heatmaps.flatten(2).gather(2, places)


def flip_average(
    heatmaps: Tensor, of_mirrored: Tensor, flip_order: Sequence[int], *, shift: int = 1
) -> Tensor:
    """Average of a network's heatmaps for images and for the mirrored images.

    Args:
        heatmaps: (N, K, H, W) for the images.
        of_mirrored: (N, K, H, W) for ``images.flip(-1)``, as the network gave them.
        flip_order: which keypoint takes each one's place in a mirrored image (`KeypointSet.flip_order`).
        shift: pixels by which the heatmaps of the mirrored images, mirrored back, are moved right; the
            columns that become free keep their values. SimpleBaseline moves them by 1, because its pixel i
            stands for pixel 4 i of the input, whose mirror image is no such pixel.
    """
    back = of_mirrored.flip(-1)[:, list(flip_order)]
    if shift:
        back = torch.cat([back[..., :shift], back[..., :-shift]], dim=-1)
    return (heatmaps + back) / 2
