"""The same reading by torchcodec, where it and FFmpeg's libraries are installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ffconv.data.samples import UnreadableSample
from ffconv.data.video_reading import (
    ROUNDING,
    Frames,
    Resize,
    TimedFrame,
    open_container,
    video_errors_named,
)
from ffconv.errors import InputError, first_line

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]


@contextmanager
def open_with_torchcodec(source: Path | bytes, name: str) -> Iterator[TorchcodecReader]:
    """Opens a video file, or the content of one.

    Args:
        source: the file or its content.
        name: what it is called in errors.

    Raises:
        UnreadableSample: for what torchcodec cannot read.
        InputError: where torchcodec, or a version of FFmpeg that it knows, is not installed.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"data.decoder=torchcodec cannot be loaded: {first_line(error)}") from error
    with video_errors_named(name), open_container(source, name):
        pass  # torchcodec itself opens whatever FFmpeg knows
    try:
        opened = str(source) if isinstance(source, Path) else source
        yield TorchcodecReader(VideoDecoder(opened, dimension_order="NHWC", num_ffmpeg_threads=1))
    except InputError:  # of the one who reads, or said already
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnreadableSample(name, f"cannot be read as a video ({first_line(error)})") from error


class TorchcodecReader:
    """An open video; made by ``open_with_torchcodec``.

    Attributes:
        rate: frames per second, the average where they are unevenly spaced.
        seconds: from the first frame to the end of the last.
    """

    def __init__(self, decoder: VideoDecoder) -> None:
        metadata = decoder.metadata
        self._decoder = decoder
        self._begin = float(metadata.begin_stream_seconds or 0.0)
        self._end = float(metadata.end_stream_seconds)
        self.rate = float(metadata.average_fps)
        self.seconds = self._end - self._begin

    def read(self, times: Sequence[float], resize: Resize | None = None) -> Frames:
        """Return the frames on screen at the given times, see ``VideoReader.read``."""
        last = self._end - ROUNDING
        moments = [min(self._begin + max(0.0, time) + ROUNDING, last) for time in times]
        batch = self._decoder.get_frames_played_at(moments)
        stamps = batch.pts_seconds.tolist()
        different = sorted(set(stamps))
        pictures = [batch.data[stamps.index(stamp)].numpy() for stamp in different]
        if resize is not None:
            pictures = [resize(picture) for picture in pictures]
        return Frames(pictures, [different.index(stamp) for stamp in stamps])

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames from the first to the last."""
        for number in range(len(self._decoder)):
            frame = self._decoder.get_frame_at(number)
            yield TimedFrame(float(frame.pts_seconds) - self._begin, frame.data.numpy())
