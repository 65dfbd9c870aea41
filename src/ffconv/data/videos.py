"""Videos as samples: files, folders of class folders, Kinetics' CSV files, and lists of paths and labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from ffconv.data.media import LabelledFiles, Media, files_below, named_os_errors
from ffconv.data.samples import some
from ffconv.data.video_reading import ROUNDING, Frames, Resize, TimedFrame, open_with_pyav
from ffconv.errors import InputError, require
from ffconv.files import read_text

Decoder = Literal["pyav", "torchcodec"]

VIDEO_EXTENSIONS = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv",
)  # fmt: skip


class OpenVideo(Protocol):
    """A video while it is read.

    Attributes:
        rate: frames per second, the average where they are unevenly spaced.
        seconds: from the first frame to the end of the last.
    """

    rate: float
    seconds: float

    def read(self, times: Sequence[float], resize: Resize | None = None) -> Frames:
        """Return the frames on screen at these seconds; raises UnreadableSample for a damaged file."""
        ...

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames in order; raises UnreadableSample for a broken file."""
        ...


class Video(Protocol):
    """A video sample, not yet opened, so that what reads it decides which frames are decoded."""

    name: str

    def open(self, decoder: Decoder = "pyav") -> AbstractContextManager[OpenVideo]:
        """Opens it; it is closed at the end of the block."""
        ...


@dataclass(frozen=True)
class VideoFile:
    """An encoded video.

    Args:
        name: what it is called in errors.
        source: the file, or its content.
    """

    name: str
    source: Path | bytes

    def open(self, decoder: Decoder = "pyav") -> AbstractContextManager[OpenVideo]:
        """Opens it with the decoder; it is closed at the end of the block."""
        if decoder == "torchcodec":
            from ffconv.data.video_torchcodec import open_with_torchcodec

            return open_with_torchcodec(self.source, self.name)
        return open_with_pyav(self.source, self.name)


class VideoArray:
    """A video that is in memory already.

    Args:
        name: what it is called in errors.
        pictures: (T, H, W, 3) uint8 RGB.
        rate: frames per second.
    """

    def __init__(self, name: str, pictures: np.ndarray, rate: float = 1.0) -> None:
        self.name, self.rate = name, rate
        self.seconds = len(pictures) / rate
        self._pictures = pictures

    @contextmanager
    def open(self, decoder: Decoder = "pyav") -> Iterator[VideoArray]:
        """The video itself: nothing is to be decoded."""
        yield self

    def read(self, times: Sequence[float], resize: Resize | None = None) -> Frames:
        """Return the frames on screen at these seconds."""
        last = len(self._pictures) - 1
        numbers = [min(max(0, int((time + ROUNDING) * self.rate)), last) for time in times]
        different = sorted(set(numbers))
        pictures = [self._pictures[number] for number in different]
        if resize is not None:
            pictures = [resize(picture) for picture in pictures]
        return Frames(pictures, [different.index(number) for number in numbers])

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames in order."""
        for number, picture in enumerate(self._pictures):
            yield TimedFrame(number / self.rate, picture)


def _from_file(path: Path) -> VideoFile:
    return VideoFile(str(path), path)


def _from_bytes(content: bytes, name: str) -> VideoFile:
    return VideoFile(name, content)


#: Samples are ``VideoFile``.
VIDEOS = Media("video", VIDEO_EXTENSIONS, _from_file, _from_bytes)


class Listed(NamedTuple):
    """A line of a list: where the video is and its label as written, a class's name or number."""

    path: str
    label: str


def read_list(file: Path, folder: Path) -> tuple[list[Listed], list[str]]:
    """The videos that a file lists, and those of them that are known to be missing.

    A file whose first line names the columns ``label``, ``youtube_id``, ``time_start`` and ``time_end`` is
    one of Kinetics' own CSV files; its videos are looked for anywhere below ``folder``, under the names
    ``<youtube_id>_<time_start>_<time_end>`` (six digits each) or ``<youtube_id>``. In any other file each
    line is a path, relative to ``folder``, and a label, with a space or a comma between.

    Raises:
        InputError: for an unreadable or empty list, or a line that is no path and label.
    """
    lines = read_text(file).splitlines()
    if lines and "youtube_id" in lines[0]:
        return _kinetics(lines, file, folder)
    return [_path_and_label(line, file, folder, number) for number, line in enumerate(lines, 1) if line], []


def _kinetics(lines: Sequence[str], file: Path, folder: Path) -> tuple[list[Listed], list[str]]:
    try:
        rows = list(csv.DictReader(lines))
    except csv.Error as error:
        raise InputError(f"{file}: is no CSV file: {error}") from error
    columns = ("label", "youtube_id", "time_start", "time_end")
    absent = [column for column in columns if rows and column not in rows[0]]
    require(not absent, f"{file}: has no column {some(absent)}, which the videos' labels need")
    with named_os_errors():
        stored = {Path(path).stem: path for path in sorted(files_below(folder, VIDEOS), reverse=True)}
    videos, missing = [], []
    for number, row in enumerate(rows, 2):
        require(all(row[column] for column in columns), f"{file}:{number}: must have {some(columns)}")
        try:
            start, end = (round(float(row[column])) for column in ("time_start", "time_end"))
        except (ValueError, OverflowError):
            raise InputError(f"{file}:{number}: time_start and time_end must be seconds") from None
        stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        path = stored.get(stem) or stored.get(row["youtube_id"])
        if path is None:
            path = str(folder / row["label"] / f"{stem}.mp4")
            missing.append(path)
        videos.append(Listed(path, row["label"]))
    return videos, missing


def _path_and_label(line: str, file: Path, folder: Path, number: int) -> Listed:
    path, _, label = line.strip().rpartition("," if "," in line else " ")
    path, label = path.strip(), label.strip()
    require(bool(path and label), f"{file}:{number}: {line[:80]!r} is not a path and a label")
    return Listed(str(folder / path), label)


def class_names(labels: set[str]) -> tuple[str, ...]:
    """The names of classes from labels as written: numbers count from 0, words are in alphabetical order.

    Example:
        >>> class_names({"2", "0"})
        ('0', '1', '2')
        >>> class_names({"run", "jump"})
        ('jump', 'run')
    """
    if all(map(_is_number, labels)):
        return tuple(map(str, range(max(map(int, labels), default=-1) + 1)))
    return tuple(sorted(labels))


def _is_number(label: str) -> bool:
    """Return True if a label counts classes, of which there must be a name each."""
    return re.fullmatch(r"[0-9]{1,6}", label) is not None


def listed_videos(videos: Sequence[Listed], classes: Sequence[str], file: Path) -> LabelledFiles:
    """Listed videos as samples.

    Args:
        videos: what ``read_list`` gave.
        classes: names of the classes; labels that are numbers count them.
        file: the list, for messages.

    Raises:
        InputError: for an empty list, or a label that is no class.
    """
    require(len(videos) > 0, f"{file}: lists no videos")
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(classes)}
    if all(_is_number(video.label) for video in videos):
        numbers = {str(number): number for number in range(len(classes))} | numbers
    unknown = sorted({video.label for video in videos} - numbers.keys())
    require(not unknown, f"{file}: labels {some(unknown)} are none of the {len(classes)} classes")
    return LabelledFiles(
        [video.path for video in videos], [numbers[video.label] for video in videos], classes, VIDEOS
    )
