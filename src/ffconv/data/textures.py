"""An embedded set of regular patterns: what is hidden in one place is told by all the others."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ffconv.data.embedded import Split, require_split
from ffconv.data.seeding import derive_seed
from ffconv.errors import require

_OVERSAMPLING = 3  # samples along each side of a pixel, against jagged edges


class Textures:
    """Two-coloured periodic patterns of random period, direction, phase and colours; the label is their kind.

    A pattern repeats over the whole image along two axes at right angles, with a period of an eighth to a
    third of the side. So a hole of any size can be filled exactly by a network that sees far enough to find
    the period. Image and label are functions of (split, index) alone.

    Args:
        split: "train" or "val"; the two share no image.
        size: side in pixels, at least 16.
        count: number of samples.

    Raises:
        InputError: for a value outside its range.
    """

    classes: tuple[str, ...] = ("checks", "dots", "stripes", "waves")

    def __init__(self, split: Split, size: int = 64, count: int | None = None) -> None:
        require_split(split)
        require(size >= 16, f"size={size} must be at least 16")
        require(count is None or count >= 1, f"count={count} must be at least 1")
        self._split = split
        self._size = size
        self._count = count or {"train": 2048, "val": 256}[split]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        random = np.random.default_rng(derive_seed("textures", self._split, index))
        label = index % len(self.classes)
        share = _share_of_second_colour(self.classes[label], *self._phases(random))
        fine = self._size, _OVERSAMPLING, self._size, _OVERSAMPLING
        share = share.reshape(fine).mean(axis=(1, 3))[..., None]
        first, second = random.uniform(0, 255, size=(2, 3))
        return Image.fromarray(np.rint(first + share * (second - first)).astype(np.uint8)), label

    def _phases(self, random: np.random.Generator) -> np.ndarray:
        """Position in the period along both of its axes, in [0, 1), for each sample point: (2, n, n)."""
        points = (np.arange(self._size * _OVERSAMPLING) + 0.5) / (self._size * _OVERSAMPLING)
        y, x = np.meshgrid(points, points, indexing="ij")
        angle, start = random.uniform(0, np.pi), random.uniform(size=2)
        periods = random.uniform(1 / 8, 1 / 3, size=2)
        along = (np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x)
        return np.stack([a / period + s for a, period, s in zip(along, periods, start, strict=True)]) % 1


def _share_of_second_colour(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    match kind:
        case "checks":
            return ((u < 0.5) != (v < 0.5)).astype(float)
        case "dots":
            return (np.hypot(u - 0.5, v - 0.5) < 0.3).astype(float)
        case "stripes":
            return (u < 0.5).astype(float)
        case _:
            return 0.5 + (np.sin(2 * np.pi * u) + np.sin(2 * np.pi * v)) / 4
