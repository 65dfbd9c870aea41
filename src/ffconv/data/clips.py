"""Clips of videos: which seconds, which part of the picture, as tensors of training and of testing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ffconv.data.clip_config import ClipConfig
from ffconv.data.video_reading import Resize
from ffconv.data.videos import Decoder, OpenVideo, Video
from ffconv.data.views import Window


class Timing(NamedTuple):
    """When the clips of a video may be.

    Args:
        step: seconds from one frame of a clip to the next.
        frame: seconds of one frame of the video.
        starts: how many different frames a clip can begin with.
        seconds: length of the video.
    """

    step: float
    frame: float
    starts: int
    seconds: float

    def times(self, start: float, frames: int) -> list[float]:
        """The seconds of a clip's frames; a video that is too short begins again."""
        moments = [start + number * self.step for number in range(frames)]
        # Half a frame early, since the length of a file may be rounded.
        return [
            moment - self.seconds * math.floor((moment + self.frame / 2) / self.seconds) for moment in moments
        ]


def timing(video: OpenVideo, config: ClipConfig) -> Timing:
    """The timing of clips in a video."""
    step = config.stride / (config.rate or video.rate)
    starts = round((video.seconds - (config.frames - 1) * step) * video.rate)
    return Timing(step, 1 / video.rate, max(1, starts), video.seconds)


def even_starts(when: Timing, clips: int) -> list[float]:
    """The seconds at which evenly spread clips begin, the first at once, the last as late as can be.

    A single clip lies in the middle.
    """
    places = [(when.starts - 1) / 2] if clips == 1 else np.linspace(0, when.starts - 1, clips).tolist()
    return [round(place) * when.frame for place in places]


class PrepareTrainingClips:
    """``prepare`` of training: ``(video, label), index -> {"clip", "label", "index"}``.

    ``clip`` is (segments, 3, T, train_size, train_size) uint8. Each segment's clip begins at random in its
    part of the video; short side, crop and flip are drawn once a clip.

    Args:
        config: how clips are cut.
        decoder: what reads files.
    """

    def __init__(self, config: ClipConfig, decoder: Decoder = "pyav") -> None:
        self._config = config
        self._decoder: Decoder = decoder

    def __call__(self, item: tuple[Video, int], index: int) -> dict[str, Any]:
        video, label = item
        with video.open(self._decoder) as opened:
            when = timing(opened, self._config)
            segments = self._config.segments
            clips = []
            for segment in range(segments):
                first, after = (when.starts * part // segments for part in (segment, segment + 1))
                start = random.randrange(first, max(first + 1, after)) * when.frame
                clips.append(self._clip(opened, when.times(start, self._config.frames)))
        return {"clip": torch.stack(clips), "label": label, "index": index}

    def _clip(self, video: OpenVideo, times: Sequence[float]) -> Tensor:
        config = self._config
        frames = video.read(times, resize_short_side(random.randint(*config.short_side)))
        height, width, _ = frames.pictures[0].shape
        top = random.randint(0, height - config.train_size)
        left = random.randint(0, width - config.train_size)
        window = Window(top, left, config.train_size, random.random() < config.flip)
        return window.cut(as_tensor(frames.pictures), frames.places)


class PrepareViews:
    """``prepare`` of evaluation: the frames of a video that its views need, and which frames each clip has.

    ``(video, label), index -> {"frames", "places", "span", "label", "index"}``: ``frames`` (U, 3, H, W) uint8
    of short side ``eval_short_side``, ``places`` (clips, T) int64 into them, ``span`` (clips, 2) the seconds
    at which each clip begins and ends. ``ffconv.data.views`` cuts the views out of them.

    Args:
        config: how clips are cut.
        clips: how many.
        decoder: what reads files.
    """

    def __init__(self, config: ClipConfig, clips: int, decoder: Decoder = "pyav") -> None:
        self._config, self._clips = config, clips
        self._decoder: Decoder = decoder

    def __call__(self, item: tuple[Video, int], index: int) -> dict[str, Any]:
        video, label = item
        config = self._config
        with video.open(self._decoder) as opened:
            when = timing(opened, config)
            starts = even_starts(when, self._clips)
            times = [when.times(start, config.frames) for start in starts]
            frames = opened.read(
                [time for clip in times for time in clip], resize_short_side(config.eval_short_side)
            )
        length = (config.frames - 1) * when.step + when.frame
        spans = [(start, min(start + length, when.seconds)) for start in starts]
        return {
            "frames": as_tensor(frames.pictures),
            "places": torch.tensor(frames.places).view(self._clips, config.frames),
            "span": torch.tensor(spans),
            "label": label,
            "index": index,
        }


def as_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """Pictures (H, W, 3) as one tensor (U, 3, H, W) uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def resize_short_side(side: int) -> Resize:
    """Resizes pictures (H, W, 3) bilinearly, antialiased, so that the shorter side has so many pixels."""
    resize = v2.Resize(side, antialias=True)

    def resized(picture: np.ndarray) -> np.ndarray:
        if min(picture.shape[:2]) == side:
            return picture
        return resize(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0).numpy()

    return resized


def read_whole(item: tuple[Video, int], index: int, *, decoder: Decoder = "pyav") -> dict[str, Any]:
    """``prepare`` that decodes all frames and keeps none, to find broken files."""
    video, _ = item
    with video.open(decoder) as opened:
        for _ in opened.frames():
            pass
    return {"index": index}
