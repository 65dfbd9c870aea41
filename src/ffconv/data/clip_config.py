"""How clips are cut out of videos, and how many views a test takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ffconv.errors import require

Crops = Literal[1, 3, 10]


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut; the defaults are the paper's Kinetics protocol.

    Args:
        frames: frames of a clip.
        stride: frames of the video from one frame of the clip to the next.
        rate: frames per second that ``stride`` counts in; null takes each video's own.
        segments: equal parts of a training video that give a clip each (TSN); their scores are averaged.
        short_side: smallest and largest short side in pixels a training video is resized to.
        train_size: side of the random square crop in pixels.
        flip: probability of a horizontal flip; a test of ten crops has flipped ones unless it is 0.
        eval_short_side: short side in pixels in evaluation.
        eval_size: side of the evaluation crop in pixels; three crops are of side ``eval_short_side``.
        mean: of the RGB channels in [0, 1], subtracted.
        std: of the RGB channels in [0, 1], divided by.

    Raises:
        InputError: for a value outside its range.
    """

    frames: int = 8
    stride: int = 8
    rate: float | None = None
    segments: int = 1
    short_side: tuple[int, int] = (256, 320)
    train_size: int = 224
    flip: float = 0.5
    eval_short_side: int = 256
    eval_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "segments", "train_size", "eval_size"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        self._require("rate", self.rate is None or self.rate > 0, "must be above 0, or null")
        self._require("flip", 0 <= self.flip <= 1, "must be a probability in [0, 1]")
        low, high = self.short_side
        rule = f"must be [low, high] with train_size={self.train_size} <= low <= high"
        self._require("short_side", self.train_size <= low <= high, rule)
        covers = self.eval_short_side >= self.eval_size
        self._require("eval_short_side", covers, f"must not be below eval_size={self.eval_size}")
        self._require("std", min(self.std) > 0, "must be positive")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        require(holds, f"data.clip.{name}={getattr(self, name)!r} {rule}")


@dataclass(frozen=True)
class ViewsConfig:
    """The views over which the scores of a video are averaged.

    Args:
        clips: clips, evenly spread over the video.
        crops: of each clip: 1 (centre), 3 (along the long side, of the short side's size) or 10 (corners and
            centre, each also flipped).

    Raises:
        InputError: for a value outside its range.
    """

    clips: int = 1
    crops: Crops = 1

    def __post_init__(self) -> None:
        require(self.clips >= 1, f"clips={self.clips} must be at least 1")
        require(self.crops in (1, 3, 10), f"crops={self.crops} must be 1, 3 or 10")
