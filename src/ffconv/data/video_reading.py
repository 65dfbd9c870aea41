"""Frames of a video at given times, reading and decoding no more than they need.

A file is entered at the key frame before the first wanted frame. The packets up to the last one are read
without decoding, which tells the exact time of every frame; then only those are decoded that a wanted frame
needs: groups of pictures without any are left out, and so are frames that no other frame refers to.
"""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ffconv.data.decoding import sample_size
from ffconv.data.samples import UnreadableSample
from ffconv.data.video_rotation import upright
from ffconv.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame

#: Seconds without a wanted frame after which seeking anew is taken to be cheaper than reading on.
_SEEK_GAP = 5.0

#: Seconds by which a file may end before its header says so; audio and rounding account for less.
_MISSING_END = 0.5

#: Seconds by which a time may precede the frame that it means: Matroska rounds timestamps to milliseconds.
ROUNDING = 5e-4

#: Containers whose timestamps are those of decoding.
UNTIMED = ("avi",)

#: FFmpeg's names of the containers that are opened, and of bare streams of frames.
CONTAINERS = (
    *("mov", "mp4", "avi", "matroska", "webm", "flv", "mpeg", "mpegts", "asf", "ogg"),
    *("h264", "hevc", "mpegvideo", "m4v"),
)

#: Pixels of a frame, twice those of 8K.
MAX_PIXELS = 2**26

Resize = Callable[[np.ndarray], np.ndarray]

#: Pictures by timestamp or number, and the timestamp or number of each time's picture.
_Found = tuple[dict[int, np.ndarray], dict[float, int]]


class TimedFrame(NamedTuple):
    """A picture (H, W, 3) uint8 RGB, upright, and the seconds from the first frame at which it appears."""

    seconds: float
    picture: np.ndarray


class Frames(NamedTuple):
    """Frames read from a video: the different ones, and which of them is shown at each time.

    Args:
        pictures: (H, W, 3) uint8 RGB each, upright, in the order of time.
        places: for each of the times the index of its frame in ``pictures``.
    """

    pictures: list[np.ndarray]
    places: list[int]


@contextmanager
def open_with_pyav(source: Path | bytes, name: str) -> Iterator[VideoReader]:
    """Opens a video file, or the content of one, and closes it in the end.

    Args:
        source: the file or its content.
        name: what it is called in errors.

    Raises:
        UnreadableSample: where it is missing, empty, truncated, damaged, or holds no video; also what fails
            inside the block while reading.
        InputError: where PyAV is not installed.
    """
    with video_errors_named(name), open_container(source, name) as container:
        yield VideoReader(container, name)


def open_container(source: Path | bytes, name: str) -> InputContainer:
    """Open a file in one of `CONTAINERS`, or the content of one, by PyAV.

    FFmpeg knows formats that connect to hosts, name other files or never end; they are not opened.

    Raises:
        UnreadableSample: If it is empty, not a regular file, or in no such container.
        FFmpegError, OSError: As PyAV.
    """
    import av

    if isinstance(source, Path):
        # Behind "file:" FFmpeg reads no protocol into a name such as concat:a.mp4.
        opened, size = f"file:{source}", sample_size(source, name)
    else:
        opened, size = io.BytesIO(source), len(source)
    if size == 0:
        raise UnreadableSample(name, "is empty (0 bytes)")
    limits = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        return av.open(opened, "r", options=limits, metadata_errors="replace")
    except av.ArgumentError as error:
        raise UnreadableSample(
            name, "is no video in a container that is read (MP4, AVI, Matroska, ...)"
        ) from error


@contextmanager
def video_errors_named(name: str) -> Iterator[None]:
    """Turn what PyAV raises into UnreadableSample of this name.

    Raises:
        InputError: If PyAV is not installed.
    """
    try:
        from av import FFmpegError
    except ImportError as error:
        raise InputError("videos need the package av: pip install 'ffconv[video]'") from error
    try:
        yield
    except FFmpegError as error:
        raise UnreadableSample(name, f"cannot be read as a video ({error.strerror})") from error
    except OSError as error:
        raise UnreadableSample(name, error.strerror or str(error)) from error


def require_frame_size(width: int, height: int, name: str) -> None:
    """Refuse frames of more than `MAX_PIXELS`, before one is decoded."""
    if width * height > MAX_PIXELS:
        raise UnreadableSample(
            name, f"has frames of {width} x {height} pixels, more than {MAX_PIXELS} in all"
        )


