"""Clips a second from video files: our reader against decoding whole files, taking turns in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffconv.analysis.tables import Table
from ffconv.data.clip_config import ClipConfig
from ffconv.data.clips import PrepareTrainingClips
from ffconv.data.media import MediaFiles
from ffconv.data.seeding import borrowed_randomness, derive_seed
from ffconv.data.video_reading import open_container, video_errors_named
from ffconv.data.videos import VIDEOS, Decoder, Video, VideoArray, VideoFile
from ffconv.errors import require

OURS, WHOLE = "seeking reader", "whole files"


@dataclass(frozen=True)
class Throughput:
    """Clips a second of one way to read.

    Args:
        reader: its name.
        clips_per_second: by round.
        ratio: median over the rounds of its throughput over that of decoding whole files in the same round.
    """

    reader: str
    clips_per_second: tuple[float, ...]
    ratio: float

    @property
    def median(self) -> float:
        """Clips a second."""
        return statistics.median(self.clips_per_second)


@dataclass(frozen=True)
class WholeFile:
    """A video whose frames are all decoded to RGB when it is opened."""

    name: str
    source: Path

    @contextmanager
    def open(self, decoder: Decoder = "pyav") -> Iterator[VideoArray]:
        """All its frames, decoded by PyAV whatever decoder is asked for."""
        with video_errors_named(self.name), open_container(self.source, self.name) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = container.decode(stream)
            pictures = np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in frames])
            rate = float(stream.average_rate or 1)
        yield VideoArray(self.name, pictures, rate)


def compare_decoding(
    path: Path, config: ClipConfig | None = None, *, rounds: int = 5, decoder: Decoder = "pyav"
) -> list[Throughput]:
    """Time the training clips of videos, from the file to the tensor, in one thread.

    Args:
        path: a video file or a folder of them; in each round every one gives one clip.
        config: how clips are cut.
        rounds: each begins its clips at other random times, the same for both readers.
        decoder: of our reader.

    Raises:
        InputError: for a path without videos, or an unreadable video.
    """
    require(rounds > 0, f"rounds={rounds} must be at least 1")
    files = MediaFiles(path, VIDEOS).files
    prepare = PrepareTrainingClips(config or ClipConfig(), decoder)
    readers = {OURS: VideoFile, WHOLE: WholeFile}
    seconds = {name: [0.0] * rounds for name in readers}
    with _one_thread():
        for turn, (number, file) in product(range(-1, rounds), enumerate(files)):
            for name in sorted(readers, reverse=bool(turn % 2)):
                took = _seconds(
                    prepare, readers[name](str(file), file), derive_seed("decoding", turn, number)
                )
                if turn >= 0:  # the round before filled the caches
                    seconds[name][turn] += took
    ratios = [whole / ours for ours, whole in zip(seconds[OURS], seconds[WHOLE], strict=True)]
    rates = {name: tuple(len(files) / value for value in values) for name, values in seconds.items()}
    return [
        Throughput(OURS, rates[OURS], statistics.median(ratios)),
        Throughput(WHOLE, rates[WHOLE], 1.0),
    ]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(prepare: PrepareTrainingClips, video: Video, seed: int) -> float:
    with borrowed_randomness() as seed_everything:
        seed_everything(seed)
        start = time.perf_counter()
        prepare((video, 0), 0)
        return time.perf_counter() - start


def as_table(measured: Sequence[Throughput], environment: Mapping[str, Any]) -> Table:
    """One line a reader."""
    rows = [
        (
            found.reader,
            f"{found.median:.1f}",
            f"{min(found.clips_per_second):.1f} to {max(found.clips_per_second):.1f}",
            f"{found.ratio:.2f}",
        )
        for found in measured
    ]
    notes = (
        f"{environment['processor']}, one thread",
        f"command: {' '.join(environment['command'])}",
        "ratio: median over the rounds of the ratio within a round",
    )
    columns = ("reader", "median (clips/s)", "range (clips/s)", "ratio to whole files")
    return Table("Decoding", columns, rows, notes)


def as_json(measured: Sequence[Throughput], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the machine and every round."""
    return {"environment": dict(environment), "measurements": [asdict(found) for found in measured]}
