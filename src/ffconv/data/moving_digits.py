"""An embedded set of clips whose class is a motion, so that the order of their frames is what counts."""

from __future__ import annotations

import itertools

import numpy as np

from ffconv.data.embedded import Digits, Split, require_split
from ffconv.data.seeding import derive_seed
from ffconv.data.videos import VideoArray
from ffconv.errors import require

#: Steps (down, right) of the eight directions; each is followed by its opposite.
_DIRECTIONS = {
    "down": (1, 0),
    "up": (-1, 0),
    "right": (0, 1),
    "left": (0, -1),
    "down right": (1, 1),
    "up left": (-1, -1),
    "down left": (1, -1),
    "up right": (-1, 1),
}
_SPEEDS = ("slow", "fast")

#: Grey levels of the noise, which is drawn for each pixel of each frame.
_NOISE = 48


class MovingDigits:
    """Real handwritten digits that move in one of eight directions at one of two speeds.

    The label is the motion, 16 classes; which digit moves is free. Samples come in pairs: each one of the
    second half is one of the first half played backwards, and its class the opposite direction. So a clip of
    a class, reversed, is distributed exactly as the clips of the opposite class, and a network that gives a
    clip and its reverse the same scores is right about at most one clip of each pair: never above 50 % in
    all, and at chance between opposite directions. A fast digit moves twice as many pixels a frame as a slow
    one.

    The digits are those of ``Digits``, so the splits share none. A sample is a function of (split, index).

    Args:
        split: "train" or "val".
        size: side of the frames in pixels, at least 16.
        frames: of a clip, at least 2.
        count: number of clips, even; by default 2048 for training, 512 for validation.

    Raises:
        InputError: for a value outside its range.
    """

    classes: tuple[str, ...] = tuple(
        f"{speed} {direction}" for speed, direction in itertools.product(_SPEEDS, _DIRECTIONS)
    )

    def __init__(self, split: Split, size: int = 32, frames: int = 8, count: int | None = None) -> None:
        require_split(split)
        require(size >= 16, f"size={size} must be at least 16")
        require(frames >= 2, f"frames={frames} must be at least 2")
        require(count is None or (count >= 2 and count % 2 == 0), f"count={count} must be even and above 0")
        # Slow digits cross a fifth of the picture, fast ones two fifths.
        self._step = max(1, round(size / 5 / (frames - 1)))
        digit = max(8, size // 3)
        room = size - digit - 2 * self._step * (frames - 1)
        require(room >= 0, f"frames={frames} need pictures larger than size={size}")
        self._digits = Digits(split, digit)
        self._split, self._size, self._frames = split, size, frames
        self._count = count or {"train": 2048, "val": 512}[split]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[VideoArray, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        reversed_, pair = divmod(index, self._count // 2)
        random = np.random.default_rng(derive_seed("moving digits", self._split, pair))
        label = 2 * int(random.integers(len(self.classes) // 2))  # opposites are neighbours
        clip = self._clip(random, label)
        name = f"moving digits {self._split} {index}"
        return (VideoArray(name, clip[::-1]), label + 1) if reversed_ else (VideoArray(name, clip), label)

    def _clip(self, random: np.random.Generator, label: int) -> np.ndarray:
        speed, direction = divmod(label, len(_DIRECTIONS))
        step = np.array(list(_DIRECTIONS.values())[direction]) * self._step * (speed + 1)
        picture = np.asarray(self._digits[int(random.integers(len(self._digits)))][0])
        places = np.arange(self._frames)[:, None] * step  # (T, 2)
        places -= places.min(axis=0)
        free = self._size - len(picture) - places.max(axis=0)
        places += random.integers(0, free + 1)
        clip = random.integers(0, _NOISE, (self._frames, self._size, self._size, 1), dtype=np.uint8)
        clip = clip.repeat(3, axis=3)
        for frame, (top, left) in zip(clip, places, strict=True):
            part = frame[top : top + len(picture), left : left + len(picture)]
            np.maximum(part, picture, out=part)
        return clip
