"""The comparison of reading clips with decoding whole files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ffconv.analysis.decoding import OURS, WHOLE, WholeFile, compare_decoding
from ffconv.cli import main
from ffconv.data.clip_config import ClipConfig
from ffconv.data.clips import PrepareTrainingClips
from ffconv.data.samples import UnreadableSample
from ffconv.data.seeding import borrowed_randomness
from ffconv.data.videos import VideoFile
from ffconv.errors import InputError
from video_files import levels, make_video, video_folder

SMALL = ClipConfig(short_side=(32, 40), train_size=32, eval_short_side=32, eval_size=32)


def test_both_readers_give_the_same_clip(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 48, 64, 3), dtype=np.uint8)
    path = make_video(tmp_path / "x.mp4", list(noise))
    prepare, clips = PrepareTrainingClips(SMALL), []
    for video in (VideoFile("x", path), WholeFile("x", path)):
        with borrowed_randomness() as seed_everything:
            seed_everything(3)
            clips.append(prepare((video, 0), 0)["clip"])
    assert np.array_equal(*clips)


def test_both_readers_are_compared_in_one_run(tmp_path):
    path = make_video(tmp_path / "x.mp4", levels(90, (48, 64)))
    ours, whole = compare_decoding(path, SMALL, rounds=2)
    assert (ours.reader, whole.reader, whole.ratio) == (OURS, WHOLE, 1.0)
    assert len(ours.clips_per_second) == len(whole.clips_per_second) == 2


def test_the_command_prints_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = video_folder(tmp_path / "videos", ["a"])
    words = ["--rounds", "2", "--clip.short_side", "[32, 40]", "--clip.train_size", "32"]
    output = tmp_path / "figures.json"
    assert main(["benchmark", "decoding", str(folder), *words, "--output", str(output)]) == 0
    assert "seeking reader" in capsys.readouterr().out
    measured = json.loads(output.read_text())["measurements"]
    assert [len(reader["clips_per_second"]) for reader in measured] == [2, 2]


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(UnreadableSample, match=r"x\.mp4: cannot be read as a video"):
        compare_decoding(tmp_path / "x.mp4", SMALL, rounds=1)


def test_rounds_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="rounds=0"):
        compare_decoding(tmp_path, rounds=0)
