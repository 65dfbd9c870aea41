"""Views of a clip: square windows, flipped or not, as the network takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ffconv.data.clip_config import ClipConfig, Crops


class Window(NamedTuple):
    """A square part of the picture, flipped or not."""

    top: int
    left: int
    side: int
    flipped: bool

    def cut(self, pictures: Tensor, places: Sequence[int] | Tensor) -> Tensor:
        """The clip of some of the pictures (U, 3, H, W), in the order of ``places``: (3, T, side, side)."""
        part = pictures[..., self.top : self.top + self.side, self.left : self.left + self.side]
        clip = part[places].transpose(0, 1)
        return clip.flip(-1) if self.flipped else clip


def windows_per_clip(crops: Crops, config: ClipConfig) -> int:
    """How many windows ``windows`` gives: of ten crops only five where training does not flip."""
    return 5 if crops == 10 and config.flip == 0 else crops


def windows(height: int, width: int, crops: Crops, config: ClipConfig) -> list[Window]:
    """The crops of a test: the first is the centre's where there is one crop or are three.

    Args:
        height, width: of the pictures, the shorter of them ``eval_short_side``.
        crops: how many.
        config: their sizes; without flips in training the five flipped ones of ten are left out.
    """
    if crops == 3:
        side = min(height, width)
        ends = [(0, 0), ((height - side) // 2, (width - side) // 2), (height - side, width - side)]
        return [Window(top, left, side, False) for top, left in ends]
    side = config.eval_size
    centre = Window((height - side) // 2, (width - side) // 2, side, False)
    if crops == 1:
        return [centre]
    corners = [Window(top, left, side, False) for top in (0, height - side) for left in (0, width - side)]
    upright = [*corners, centre]
    return upright + [window._replace(flipped=True) for window in upright if config.flip]


def normalised(clips: Tensor, config: ClipConfig) -> Tensor:
    """(N, 3, T, H, W) uint8 -> float32, less the mean, over the standard deviation."""
    mean, std = (
        torch.tensor(values, device=clips.device).view(3, 1, 1, 1) * 255
        for values in (config.mean, config.std)
    )
    return (clips.float() - mean) / std


class ViewBatch(NamedTuple):
    """Some views, of one video or of several.

    Args:
        clips: (B, 3, T, S, S) uint8.
        owners: which clip each is a view of, by the clips' numbers over all videos.
    """

    clips: Tensor
    owners: list[int]


def view_batches(
    videos: Iterable[Mapping[str, Tensor]], config: ClipConfig, *, crops: Crops, size: int
) -> Iterator[ViewBatch]:
    """The views of all videos, clip by clip, in batches.

    Args:
        videos: what ``PrepareViews`` gives, one after the other; each is let go of with its last view.
        config: sizes.
        crops: of each clip.
        size: views in a batch; more are never there together.
    """
    clips, owners, number = [], [], 0
    for video in videos:
        pictures = video["frames"]
        cuts = windows(pictures.shape[-2], pictures.shape[-1], crops, config)
        for places in video["places"]:
            for window in cuts:
                clips.append(window.cut(pictures, places))
                owners.append(number)
                if len(clips) == size:
                    yield ViewBatch(torch.stack(clips), owners)
                    clips, owners = [], []
            number += 1
    if clips:
        yield ViewBatch(torch.stack(clips), owners)