class VideoReader:
    """An open video; made by ``open_with_pyav``.

    Attributes:
        rate: frames per second, the average where they are unevenly spaced.
        seconds: from the first frame to the end of the last.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        if not container.streams.video:
            raise UnreadableSample(name, "holds no video stream")
        self._container, self._name = container, name
        self._stream = container.streams.video[0]
        codec = self._stream.codec_context
        if codec is None:
            raise UnreadableSample(name, "its video codec is not known")
        require_frame_size(codec.width, codec.height, name)
        codec.options = {"max_pixels": str(MAX_PIXELS)}  # a stream may change its size on the way
        # The loader has processes of its own, and with one thread skip_frame counts from the next packet on.
        codec.thread_count = 1
        rate = self._stream.average_rate or self._stream.guessed_rate or self._stream.base_rate
        if not rate or self._stream.time_base is None:
            raise UnreadableSample(name, "does not say its frame rate")
        self.rate = float(rate)
        self._tick = float(self._stream.time_base)
        self._start = self._stream.start_time or 0
        self.seconds = self._length()

    def read(self, times: Sequence[float], resize: Resize | None = None) -> Frames:
        """Return the frames on screen at the given times: of each the last frame that has appeared by then.

        Args:
            times: in seconds from the first frame, in any order, by the timestamps of the file.
            resize: applied to each frame as soon as it is decoded.

        Raises:
            UnreadableSample: where the file ends before it should, or a wanted frame is damaged.
        """
        order = sorted(set(times))
        timed = None if self._container.format.name in UNTIMED else self._by_time(order, resize)
        found, shown = timed or self._by_number(order, resize)
        moments = sorted(found)
        return Frames([found[moment] for moment in moments], [moments.index(shown[time]) for time in times])

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames from the first to the last.

        Raises:
            UnreadableSample: where the file ends before it should, or a frame is damaged.
        """
        self._seek(0.0)
        end, decoded = 0.0, self._container.decode(self._stream)
        for number in itertools.count():
            # Not around the yield: errors of the one who reads are his own.
            with video_errors_named(self._name):
                frame = next(decoded, None)
            if frame is None:
                break
            untimed = frame.pts is None or self._container.format.name in UNTIMED
            seconds = number / self.rate if untimed else self._time(frame.pts or 0)
            end = seconds + 1 / self.rate
            yield TimedFrame(seconds, self._picture(frame))
        self._require_end(end, self.seconds)

    def _time(self, pts: int) -> float:
        return (pts - self._start) * self._tick

    def _length(self) -> float:
        """Seconds by the header where it speaks of this stream, otherwise by the packets at the end."""
        if self._stream.duration:
            return self._stream.duration * self._tick
        declared = (self._container.duration or 0) / 1e6
        self._seek(declared)
        end, of_any = self._read_to_the_end()
        if end == 0.0 and declared:  # the index led behind the last frame
            self._seek(0.0)
            end, of_any = self._read_to_the_end()
        if end == 0.0:
            raise UnreadableSample(self._name, "holds no frames")
        self._require_end(of_any, declared)  # another stream, sound say, may be the longest
        return end

    def _read_to_the_end(self) -> tuple[float, float]:
        """Seconds from its beginning at which the video ends, and from 0 at which any stream ends.

        Untimed frames are counted.
        """
        end, of_any, untimed = 0.0, 0.0, 0
        for packet in self._container.demux():
            if packet.size == 0:
                continue
            own = packet.stream_index == self._stream.index
            if packet.pts is None:
                untimed += own
                continue
            after = packet.pts + (packet.duration or 0)
            of_any = max(of_any, float(after * packet.time_base))
            end = max(end, self._time(after)) if own else end
        end = end or untimed / self.rate
        return end, max(of_any, end)

    def _require_end(self, found: float, expected: float) -> None:
        if found < expected - _MISSING_END:
            raise UnreadableSample(
                self._name, f"ends after {found:.2f} s where it should have {expected:.2f} s: truncated"
            )

    def _seek(self, time: float) -> None:
        import av

        self._stream.codec_context.skip_frame = "DEFAULT"
        # Some formats find the first frame only when asked for an earlier one.
        stamp = int((time if time > 0 else -1.0) / self._tick) + self._start
        try:
            self._container.seek(stamp, stream=self._stream)
        except av.FFmpegError:  # formats that cannot, such as a bare stream, are read from their beginning
            self._container.seek(0, unsupported_byte_offset=True)

    def _by_time(self, times: Sequence[float], resize: Resize | None) -> _Found | None:
        """The frames by their timestamps and each time's timestamp; None where frames have none."""
        found, shown = {}, {}
        for group in _groups(times):
            packets = self._packets(group[0], group[-1])
            if any(packet.pts is None for packet in packets):
                return None
            chosen = self._chosen(packets, group)
            wanted = set(chosen.values())
            pictures = self._decoded(_needed(packets, wanted), wanted, resize)
            if len(pictures) < len(wanted):  # not every key frame can be begun with
                pictures = self._decoded(self._read_packets(0.0, group[-1]), wanted, resize)
            self._require_decoded(pictures, wanted)
            shown |= chosen
            found |= pictures
        return found, shown

    def _packets(self, first: float, last: float) -> list[Packet]:
        """The packets from a key frame at or before ``first`` up to ``last``."""
        packets = self._read_packets(first, last)
        late = not packets or packets[0].pts is None or self._time(packets[0].pts) > first + ROUNDING
        if late and first > 0:  # a poor index led behind it
            packets = self._read_packets(0.0, last)
        if not packets:
            raise UnreadableSample(self._name, "holds no frames")
        return packets

    def _read_packets(self, first: float, last: float) -> list[Packet]:
        self._seek(first)
        packets: list[Packet] = []
        for packet in self._container.demux(self._stream):
            if packet.size == 0:
                break
            if not packets and not packet.is_keyframe:  # sought between key frames
                continue
            packets.append(packet)
            # No frame is shown before it is decoded, so all those shown until then have been read. Matroska's
            # first packets do not say when they are decoded; by when they are shown, later ones come earlier.
            if packet.dts is not None and self._time(packet.dts) > last + ROUNDING:
                return packets
        ends = [self._time(p.pts + (p.duration or 0)) for p in packets if p.pts is not None]
        if ends:
            self._require_end(max(ends), min(last, self.seconds))
        return packets

    def _chosen(self, packets: Sequence[Packet], times: Sequence[float]) -> dict[float, int]:
        """For each time the timestamp of its frame."""
        stamps = sorted(
            {packet.pts for packet in packets if packet.pts is not None and not packet.is_discard}
        )
        moments = [self._time(stamp) - ROUNDING for stamp in stamps]
        return {time: stamps[max(0, bisect.bisect_right(moments, time) - 1)] for time in times}

    def _decoded(
        self, packets: Sequence[Packet], wanted: set[int], resize: Resize | None
    ) -> dict[int, np.ndarray]:
        """The wanted frames, as far as they come out of the decoder sound."""
        codec = self._stream.codec_context
        codec.flush_buffers()
        found: dict[int, np.ndarray] = {}
        for packet in [*packets, None]:  # None: the decoder gives what it has kept back
            codec.skip_frame = "NONREF" if packet is not None and packet.pts not in wanted else "DEFAULT"
            for frame in codec.decode(packet):
                if frame.pts in wanted and not frame.is_corrupt:
                    found[frame.pts] = self._picture(frame, resize)
            if len(found) == len(wanted):
                break
        return found

    def _require_decoded(self, found: Mapping[int, np.ndarray], wanted: set[int]) -> None:
        missing = wanted - found.keys()
        if missing:
            moment = self._time(min(missing))
            raise UnreadableSample(self._name, f"the frame at {moment:.2f} s is damaged or cannot be decoded")

    def _by_number(self, times: Sequence[float], resize: Resize | None) -> _Found:
        """For files whose frames carry no time of their own: frame n is shown at n / rate."""
        last = max(0, round(self.seconds * self.rate) - 1)
        shown = {time: min(max(0, int((time + ROUNDING) * self.rate)), last) for time in times}
        wanted = set(shown.values())
        found: dict[int, np.ndarray] = {}
        self._seek(0.0)
        number, frame = -1, None
        for number, frame in enumerate(self._container.decode(self._stream)):
            if number in wanted:
                found[number] = self._picture(frame, resize)
            if len(found) == len(wanted):
                return found, shown
        self._require_end((number + 1) / self.rate, self.seconds)
        if frame is None:
            raise UnreadableSample(self._name, "holds no frames")
        found[number] = self._picture(frame, resize)
        return found, {time: min(place, number) for time, place in shown.items()}

    def _picture(self, frame: VideoFrame, resize: Resize | None = None) -> np.ndarray:
        if frame.is_corrupt:
            raise UnreadableSample(self._name, f"the frame at {frame.time or 0:.2f} s is damaged")
        width, height = self._stream.width, self._stream.height  # a stream may change its size on the way
        # With its default of all threads a forked worker can wait for ever.
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
        picture = upright(pixels, frame)
        return picture if resize is None else resize(picture)


def _groups(times: Sequence[float]) -> Iterator[Sequence[float]]:
    """Rising times in parts between which seeking is worth it."""
    first = 0
    for place in range(1, len(times) + 1):
        if place == len(times) or times[place] - times[place - 1] > _SEEK_GAP:
            yield times[first:place]
            first = place


def _needed(packets: Sequence[Packet], wanted: set[int]) -> list[Packet]:
    """The packets that the wanted frames may depend on, in decoding order."""
    starts = [place for place, packet in enumerate(packets) if packet.is_keyframe or place == 0]
    needed: list[Packet] = []
    earlier = False  # whether a frame of the group after this one leans on it
    for start, end in reversed(list(zip(starts, [*starts[1:], len(packets)], strict=True))):
        group = packets[start:end]
        own = [place for place, packet in enumerate(group) if packet.pts in wanted]
        if own or earlier:
            needed[:0] = group if earlier else group[: own[-1] + 1]
        # Frames after a key frame in the file and before it in time (an open group) need the group before.
        begins = group[0].pts or 0
        earlier = any((group[place].pts or 0) < begins for place in own)
    return needed
