"""Writing videos: frames to a file, with words drawn on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffconv.data.video_reading import UNTIMED
from ffconv.errors import InputError

if TYPE_CHECKING:
    from av.container import OutputContainer


_TICK = Fraction(1, 60000)  # of written times; MPEG-4 allows no finer one than 1 / 65535


class VideoWriter:
    """An open video file; made by ``video_writer``."""

    def __init__(self, container: OutputContainer, rate: float) -> None:
        import av

        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._container = container
        self._stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._timed = container.format.name not in UNTIMED
        if self._timed:
            self._stream.codec_context.time_base = _TICK
        self._size: tuple[int, int] | None = None

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Append a frame.

        Args:
            picture: (H, W, 3) uint8 RGB, of the first one's size; an odd last row or column is cut off.
            seconds: from the first frame to this one, rising; containers without times of frames ignore it.

        Raises:
            ValueError: for a frame of another size.
        """
        import av

        height, width = picture.shape[:2]
        if self._size is None:
            self._size = height, width
            self._stream.height, self._stream.width = height - height % 2, width - width % 2
        if self._size != (height, width):
            raise ValueError(f"a frame of {height}x{width} in a video of {self._size[0]}x{self._size[1]}")
        pixels = np.ascontiguousarray(picture[: self._stream.height, : self._stream.width])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if self._timed:
            frame.pts, frame.time_base = round(seconds / _TICK), _TICK
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what the encoder still holds back."""
        self._container.mux(self._stream.encode())


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[VideoWriter]:
    """Writes a video of H.264 (of MPEG-4 where PyAV has no encoder of that).

    The file appears under its name when it is complete; where the block fails there is none.

    Args:
        path: the file; its extension says the container.
        rate: frames per second.

    Raises:
        InputError: if the file cannot be written.
    """
    import av

    partial = path.parent / f".{path.stem}.partial{path.suffix}"
    try:
        with _created(partial, path) as container:
            writer = VideoWriter(container, rate)
            yield writer
            writer.finish()
        partial.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{path} cannot be written as a video: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _created(partial: Path, path: Path) -> OutputContainer:
    import av

    try:
        return av.open(str(partial), "w")
    except ValueError as error:  # no container has such an extension
        raise InputError(f"{path} cannot be written as a video: {error}") from error


def with_caption(picture: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A picture (H, W, 3) uint8 with lines of words drawn at the top left on a dark ground."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    font, margin = ImageFont.load_default(max(10, image.height // 14)), image.height // 40
    text = "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox((margin, margin), text, font=font)
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 160))
    draw.multiline_text((margin, margin), text, font=font, fill="white")
    return np.asarray(image)
