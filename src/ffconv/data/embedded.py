"""Data sets that need no file: real handwritten digits, and marks far apart."""

from __future__ import annotations

import colorsys
from typing import Literal, get_args

import numpy as np
from PIL import Image

from ffconv.data.seeding import derive_seed
from ffconv.errors import require

Split = Literal["train", "val"]


class Digits:
    """The 1797 handwritten digits (8x8, 16 grey levels) that scikit-learn carries, as RGB images.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    Every fifth digit of a class is validation (355 images), the others are training (1442).

    Args:
        split: "train" or "val".
        size: side in pixels the 8x8 images are enlarged to (bicubic).

    Raises:
        InputError: for another split or a size below 8.
    """

    classes: tuple[str, ...] = tuple("0123456789")

    def __init__(self, split: Split, size: int = 32) -> None:
        require_split(split)
        require(size >= 8, f"size={size} must be at least 8, the digits' own")
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        position = np.zeros(len(labels), dtype=np.int64)  # of a digit among those of its class
        for label in range(10):
            members = np.flatnonzero(labels == label)
            position[members] = np.arange(len(members))
        chosen = (position % 5 == 4) == (split == "val")
        self.labels = labels[chosen]
        self._pixels = np.rint(pixels[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        self._size = (size, size)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        digit = Image.fromarray(self._pixels[index]).resize(self._size, Image.Resampling.BICUBIC)
        return digit.convert("RGB"), int(self.labels[index])


class FarMarks:
    """Two coloured marks at least half the image apart; the label says whether their colours are equal.

    Each mark by itself carries no information: its colour is uniform in both classes. A network whose
    receptive field is smaller than the distance of the marks, followed by average pooling and a linear
    layer, sees the sum of what each mark contributes; over such sums cross-entropy has its minimum at a
    constant output, so the network stays at chance. Image and label are functions of (split, index) alone.

    Args:
        split: "train" or "val"; the two share no image.
        size: side in pixels, at least 16; a mark's side is size // 8.
        count: number of samples; half of them are of each class.
        colours: number of colours, 2 to 12.

    Raises:
        InputError: for a value outside its range.
    """

    classes: tuple[str, ...] = ("different", "equal")

    def __init__(self, split: Split, size: int = 64, count: int | None = None, colours: int = 4) -> None:
        require_split(split)
        require(size >= 16, f"size={size} must be at least 16")
        require(2 <= colours <= 12, f"colours={colours} must lie in [2, 12]")
        require(count is None or count >= 1, f"count={count} must be at least 1")
        self._split = split
        self._size = size
        self._count = count or {"train": 4096, "val": 1024}[split]
        self._palette = _rainbow(colours)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        random = np.random.default_rng(derive_seed("far marks", self._split, index))
        label = index % 2
        first = int(random.integers(len(self._palette)))
        offset = 0 if label else int(random.integers(1, len(self._palette)))
        pair = (first, (first + offset) % len(self._palette))
        canvas = random.integers(64, 192, size=(self._size, self._size, 1), dtype=np.uint8).repeat(3, axis=2)
        side = self._size // 8
        for (top, left), colour in zip(self._corners(random, side), pair, strict=True):
            canvas[top : top + side, left : left + side] = self._palette[colour]
        return Image.fromarray(canvas), label

    def _corners(self, random: np.random.Generator, side: int) -> np.ndarray:
        """Top left corners (2, 2) of two marks, at least half the image apart and inside it."""
        while True:
            corners = random.integers(0, self._size - side + 1, size=(2, 2))
            if np.hypot(*(corners[0] - corners[1])) >= self._size / 2:
                return corners


def _rainbow(colours: int) -> np.ndarray:
    """Saturated hues at equal distances, (colours, 3) uint8."""
    hues = [colorsys.hsv_to_rgb(number / colours, 1, 1) for number in range(colours)]
    return np.rint(np.array(hues) * 255).astype(np.uint8)


def require_split(split: str) -> None:
    """Refuse a name that is no split's."""
    require(split in get_args(Split), f"split={split!r} must be train or val")
