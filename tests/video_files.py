"""Small videos made by PyAV, a network for clips, and how much a process holds open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from timm.models import is_model, register_model
from torch import Tensor, nn

#: Grey levels that are at least this far apart stay apart through encoding.
STEP = 7


def levels(count: int, size: tuple[int, int] = (48, 64)) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) of one grey level each, which says the frame's number."""
    for number in range(count):
        yield np.full((*size, 3), level(number), np.uint8)


def level(number: int) -> int:
    """The grey level of frame ``number``; the first 30 are different."""
    return 20 + STEP * (number % 30)


def numbers(pictures: Sequence[np.ndarray]) -> list[int]:
    """The numbers of the frames made by ``levels``, as they were decoded."""
    return [round((float(np.mean(picture)) - 20) / STEP) for picture in pictures]


def make_video(
    path: Path,
    frames: Iterator[np.ndarray] | Sequence[np.ndarray] | None = None,
    *,
    rate: int = 30,
    codec: str = "libx264",
    form: str | None = None,
    orientation: tuple[int, bool, bool] = (0, False, False),
    times: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """Writes a video.

    Args:
        path: file, whose extension says the container unless ``form`` does.
        frames: pictures (H, W, 3) uint8; by default 30 of ``levels``.
        rate: frames per second.
        codec: encoder.
        form: container.
        orientation: what the display matrix says: degrees counter-clockwise, mirrored left to right, mirrored
            top to bottom.
        times: of each frame in units of 1 / rate; by default 0, 1, 2, ...
        options: of the encoder, such as ``g`` for the distance of key frames.
    """
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        if any(orientation):
            stream.set_display_rotation(*orientation)
        for number, picture in enumerate(frames if frames is not None else levels(30)):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def video_folder(path: Path, classes: Sequence[str], videos: int = 2, **options: Any) -> Path:
    """A tree of class folders with short videos."""
    pictures = options.pop("frames", None) or list(levels(20))
    for name in classes:
        (path / name).mkdir(parents=True)
        for number in range(videos):
            make_video(path / name / f"{number}.mp4", pictures, **options)
    return path


class TinyVideoNetwork(nn.Module):
    """A convolution over space and time, a batch norm, dropout, a linear layer."""

    def __init__(
        self, num_classes: int = 4, in_chans: int = 3, drop_rate: float = 0.0, width: int = 8
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_chans, width, (3, 4, 4), (1, 4, 4), (1, 0, 0), bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(width, num_classes)
        self.seen = 0  # the largest batch so far

    def forward(self, x: Tensor) -> Tensor:
        self.seen = max(self.seen, len(x))
        features = torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3, 4))
        return self.fc(self.drop(features))


_ARGUMENTS = ("num_classes", "in_chans", "drop_rate", "width")  # timm gives more


def tiny_video(pretrained: bool = False, **arguments: Any) -> TinyVideoNetwork:
    """The network by name, ``timm.create_model("tiny_video")``."""
    return TinyVideoNetwork(**{name: arguments[name] for name in _ARGUMENTS if name in arguments})


if not is_model("tiny_video"):  # pytest imports this file under two names
    register_model(tiny_video)
