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
        for value in values:
            writer.write(grey(value, *size))
    with open_with_pyav(tmp_path / "x.mp4", "x.mp4") as video:
        frames = list(video.frames())
        assert video.rate == pytest.approx(12.5)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx(values, abs=3)


def write(path: Path, *frames: np.ndarray, failure: Exception | None = None) -> None:
    with video_writer(path, rate=5) as writer:
        for frame in frames:
            writer.write(frame)
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
