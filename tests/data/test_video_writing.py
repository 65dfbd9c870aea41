from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ffconv.data.video_reading import open_with_pyav
from ffconv.data.video_writing import video_writer
from ffconv.errors import InputError

pytest.importorskip("av")


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_frames_come_back_even_sided_and_in_order(tmp_path: Path, size: tuple[int, int]):
    values = [40, 90, 140, 190]
    with video_writer(tmp_path / "x.mp4", rate=12.5) as writer:
        for number, value in enumerate(values):
            writer.write(grey(value, *size), number / 12.5)
    with open_with_pyav(tmp_path / "x.mp4", "x.mp4") as video:
        frames = [frame.picture for frame in video.frames()]
        assert video.rate == pytest.approx(12.5)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx(values, abs=3)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_frames_keep_their_uneven_times(tmp_path: Path, name: str):
    times = [0.0, 0.02, 0.5, 0.51, 2.0]
    with video_writer(tmp_path / name, rate=10) as writer:
        for number, seconds in enumerate(times):
            writer.write(grey(40 * number), seconds)
    with open_with_pyav(tmp_path / name, name) as video:
        found = list(video.frames())
    assert [frame.seconds for frame in found] == pytest.approx(times, abs=1e-3)
    assert [round(float(frame.picture.mean())) for frame in found] == pytest.approx(range(0, 200, 40), abs=3)


def test_a_container_without_times_gets_frames_of_one_rate(tmp_path: Path):
    with video_writer(tmp_path / "x.avi", rate=10) as writer:
        for number, seconds in enumerate((0.0, 0.3, 0.4)):
            writer.write(grey(80 * number), seconds)
    with open_with_pyav(tmp_path / "x.avi", "x.avi") as video:
        assert [frame.seconds for frame in video.frames()] == pytest.approx([0, 0.1, 0.2])


def write(path: Path, *frames: np.ndarray, failure: Exception | None = None) -> None:
    with video_writer(path, rate=5) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, number / 5)
        if failure:
            raise failure


def test_a_frame_of_another_size_is_a_defect(tmp_path: Path):
    with pytest.raises(ValueError, match="48x32 in a video of 48x64"):
        write(tmp_path / "x.mp4", grey(0), grey(0, width=32))


def test_no_file_is_left_where_the_block_fails(tmp_path: Path):
    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path / "x.mp4", grey(0), failure=RuntimeError("stop"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.nothing", "no/folder/x.mp4"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="cannot be written as a video"):
        write(tmp_path / name, grey(0))
